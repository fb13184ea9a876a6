"""Switching on and off, with every kind of OpenTelemetry set-up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_inference import Config, engines, force_flush, instrument, loading, runtime, uninstrument
from otel_inference.testing import Telemetry, recorded

ROWS = torch.ones(2, 4)

LATE_SDK = """
import otel_inference, torch
otel_inference.instrument()
module = torch.nn.Linear(4, 2).eval()
module(torch.ones(1, 4))
from opentelemetry import metrics, trace
from otel_inference.testing import Telemetry
telemetry = Telemetry()
trace.set_tracer_provider(telemetry.tracer_provider)
metrics.set_meter_provider(telemetry.meter_provider)
module(torch.ones(1, 4))
assert [span.name for span in telemetry.spans()] == ["forward Linear"]
first = telemetry.count("inference.call.duration")
assert first in (1, 2)  # the call before may have been written after
assert [point.value for point in telemetry.points("inference.active_calls")] == [0]
otel_inference.uninstrument()
assert telemetry.points("inference.active_calls") == []
otel_inference.instrument()
module(torch.ones(1, 4))
assert telemetry.count("inference.call.duration") == first + 1
assert [point.value for point in telemetry.points("inference.active_calls")] == [0]
"""


def test_does_nothing_twice(telemetry, linear):
    """A second `instrument()` changes nothing, a second `uninstrument()` neither."""
    instrument()
    linear(ROWS)
    assert len(telemetry.spans()) == 1

    uninstrument()
    uninstrument()
    linear(ROWS)
    assert len(telemetry.spans()) == 1


def test_says_when_a_second_call_asks_for_something_else(telemetry, linear, caplog):
    """Other providers in a second `instrument()` are refused with a warning: one call is one span."""
    other = Telemetry()
    instrument(tracer_provider=other.tracer_provider)
    linear(ROWS)

    assert "first instrument() stay in force" in caplog.text
    assert (len(telemetry.spans()), other.spans()) == (1, [])


def test_switches_engines_apart(telemetry, linear):
    """Engines can be taken out one by one; the rest goes on."""
    uninstrument(["torch"])
    linear(ROWS)
    assert telemetry.spans() == []
    assert runtime._running is not None

    uninstrument([name for name in engines.names() if name != "torch"])
    assert runtime._running is None


def test_takes_an_sdk_that_is_set_later():
    """Calls before the SDK is set are not lost in an error, later ones are recorded, also after a second start."""
    subprocess.run([sys.executable, "-c", LATE_SDK], check=True, timeout=60)


def test_reports_to_the_same_provider_again(linear):
    """Instrumenting again with the same provider reports again, observable instruments included."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    for _ in range(2):
        instrument(["torch"], meter_provider=provider)
        linear(ROWS)
        names = {
            metric.name
            for resource in reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        uninstrument()
        assert "inference.active_calls" in names


def test_bounds_model_names(linear, caplog):
    """Names beyond the limit are counted as `other`, with one warning."""
    from otel_inference import observe

    with recorded(config=Config(max_models=2, strict=True)) as telemetry:
        for number in range(20):
            with observe(f"model {number}"):
                pass

        models = {point.attributes["inference.model"] for point in telemetry.points("inference.call.duration")}
    assert models == {"model 0", "model 1", "other"}
    assert len([record for record in caplog.records if "'other'" in record.getMessage()]) == 1


def test_shows_a_call_while_it_runs(telemetry):
    """A running call is one active call of its engine and model."""
    from otel_inference import observe

    with observe("ranker"):
        (point,) = telemetry.points("inference.active_calls")
        assert (point.value, point.attributes["inference.model"]) == (1, "ranker")
    assert telemetry.points("inference.active_calls")[0].value == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forgets_the_parents_calls_in_a_forked_child(telemetry, linear):
    """A child forked inside a call counts its own calls, and the parent's stays the parent's."""
    from otel_inference import observe

    with observe("server"):
        child = os.fork()
        if child == 0:
            linear(ROWS)
            own = [span.name for span in telemetry.spans()] == ["forward Linear"]
            active = sum(point.value for point in telemetry.points("inference.active_calls"))
            os._exit(0 if own and active == 0 else 1)
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert [span.name for span in telemetry.spans()] == ["call server"]


def test_flushes_no_longer_than_asked():
    """`force_flush` gives up in time when an exporter hangs, and says so."""
    release = threading.Event()

    class Hanging:
        def get_tracer(self, *_, **__):
            from opentelemetry.trace import NoOpTracer

            return NoOpTracer()

        def force_flush(self, _):
            return release.wait(30)

    instrument(tracer_provider=Hanging())
    assert force_flush(timeout_s=0.05) is False
    release.set()
    uninstrument()
    assert force_flush() is True


def test_flushes_what_was_recorded(telemetry, linear):
    """`force_flush` reports success when every provider has flushed."""
    linear(ROWS)

    assert force_flush() is True


def test_warns_of_unknown_engines_in_the_environment(monkeypatch, caplog):
    """An engine in the environment that nobody knows is a warning, and the others are instrumented."""
    monkeypatch.setenv("OTEL_INFERENCE_ENGINES", "torch,tensorflow")
    instrument()

    assert "tensorflow" in caplog.text
    assert runtime._running.engines == {"torch"}


def test_an_engine_misspelt_in_the_environment_is_told_its_name(monkeypatch, caplog):
    """The warning of an unknown engine names the known one that is most like it."""
    monkeypatch.setenv("OTEL_INFERENCE_ENGINES", "torch,Onnxruntme")
    instrument()

    assert "'Onnxruntme' (did you mean onnxruntime?), which is unknown" in caplog.text


def test_two_threads_that_fork_at_once_leave_nothing_held(telemetry, monkeypatch):
    """Each lets go on what it held itself: a writer held for good makes calls wait for ever once its queue is full."""
    monkeypatch.setattr(loading, "_PATIENCE_S", 0.01)  # as if the first fork took longer than that
    writer = runtime._running.recorder.writer
    go_on, second_holds, first_is_over = writer.go_on_after_fork, threading.Event(), threading.Event()

    def going_on():
        go_on()
        second_holds.wait(10)

    def second():
        runtime._before_fork()
        second_holds.set()
        first_is_over.wait(10)
        runtime._after_fork_in_parent()

    monkeypatch.setattr(writer, "go_on_after_fork", going_on)
    runtime._before_fork()
    thread = threading.Thread(target=second)
    thread.start()
    runtime._after_fork_in_parent()
    first_is_over.set()
    thread.join(10)

    assert writer._writing.acquire(timeout=1)
    writer._writing.release()
