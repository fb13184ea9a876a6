"""The loop from calls to findings, alerts, callbacks and sampling, in a running process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from otel_inference import (
    AdaptiveLimiter,
    Config,
    ConfigError,
    FindingKind,
    HealthState,
    OverloadedError,
    evaluate,
    findings,
    health,
    journal,
    limit,
    observe,
    on,
    runtime,
    unlimit,
)
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
        while not runtime._running.recorder.running.begun_s("ranker"):
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


RESTARTS = """
import threading, time
import otel_inference
from otel_inference import Config
from otel_inference.maintenance.maintainer import maintainer
from otel_inference.sampling.attention import attention

def call():
    with otel_inference.observe("ranker"):
        pass

for round in range(20):
    otel_inference.instrument(config=Config(resources=False))
    call()
    time.sleep(0.002 * round)
    otel_inference.uninstrument()
otel_inference.instrument(config=Config(resources=False))
call()
deadline = time.monotonic() + 20
while not maintainer._running and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.5)
assert maintainer._running and attention.on_decision is not None
otel_inference.uninstrument()
assert not maintainer._running and attention.on_decision is None
"""

FORKS = """
import os, sys, time
import otel_inference
from otel_inference import Config, observe
from otel_inference.telemetry.registry import registry

told = []
otel_inference.instrument(config=Config(resources=False, alert_sinks=(told.append,)))
ahead = [0.0]
real = registry._clock
registry._clock = lambda: real() + ahead[0]
with observe("early"):
    pass
child = os.fork()  # while what judges is being imported, as likely as not
if child == 0:
    import opentelemetry.instrumentation.utils
    os._exit(0 if otel_inference.evaluate() == () else 1)
assert os.waitpid(child, 0)[1] == 0
with observe("ranker"):
    ahead[0] = 31.0
    assert [finding.kind for finding in otel_inference.evaluate()] == ["stall"]
    child = os.fork()
    if child == 0:
        told.clear()
        assert otel_inference.findings() == ()
        with observe("ranker"):
            pass
        assert otel_inference.evaluate() == ()
        time.sleep(0.2)
        os._exit(0 if told == [] else 1)
    assert os.waitpid(child, 0)[1] == 0
otel_inference.uninstrument()
"""


@pytest.mark.parametrize("program", [RESTARTS, FORKS], ids=["restarts", "forks"])
def test_begins_anew(program):
    """After restarts in quick succession the last one acts, and a forked child neither hangs nor tells of its parent's troubles."""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=90)


def test_keeps_what_a_hanging_taker_leaves_within_bounds(clock, hung_call):
    """While a taker hangs, evaluations go on and what waits is bounded, and no opening or closing is lost."""
    release, seen = threading.Event(), []
    with recorded(config=Config(strict=True, resources=False)):
        hung_call()
        evaluation = runtime._running.watch().evaluation
        evaluation._takers = (lambda outcome: (seen.extend(outcome.changes), release.wait(30)),)
        stuck = threading.Thread(target=evaluation.now)
        stuck.start()
        for ahead_s in (31.0, 0.0) * 20:
            clock[0] = ahead_s
            evaluation.now()
        assert len(evaluation._outcomes) <= 4
        release.set()
        stuck.join()

    assert [change.event.value for change in seen] == ["opened", "closed"] * 20


def test_keeps_a_limited_model_apart():
    """A model with a limiter has its own name, however many others there are."""
    limiter = AdaptiveLimiter(deadline_s=1.0, workers=1)
    with recorded(config=Config(max_models=2)) as crowded:
        limit("ranker", limiter)
        try:
            for name in ("a", "b", "c", "ranker"):
                with observe(name):
                    pass
            assert {span.name for span in crowded.spans()} >= {"call a", "call other", "call ranker"}
        finally:
            unlimit("ranker")


def test_gives_a_place_back_when_a_stream_is_closed():
    """A stream that its consumer leaves frees its place at once, for whoever waits for it."""

    @observe("stream")
    def stream():
        yield 1
        yield 2

    limiter = AdaptiveLimiter(deadline_s=5.0, workers=1)
    limit("stream", limiter)
    try:
        with recorded(config=Config(strict=True, resources=False)):
            items = stream()
            next(items)
            assert limiter.in_use == 1
            items.close()
            assert limiter.in_use == 0
    finally:
        unlimit("stream")


def test_writes_no_traceback_of_a_refusal():
    """A refusal is a failed span with its type and text, and without an exception event."""
    limiter = AdaptiveLimiter(deadline_s=0.1, workers=1)
    limit("busy", limiter)
    try:
        with recorded(config=Config(strict=True, resources=False)) as telemetry:
            place = limiter.acquire("busy")
            with pytest.raises(OverloadedError), observe("busy"):
                pass
            place.release()
            (span,) = telemetry.spans()
    finally:
        unlimit("busy")

    assert (span.status.is_ok, span.events) == (False, ())
    assert span.attributes["error.type"] == "otel_inference.errors.OverloadedError"


ALONE = """
import os, sys, threading
from otel_inference import AdaptiveLimiter, HealthSampler
from otel_inference.telemetry.registry import registry

limiter, sampler = AdaptiveLimiter(deadline_s=1.0, workers=1), HealthSampler(0.5)
assert "otel_inference.runtime" not in sys.modules
for lock in (limiter._lock, sampler._lock, registry._lock):
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()
child = os.fork()
if child == 0:
    limiter.acquire("ranker").release()
    sampler.should_sample(None, 1, "call", attributes={"inference.model": "ranker"})
    registry.of("ranker")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_parts_that_stand_alone_survive_a_fork():
    """A limiter, a sampler and the statistics work in a forked child though nothing was ever instrumented."""
    subprocess.run([sys.executable, "-c", ALONE], check=True, timeout=60)


def test_refuses_what_is_no_limiter():
    """What could raise later, at a call or when health is asked for, is refused when it is given."""

    class Half:
        def acquire(self, model, size=None): ...

        async def acquire_async(self, model, size=None): ...

    for given in (Half(), None, 3):
        with pytest.raises(ConfigError, match="expected a limiter"):
            limit("ranker", given)
    with pytest.raises(ConfigError, match="expected the name of a model"):
        limit("", AdaptiveLimiter(deadline_s=1.0))


CALLING_HANDLER = """
import logging, sys
from otel_inference import Config, observe
from otel_inference.testing import recorded

class Calling(logging.Handler):
    def emit(self, record):
        with observe("called by the log"):
            pass

with recorded(config=Config(max_models=1, resources=False)):
    logging.getLogger("otel_inference").addHandler(Calling())
    for name in ("a", "b", "c"):
        with observe(name):
            pass
"""


def test_warns_with_no_lock_held():
    """A log handler that calls a model may be told of one model name too many."""
    subprocess.run([sys.executable, "-c", CALLING_HANDLER], check=True, timeout=30)
