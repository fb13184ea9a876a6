"""The loop from calls to findings, alerts, callbacks and sampling, in a running process."""

from __future__ import annotations

import threading
import time

import pytest

from otel_inference import Config, FindingKind, HealthState, evaluate, findings, health, journal, observe, on, runtime
from otel_inference.finding import FindingEvent
from otel_inference.maintenance.maintainer import maintainer
from otel_inference.sampling.attention import attention
from otel_inference.telemetry.registry import registry
from otel_inference.testing import recorded


@pytest.fixture
def clock(monkeypatch):
    """Seconds that can be added to the registry's clock, so that a stall needs no waiting."""
    ahead = [0.0]
    real = registry._clock
    monkeypatch.setattr(registry, "_clock", lambda: real() + ahead[0])
    return ahead


@pytest.fixture
def hung_call():
    """Begins a call of `ranker` that hangs until the test ends."""
    release, threads = threading.Event(), []

    @observe("ranker")
    def hang():
        release.wait(30)

    def begin():
        threads.append(threading.Thread(target=hang))
        threads[0].start()
        while not runtime._running.recorder.running("ranker"):
            time.sleep(0.001)

    yield begin
    release.set()
    for thread in threads:
        thread.join()


def settled(condition):
    """Whether something that another thread does comes true."""
    deadline_s = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return condition()


def test_closes_the_loop(clock, hung_call):
    """A hung call becomes a finding, a degraded state, a count, an alert, a callback and more sampling, and ends so."""
    told, called = [], threading.Event()
    config = Config(strict=True, resources=False, alert_sinks=(told.append,))
    with recorded(config=config) as telemetry:
        on(FindingKind.STALL)(lambda event: called.set() if event.finding.model == "ranker" else None)
        try:
            hung_call()
            clock[0] = 31.0
            (finding,) = evaluate()
            assert (finding.kind, finding.model) == (FindingKind.STALL, "ranker")
            assert findings("ranker") == findings() == health("ranker").findings == (finding,)
            assert health("ranker").state is HealthState.DEGRADED
            assert attention.is_unwell("ranker")
            (point,) = telemetry.points("inference.findings")
            assert dict(point.attributes) == {"kind": "stall", "severity": "warning", "inference.model": "ranker"}
            assert called.wait(10)
            assert settled(lambda: [change.event for change in told] == [FindingEvent.OPENED])
            assert settled(lambda: [entry.kind for entry in journal()][-1:] == [FindingKind.STALL])
            clock[0] = 0.0
            assert evaluate() == findings() == ()
            assert settled(lambda: told[-1].event is FindingEvent.CLOSED)
            assert not attention.is_unwell("ranker")
        finally:
            for action in maintainer.actions():
                maintainer.remove(action.name)


def test_evaluates_by_itself(clock, hung_call):
    """From the first call on the process looks once a second, with the probes left out too."""
    with recorded(config=Config(strict=True, resources=False)), observe("other"):
        pass
    with recorded(config=Config(strict=True, resources=False)):
        with observe("other"):
            pass
        hung_call()
        clock[0] = 31.0

        assert settled(lambda: [finding.kind for finding in findings()] == [FindingKind.STALL])


def test_catches_up_through_traffic(clock, hung_call):
    """Where our own thread does not run, an overdue evaluation is done for the next sampling decision, elsewhere."""
    with recorded(config=Config(strict=True, resources=False)):
        hung_call()
        watch = runtime._running.watch()
        watch.start()
        watch.sampler.stop()
        clock[0] = 31.0
        watch.evaluation._at_s -= 60.0
        attention.on_decision()

        assert settled(lambda: [finding.kind for finding in findings()] == [FindingKind.STALL])


def test_has_nothing_to_say_uninstrumented():
    """Without an instrumentation there are no findings, and asking for them harms nothing."""
    assert evaluate() == findings() == findings("ranker") == ()


def test_goes_on_after_a_failing_taker(clock, hung_call, caplog):
    """An alert sink that raises keeps nobody else from being told."""

    def broken(_):
        raise ValueError

    told = []
    with recorded(config=Config(resources=False, alert_sinks=(broken, told.append))):
        hung_call()
        clock[0] = 31.0
        evaluate()

        assert settled(lambda: len(told) == 1)
        assert settled(lambda: any("broken" in record.getMessage() for record in caplog.records))
