"""`HealthSampler` in a provider: decisions, tracestate, attributes, limits."""

from __future__ import annotations

import random
import threading
from collections import Counter

import pytest
from opentelemetry import trace
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    AlwaysRecordSampler,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from otel_inference import guard, health, observe, semconv
from otel_inference.config import Config
from otel_inference.errors import ConfigError
from otel_inference.health.snapshot import HealthState
from otel_inference.sampling import head
from otel_inference.sampling.attention import Attention
from otel_inference.sampling.base import ratio_of
from otel_inference.sampling.head import HealthSampler
from otel_inference.sampling.threshold import threshold_of
from otel_inference.testing import recorded

LOW, HIGH = (1 << 127), (1 << 127) | (2**56 - 1)
"""Trace ids whose random bits are the smallest and the greatest."""

CALL = {semconv.MODEL: "ranker", semconv.COLD: False}


class Every(Sampler):
    """A sampler of somebody else's, with a decision and a tracestate of its own."""

    def __init__(self, decision, state=None):
        self._result = SamplingResult(decision, {"by": "somebody"}, state)

    def should_sample(self, *_, **__):
        """See the SDK."""
        return self._result

    def get_description(self):
        """See the SDK."""
        return "Every"


def decide(sampler, trace_id=HIGH, attributes=None, *, context=None, state=None):
    """One decision."""
    return sampler.should_sample(context, trace_id, "run", None, attributes, (), state)


def parent(*, sampled, remote=True, state=None):
    """A context with a parent."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return set_span_in_context(NonRecordingSpan(SpanContext(LOW, 5, remote, flags, state)))


@pytest.mark.parametrize(
    ("base", "ratio"),
    [
        (0.25, 0.25), (1, 1.0), (ALWAYS_ON, 1.0), (ALWAYS_OFF, 0.0), (TraceIdRatioBased(0.3), 0.3),
        (ParentBased(TraceIdRatioBased(0.01)), 0.01), (AlwaysRecordSampler(ALWAYS_ON), None),
    ],
)  # fmt: skip
def test_knows_the_ratio_of_its_base(base, ratio):
    """The ratio of the SDK's samplers is known, within `ParentBased` too; that of others is not."""
    assert ratio_of(base) == ratio


@pytest.mark.parametrize(
    ("base", "options"),
    [(1.5, {}), (True, {}), ("0.1", {}), (float("nan"), {}), (0.1, {"boost_per_second": -1}), (0.1, {"max_per_second": 0}),
     (0.1, {"max_per_second": float("inf")}), (0.1, {"max_per_second": "9"})],
)  # fmt: skip
def test_refuses_what_means_nothing(base, options):
    """A ratio or limit that is none is a `ConfigError`."""
    with pytest.raises(ConfigError, match="expected"):
        HealthSampler(base, **options)


@pytest.mark.parametrize("base", [0.01, TraceIdRatioBased(0.01), ParentBased(TraceIdRatioBased(0.01))])
def test_follows_its_base_while_well(service, base):
    """Of 8,000 traces that begin with no call, or with one of a model that is well, the ratio is kept."""
    ours = service(base, tail=False, boost_per_second=0.0)
    for number in range(8_000):
        ours.now_s += 0.01
        ours.call() if number % 2 else ours.tracer.start_span("job").end()

    assert len(ours.exported()) == pytest.approx(80, abs=4 * 80**0.5)
    assert {span.context.trace_state["ot"] for span in ours.exported()} == {"th:fd70a3d70a3d71"}


def test_keeps_more_of_a_model_that_is_not_well(service):
    """Once an evaluation finds a model critical, up to the boost is kept of it, until it is well again."""
    ours = service(0.001, tail=False)
    counts = []
    for state in (HealthState.OK, HealthState.CRITICAL, HealthState.OK):
        ours.attention.set({"ranker": state})
        ours.exporter.clear()
        for _ in range(2000):
            ours.now_s += 0.01
            ours.call()
        counts.append(len(ours.exported()) / 20)

    assert counts[0] < 0.8
    assert 6 <= counts[1] <= 10.5
    assert counts[2] < 0.8


def test_says_with_what_threshold_it_kept():
    """A first call is kept surely and says so; the same traces are kept by any process with the ratio."""
    sampler = HealthSampler(0.5, max_per_second=1000.0)
    assert decide(sampler, LOW, {semconv.MODEL: "a", semconv.COLD: True}).trace_state["ot"] == "th:0"

    source = random.Random(0)
    ids = [source.getrandbits(128) for _ in range(300)]
    for trace_id in ids:
        result = decide(sampler, trace_id)
        is_kept = trace_id & (2**56 - 1) >= threshold_of(0.5)
        assert (result.decision is Decision.RECORD_AND_SAMPLE) is is_kept
        assert (result.trace_state or {}).get("ot") == ("th:8" if is_kept else None)


def test_follows_its_parent():
    """A parent's decision is respected, remote or local, whatever the ratio says, with its whole tracestate."""
    state = TraceState([("vendor", "1"), ("ot", "th:c;rv:0123456789abcd;x:y")])
    for remote in (True, False):
        kept = decide(HealthSampler(0.0), attributes=CALL, context=parent(sampled=True, remote=remote, state=state))
        dropped = decide(HealthSampler(1.0), attributes=CALL, context=parent(sampled=False, remote=remote, state=state))
        assert (kept.decision, kept.trace_state, dict(kept.attributes)) == (Decision.RECORD_AND_SAMPLE, state, CALL)
        assert (dropped.decision, dropped.trace_state) == (Decision.DROP, state)


def test_decides_by_the_given_random_value():
    """`rv` of a tracestate goes before the trace id, and survives with the rest."""
    state = TraceState([("vendor", "1"), ("ot", "rv:ffffffffffffff;x:y")])
    result = decide(HealthSampler(0.5), LOW, state=state)

    assert dict(result.trace_state) == {"ot": "th:8;rv:ffffffffffffff;x:y", "vendor": "1"}
    assert decide(HealthSampler(0.5), LOW).decision is Decision.DROP


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_loses_no_attributes(ratio):
    """What a span is started with is in every result, also for samplers around ours that record it anyway."""
    assert dict(decide(HealthSampler(ratio), attributes={"a": 1}).attributes) == {"a": 1}
    assert dict(decide(HealthSampler(ratio), attributes=CALL).attributes) == CALL
    assert dict(decide(HealthSampler(ratio)).attributes) == {}


@pytest.mark.parametrize("ratios", [(0.1, 0.9), (0.9, 0.1)])
def test_keeps_and_drops_the_same_traces_in_two_processes(service, ratios):
    """A trace that passes through two services is kept by both or by none, with the entries of other vendors."""
    front, back = (service(ratio, tail=False, seed=seed) for seed, ratio in enumerate(ratios))
    for _ in range(400):
        front.now_s += 0.1
        back.now_s += 0.1
        span = front.tracer.start_span("front")
        carrier = {}
        inject(carrier, set_span_in_context(span))
        carrier["tracestate"] = ",".join(filter(None, (carrier.get("tracestate"), "vendor=1")))
        back.call(context=extract(carrier))
        span.end()

    kept = [{span.context.trace_id: span for span in one.exported()} for one in (front, back)]
    assert 0 < len(kept[0]) < 400
    assert set(kept[0]) == set(kept[1])
    for trace_id, span in kept[1].items():
        assert dict(span.context.trace_state) == {**kept[0][trace_id].context.trace_state, "vendor": "1"}


def test_keeps_a_part_of_what_a_greater_ratio_keeps(service):
    """Two processes that see the same trace ids begin: what the smaller ratio keeps, the greater keeps."""
    small, great = (service(ratio, tail=False, seed=7, max_per_second=1e5) for ratio in (0.05, 0.4))
    for ours in (small, great):
        for _ in range(2000):
            ours.tracer.start_span("job").end()

    kept = [{span.context.trace_id for span in ours.exported()} for ours in (small, great)]
    assert kept[0] < kept[1]
    assert len(kept[0]) == pytest.approx(100, abs=40)


def test_asks_another_sampler_where_a_trace_begins():
    """A sampler that does not tell its ratio decides itself; its attributes and tracestate are taken over."""
    state = TraceState([("ot", "th:c"), ("vendor", "1")])
    kept = decide(HealthSampler(Every(Decision.RECORD_AND_SAMPLE, state)), attributes={"a": 1})
    assert (kept.decision, kept.trace_state) == (Decision.RECORD_AND_SAMPLE, state)
    assert dict(kept.attributes) == {"a": 1, "by": "somebody"}

    for decision in (Decision.DROP, Decision.RECORD_ONLY):
        assert decide(HealthSampler(Every(decision))).decision is decision
    assert "Every" in HealthSampler(Every(Decision.DROP)).get_description()


def test_tells_no_threshold_where_two_had_a_say():
    """With a boost beside a sampler that tells no ratio nobody knows how probable a trace was, and `th` is erased."""
    attention = Attention()
    attention.set({"ranker": HealthState.CRITICAL})
    clock = iter(range(1000, 9000))
    state = TraceState([("ot", "th:c;x:y")])
    sampler = HealthSampler(
        Every(Decision.RECORD_AND_SAMPLE, state), attention=attention, clock=lambda: next(clock) / 50
    )
    assert decide(sampler, attributes=CALL).trace_state["ot"] == "th:0;x:y"  # surely: the first of a minute
    states = {decide(sampler, attributes=CALL).trace_state["ot"] for _ in range(400)}

    assert "x:y" in states
    assert states <= {"x:y", "th:0;x:y", "th:c;x:y"}


def test_never_keeps_more_than_the_limit(service):
    """With 2,000 traces a second no second keeps more than the limit, and the counts still add up."""
    ours = service(1.0, tail=False, max_per_second=40.0)
    times = []
    for _ in range(12_000):
        ours.now_s += 1 / 2000
        if ours.call().get_span_context().trace_flags.sampled:
            times.append(ours.now_s)
    weights = [span.attributes.get(semconv.ADJUSTED_COUNT) for span in ours.exported()]

    assert all(last - first >= 1 - 1e-6 for first, last in zip(times, times[40:], strict=False))
    assert any(weights)
    assert all(
        (weight is None) == ("ot" in span.context.trace_state)
        for weight, span in zip(weights, ours.exported(), strict=True)
    )


def test_asks_for_each_decision_whether_something_is_due(service, monkeypatch):
    """The hook is called at every decision, with a parent too; when it fails, the decision is as without it."""
    ours = service(1.0, tail=False)
    seen = []
    ours.attention.on_decision = lambda: seen.append(threading.current_thread())
    ours.request()
    assert seen == [threading.current_thread()] * 4

    guard.set_strict(strict=False)
    monkeypatch.setattr(guard, "_errors", Counter())
    ours.attention.on_decision = lambda: 1 / 0
    ours.call()
    assert len(ours.exported("run ranker")) == 2
    assert guard.error_counts() == {"on_decision": 1}


class Hostile(Sampler):
    """Fails when asked."""

    def should_sample(self, *_, **__):
        """See the SDK."""
        raise LookupError

    def get_description(self):
        """See the SDK."""
        return "Hostile"


def test_never_raises(monkeypatch):
    """A base that fails costs its decision only: the span is not sampled and the host goes on."""
    monkeypatch.setattr(guard, "_errors", Counter())
    result = decide(HealthSampler(Hostile()), attributes={"a": 1})

    assert (result.decision, dict(result.attributes)) == (Decision.DROP, {"a": 1})
    assert guard.error_counts() == {"sampler": 1}


def test_bears_attributes_of_any_kind():
    """A model that is no string is none."""
    assert decide(HealthSampler(1.0), attributes={semconv.MODEL: ["a"]}).decision is Decision.RECORD_AND_SAMPLE


def test_decides_in_many_threads():
    """Threads that decide at once never fail, and together stay within the limit."""
    sampler = HealthSampler(1.0, max_per_second=50.0, clock=lambda: 7.0)
    kept = []

    def work(seed):
        source = random.Random(seed)
        for _ in range(1500):
            attributes = {semconv.MODEL: f"model {source.randrange(9)}"}
            if decide(sampler, source.getrandbits(128), attributes).decision is Decision.RECORD_AND_SAMPLE:
                kept.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 40 <= len(kept) <= 50


def test_gets_new_locks_in_a_forked_child():
    """A lock that a thread of the parent held does not stop the child's decisions."""
    sampler = HealthSampler(1.0)
    held = sampler._lock
    thread = threading.Thread(target=held.acquire)
    thread.start()
    thread.join()
    head.reset_after_fork()

    assert decide(sampler, attributes=CALL).decision is Decision.RECORD_AND_SAMPLE


@pytest.mark.parametrize("ratio", [0.001, 1.0])
def test_leaves_health_as_it_is(ratio):
    """The error rate that health and metrics show is the same at 0.1 % and at 100 %."""
    with recorded(config=Config(strict=True, resources=False), sampler=HealthSampler(ratio)) as telemetry:
        for number in range(2000):
            with (
                pytest.raises(LookupError) if number % 50 == 0 else trace.use_span(trace.INVALID_SPAN),
                observe("ranker"),
            ):
                if number % 50 == 0:
                    raise LookupError
        (point,) = telemetry.points("inference.health.error_ratio")

        assert health("ranker").error_ratio == point.value == 0.02
        assert health("ranker").calls == 2000
        assert (len(telemetry.spans()) < 40) is (ratio < 1)
