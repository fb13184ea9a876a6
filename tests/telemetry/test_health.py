"""Health of models: every call exactly once, whatever sampler, provider or processor is there."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from time import perf_counter, sleep

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased

from otel_inference import (
    Config,
    HealthSpanProcessor,
    HealthState,
    guard,
    health,
    instrument,
    observe,
    runtime,
    uninstrument,
)
from otel_inference.resources.reading import AcceleratorReading
from otel_inference.telemetry.registry import HealthRegistry, ModelStatistics
from otel_inference.testing import recorded

SAMPLERS = {
    "always on": ALWAYS_ON,
    "1 %": TraceIdRatioBased(0.01),
    "always off": ALWAYS_OFF,
    "parent based": ParentBased(TraceIdRatioBased(0.5)),
}


def call(*, fail=False, model="ranker"):
    """One call of a model."""
    with contextlib.suppress(LookupError), observe(model):
        if fail:
            raise LookupError


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_sees_every_call_once(sampler):
    """10,000 calls with 137 failures are 137 in 10,000, whatever share of the spans is recorded."""
    with recorded(config=Config(strict=True), sampler=sampler) as telemetry:
        for number in range(10_000):
            call(fail=number % 73 == 0)

        ranker = health("ranker")
        (point,) = telemetry.points("inference.health.error_ratio")
        assert (ranker.calls, ranker.errors) == (10_000, 137)
        assert ranker.error_ratio == point.value == 0.0137
        low, high = ranker.error_ratio_interval
        assert 0.011 < low < 0.0137 < high < 0.017


def test_sees_every_call_without_an_sdk():
    """With no SDK at all health is kept, and nothing is exported."""
    instrument(config=Config(strict=True))
    for _ in range(10):
        call()

    assert health("ranker").calls == 10


def test_sees_every_call_once_with_many_processors():
    """Two providers with two processors each count a call once, ours and other instrumentations' alike."""
    provider = TracerProvider()
    for _ in range(2):
        provider.add_span_processor(HealthSpanProcessor())
    with recorded(config=Config(strict=True)) as telemetry:
        telemetry.tracer_provider.add_span_processor(HealthSpanProcessor())
        call()
        for attribute in ("gen_ai.request.model", "inference.model"):
            with provider.get_tracer("somebody else").start_as_current_span("chat", attributes={attribute: "gpt"}):
                pass

        assert {name: model.calls for name, model in health().items()} == {"ranker": 1, "gpt": 2}


def test_judges_foreign_spans_alone():
    """A processor that stands alone judges spans that name a model, and no others."""
    own = HealthRegistry()
    provider = TracerProvider()
    provider.add_span_processor(HealthSpanProcessor(own))
    tracer = provider.get_tracer("somebody else")
    start_ns = 1_700_000_000_000_000_000
    tracer.start_span("other", start_time=start_ns).end(start_ns + 5)
    span = tracer.start_span("chat", attributes={"gen_ai.request.model": "gpt"}, start_time=start_ns)
    span.set_attribute("error.type", "timeout")
    span.end(start_ns + 250_000_000)

    window, _ = own.models()["gpt"].snapshot()
    assert list(own.models()) == ["gpt"]
    assert (window.calls, window.errors) == (1, 1)
    assert window.sketch.quantile(0.5) == pytest.approx(0.25, rel=0.01)


def test_attaches_itself(monkeypatch):
    """`instrument()` attaches a processor to the provider, once, and it sleeps after `uninstrument()`."""
    with recorded(config=Config(strict=True)) as telemetry:
        tracer = telemetry.tracer_provider.get_tracer("somebody else")
        uninstrument()
        instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
        tracer.start_span("chat", attributes={"gen_ai.request.model": "gpt"}).end()
        assert health("gpt").calls == 1
        uninstrument()
        tracer.start_span("chat", attributes={"gen_ai.request.model": "gpt"}).end()

    assert health("gpt").calls == 1


class Hostile:
    """Looks like a span, and fails when asked."""

    @property
    def attributes(self):
        """Fail."""
        raise RuntimeError


def test_never_raises():
    """Whatever a span is like, the program that ends it goes on."""
    HealthSpanProcessor().on_end(Hostile())

    assert guard.error_counts() == {"processor": 1}
    guard._errors.clear()


def test_shows_a_hung_call_while_it_hangs(telemetry):
    """A call that does not come back is in flight, with its age, before it ends."""
    release = threading.Event()
    started = threading.Event()

    @observe("slow")
    def hang():
        started.set()
        release.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    assert started.wait(10)
    first, second = health("slow"), health("slow")
    release.set()
    thread.join()

    assert (first.active_calls, first.calls) == (1, 0)
    assert 0 < first.oldest_active_s < second.oldest_active_s
    assert (health("slow").active_calls, health("slow").oldest_active_s) == (0, 0.0)


@pytest.mark.parametrize(
    ("failures", "state"),
    [(0, HealthState.OK), (1, HealthState.OK), (15, HealthState.DEGRADED), (90, HealthState.CRITICAL)],
)
def test_judges_by_what_is_sure(telemetry, failures, state):
    """A failure or two are no verdict; many degrade a model, most make it critical."""
    for number in range(100):
        call(fail=number < failures)

    (point,) = telemetry.points("inference.health.state")
    assert health("ranker").state is state
    assert point.value == state.value


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_one_failure_is_no_verdict(telemetry, calls):
    """A single failure degrades nothing, however few calls there are."""
    for number in range(calls):
        call(fail=number == 0)

    assert health("ranker").state is HealthState.OK


def test_writes_the_gauges(telemetry):
    """Throughput, quantiles, utilization: by model, with the attributes of the contract."""
    for _ in range(5):
        call()

    (throughput,) = telemetry.points("inference.health.throughput")
    quantiles = telemetry.points("inference.health.latency")
    assert throughput.value > 0
    assert dict(throughput.attributes) == {"inference.model": "ranker"}
    assert [point.attributes["quantile"] for point in quantiles] == [0.5, 0.9, 0.99]
    resources = {point.attributes["inference.resource"] for point in telemetry.points("inference.health.utilization")}
    assert "concurrency" in resources


def test_reads_the_machine():
    """From the first call on CPU and memory are read, and are part of every model's health and a gauge."""
    with recorded(config=Config(strict=True)) as telemetry:
        deadline_s = perf_counter() + 30
        while not {"cpu", "memory"} <= set(health("ranker").utilization if health("ranker") else ()):
            assert perf_counter() < deadline_s
            call()
            sleep(0.05)
        sleep(1.0)  # the gauges look at most once a second
        points = telemetry.points("inference.health.utilization")

    shared = {point.attributes["inference.resource"]: point.value for point in points if len(point.attributes) == 1}
    assert set(shared) == {"cpu", "memory"}
    assert 0 < shared["memory"] < 1
    assert 0 <= shared["cpu"] <= 1
    assert "otel-inference-resources" not in {thread.name for thread in threading.enumerate()}


def test_shows_accelerators_by_their_conventions(telemetry, monkeypatch):
    """Devices are gauges with the names of the hardware conventions, and what is unreadable is absent."""
    device = AcceleratorReading(
        uuid="GPU-1", name="H100", vendor="NVIDIA", memory_used_bytes=3 * 2**30, memory_limit_bytes=4 * 2**30
    )
    monkeypatch.setattr(runtime._running, "accelerators", lambda: (device,))

    (used,) = telemetry.points("hw.gpu.memory.usage")
    (filled,) = telemetry.points("hw.gpu.memory.utilization")
    assert (used.value, filled.value) == (3 * 2**30, 0.75)
    assert dict(used.attributes) == {"hw.id": "GPU-1", "hw.name": "H100", "hw.vendor": "NVIDIA"}
    assert telemetry.points("hw.gpu.utilization") == []


def test_keeps_the_first_call_out_of_latency(telemetry):
    """Cold calls count, and say nothing about latency."""
    call()
    assert (health("ranker").calls, health("ranker").window.warm_calls) == (1, 0)
    assert telemetry.points("inference.health.latency") == []
    call()
    assert (health("ranker").calls, health("ranker").window.warm_calls) == (2, 1)


def test_bounds_models_and_memory():
    """10,000 names hold no more windows than the limit, and a window has a fixed size below 64 KiB."""
    registry = HealthRegistry(max_models=5)
    for number in range(10_000):
        registry.of(f"model {number}").ended(1.0, 0.01, failed=False, cold=False, size=number)
    assert len(registry.models()) == 6

    model = ModelStatistics(60.0, lambda: 100.0, 0.0)
    for number in range(5000):
        model.ended(100.0, 1e-6 * 1.0044**number, failed=False, cold=False, size=number**2)
    assert deep_size(model) <= 64 * 1024


def deep_size(root):
    """Bytes of an object and all it owns."""
    seen, todo, total = set(), [root], 0
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type) or callable(thing):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        todo.extend(gc.get_referents(thing))
    return total


def ends_in_time(work):
    """Whether `work` comes to its end, and waits for nothing that it holds itself."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_a_span_may_end_while_a_model_is_made():
    """A finalizer ends another instrumentation's span wherever the collector runs; both models count, and neither waits."""
    within = []

    def clock():
        if not within:
            within.append(True)
            registry.is_first_look(1)
            registry.of("ranker").ended(1.0, 0.01, failed=False, cold=False, size=None)
            registry.of("tagger").ended(1.0, 0.01, failed=False, cold=False, size=None)
        return 1.0

    registry = HealthRegistry(clock=clock)
    assert ends_in_time(lambda: registry.of("ranker").ended(1.0, 0.01, failed=False, cold=False, size=None))
    assert {name: model.calls for name, model in registry.models().items()} == {"ranker": 2, "tagger": 1}


def test_a_signal_handler_may_call_a_model_while_another_is_called_first(telemetry, monkeypatch):
    """It interrupts what is set up for the first call at any point; each call counts for its own model."""
    within = []

    def interrupted(_engine):
        if not within:
            within.append(True)
            call(model="tagger")
            call()

    monkeypatch.setattr(runtime._running.recorder, "_version_of", interrupted)
    assert ends_in_time(call)
    assert {name: model.calls for name, model in health().items()} == {"ranker": 2, "tagger": 1}


def test_loses_nothing_under_threads():
    """8 threads that add to one model and read it lose nothing."""
    model = HealthRegistry().of("ranker")

    def work():
        for _ in range(5000):
            model.ended(perf_counter(), 0.001, failed=False, cold=False, size=None)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        model.snapshot()
    for thread in threads:
        thread.join()

    assert model.snapshot()[0].calls == model.calls == 40_000
    assert model.counts(300.0) == (40_000, 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_begins_anew_in_a_forked_child(telemetry):
    """A forked child has its own health, and the parent keeps its own."""
    call()
    child = os.fork()
    if child == 0:
        empty = health() == {}
        call()
        os._exit(0 if empty and health("ranker").calls == 1 else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert health("ranker").calls == 1
