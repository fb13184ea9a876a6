"""`TailKeep` in a provider: failed and slow calls are exported whatever the sampler says."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from statistics import fmean, stdev

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

from otel_inference import guard, health, observe, semconv
from otel_inference.config import Config
from otel_inference.sampling import tail
from otel_inference.sampling.head import HealthSampler
from otel_inference.sampling.recording import RecordUnsampled
from otel_inference.sampling.tail import attach_tail_keep, detach_tail_keep
from otel_inference.testing import recorded

SEEDS = 16


def marks(span):
    """Why a span was kept and for how many it stands."""
    return span.attributes.get(semconv.KEPT_BY), span.attributes.get(semconv.ADJUSTED_COUNT)


def test_keeps_failed_and_slow_calls_with_their_traces(service):
    """Of 6,000 requests at 1 % every failed and every slow one is exported whole, and hardly more than 1 % of the others."""
    ours = service(0.01)
    wanted = {"error": set(), "slow": set()}
    for number in range(6_000):
        ours.now_s += 0.002
        kind = {0: "error", 100: "slow"}.get(number % 200)
        trace_id = ours.request(fail=kind == "error", took_s=0.5 if kind == "slow" else 0.01)
        if kind:
            wanted[kind].add(trace_id)
    exported = Counter(span.context.trace_id for span in ours.exported())
    special = wanted["error"] | wanted["slow"]

    assert len(special) == 60
    assert all(exported[trace_id] == 4 for trace_id in special)
    assert len(exported.keys() - special) <= 0.013 * 5_940 + 10
    for span in ours.exported():
        kept_by, count = marks(span)
        assert kept_by is None or span.context.trace_id in wanted[kept_by]
        assert (count is None) == ("ot" in span.context.trace_state) or count == 1
        assert span.context.trace_flags.sampled


@pytest.mark.parametrize("root", ["request", "call"])
def test_counts_stay_honest(service, root):
    """Calls and failures estimated from what was exported are right within three standard errors over many seeds."""
    shares = {"run ranker": [], "failed": [], "POST /rank": []}
    for seed in range(SEEDS):
        ours = service(0.1, seed=seed)
        for number in range(200):
            ours.now_s += 0.05
            getattr(ours, root)(fail=number % 10 == 0)
        calls = ours.exported("run ranker")
        shares["run ranker"].append(ours.count(calls) / 200)
        shares["failed"].append(ours.count(span for span in calls if not span.status.is_ok) / 20)
        shares["POST /rank"].append(ours.count(ours.exported("POST /rank")) / 200)

    assert shares["failed"] == [1.0] * SEEDS  # all of them are kept, and none counts twice
    for found in (shares["run ranker"], *([shares["POST /rank"]] if root == "request" else [])):
        assert abs(fmean(found) - 1.0) <= 3 * stdev(found) / SEEDS**0.5


def test_stays_flat_in_a_storm(service):
    """With 2,000 failures a second exports stay under the limit in every second, the sum stays right, memory flat."""
    ours = service(0.05, max_per_second=40.0)
    times, total, blocks = [], 0, []
    for _ in range(4):
        for _ in range(2000):
            ours.now_s += 1 / 2000
            ours.call(fail=True)
            times += [ours.now_s] * len(ours.exported())
            total += ours.count(ours.exported())
            ours.exporter.clear()
        blocks.append(sys.getallocatedblocks())
    owed = sum(ours.tail._keeping._owed.values())

    assert all(last - first >= 1 - 1e-6 for first, last in zip(times, times[40:], strict=False))
    assert len(times) >= 4 * 25
    assert total + owed == 8_000
    assert blocks[3] - blocks[1] < 2000
    assert guard.drop_counts()["tail_keep"] > 7_000
    guard._dropped.clear()


@pytest.mark.parametrize(
    "sampler", [ALWAYS_OFF, TraceIdRatioBased(0.0), ParentBased(HealthSampler(0.0)), HealthSampler(0.0)]
)
@pytest.mark.parametrize("multi", [None, ConcurrentMultiSpanProcessor])
def test_works_with_any_sampler_and_processors(sampler, multi):
    """With any sampler, and tracers made before, failed calls are exported with all attributes; well ones are not."""
    provider = TracerProvider(sampler=sampler, active_span_processor=multi and multi(), shutdown_on_exit=False)
    tracer = provider.get_tracer("service")
    exporters = [InMemorySpanExporter(), InMemorySpanExporter()]
    provider.add_span_processor(SimpleSpanProcessor(exporters[0]))
    attach_tail_keep(provider, p99_s=lambda _: None)
    provider.add_span_processor(BatchSpanProcessor(exporters[1]))
    for fail in (True, False):
        with (
            tracer.start_as_current_span("server"),
            tracer.start_as_current_span("run", attributes={semconv.MODEL: "a", "b": 1}) as span,
        ):
            span.set_status(trace.StatusCode.ERROR if fail else trace.StatusCode.OK)
    provider.force_flush()

    for exporter in exporters:
        call, server = exporter.get_finished_spans()
        assert dict(call.attributes) == {
            semconv.MODEL: "a",
            "b": 1,
            semconv.KEPT_BY: "error",
            semconv.ADJUSTED_COUNT: 1,
        }
        assert (marks(server), call.parent.span_id) == (("error", 0), server.context.span_id)
    provider.shutdown()


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, HealthSampler(0.0, boost_per_second=0.0)])
def test_keeps_calls_that_this_package_measures(sampler):
    """With the option on, a failing `observe()` at 0 % is exported with its exception; health counts it once."""
    with recorded(config=Config(strict=True, resources=False, tail_keep=True), sampler=sampler) as telemetry:
        for fail in (False, True):
            with pytest.raises(LookupError) if fail else trace.use_span(trace.INVALID_SPAN), observe("ranker"):
                if fail:
                    raise LookupError
        (span,) = telemetry.spans()
        assert (health("ranker").calls, health("ranker").errors) == (2, 1)

    assert marks(span) == ("error", 1)
    assert span.events[0].name == "exception"
    assert span.attributes["error.type"] == "LookupError"


@pytest.mark.parametrize(
    ("attributes", "took_s", "expected"),
    [
        ({}, 0.2, "slow"),
        ({}, 0.05, None),
        ({semconv.ERROR_TYPE: "timeout"}, 0.05, "error"),
        ({semconv.COLD: True}, 0.2, None),
        ({semconv.OPERATION: "load"}, 0.2, None),
        ({semconv.STAGE: "decode"}, 0.2, None),
    ],
)
def test_knows_what_deserves_to_be_kept(service, attributes, took_s, expected):
    """Slow is what takes longer than the model's p99; first calls and loads cannot be; stages are no calls."""
    ours = service(0.0, boost_per_second=0.0)
    ours.call(took_s=took_s, **attributes)

    assert [span.attributes[semconv.KEPT_BY] for span in ours.exported()] == ([expected] if expected else [])


def test_keeps_spans_of_other_instrumentations_that_name_a_model(service):
    """A failing span with `gen_ai.request.model` is kept; a failing span that names no model is not."""
    ours = service(0.0)
    for attributes in ({"gen_ai.request.model": "gpt"}, {"http.route": "/"}):
        span = ours.tracer.start_span("chat", attributes=attributes)
        span.set_status(trace.StatusCode.ERROR)
        span.end()

    assert [span.attributes.get("gen_ai.request.model") for span in ours.exported()] == ["gpt"]


def test_keeps_only_failures_where_no_p99_is_known(service):
    """With too few calls for a p99 nothing is slow."""
    ours = service(0.0, boost_per_second=0.0)
    ours.tail.start(p99_s=lambda _: None, max_per_second=10.0)
    ours.call(took_s=100.0)
    ours.call(fail=True)

    assert [marks(span) for span in ours.exported()] == [("error", 1)]


def test_respects_that_a_remote_parent_said_no(service):
    """A failing call under an unsampled remote parent is exported here, with other vendors' entries and without `th`."""
    ours = service(1.0)
    state = TraceState([("vendor", "1"), ("ot", "th:c;rv:0123456789abcd")])
    remote = SpanContext(7, 5, is_remote=True, trace_flags=TraceFlags(0), trace_state=state)
    context = set_span_in_context(NonRecordingSpan(remote))
    ours.call(context=context)
    live = ours.call(context=context, fail=True)
    (kept,) = ours.exported()

    assert not live.get_span_context().trace_flags.sampled
    assert dict(kept.context.trace_state) == {"vendor": "1", "ot": "rv:0123456789abcd"}
    assert kept.parent == remote


def test_exports_once(service):
    """A failing call that is sampled is exported once, by the head, and stands for itself alone."""
    ours = service(1.0)
    ours.request(fail=True)

    assert len(ours.exported()) == 4
    assert [marks(span) for span in ours.exported()] == [(None, None), (None, 1), (None, None), (None, None)]


class Spy(SpanProcessor):
    """Keeps the spans that end."""

    def __init__(self, seen):
        self._seen = seen

    def on_end(self, span):
        """Note it."""
        self._seen.append(span)


def test_changes_nothing_but_flag_marks_and_state(service):
    """What is exported is the span as it was: times, events, links, status, kind, scope, resource."""
    ours = service(0.0)
    before = []
    ours.provider.add_span_processor(Spy(before))
    with (
        pytest.raises(KeyError),
        ours.tracer.start_as_current_span(
            "run", attributes={semconv.MODEL: "a"}, links=[trace.Link(SpanContext(1, 2, is_remote=True))]
        ),
    ):
        raise KeyError
    original, (copy,) = before[0], ours.exported()

    for name in (
        "name",
        "kind",
        "start_time",
        "end_time",
        "events",
        "links",
        "parent",
        "resource",
        "instrumentation_scope",
    ):
        assert getattr(copy, name) == getattr(original, name)
    assert copy.status.status_code is original.status.status_code
    assert isinstance(copy, ReadableSpan)


def test_attaches_once_and_detaches():
    """Attaching twice is one processor with the later arguments; detached, the sampler drops as before."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    first = attach_tail_keep(provider, p99_s=lambda _: None)
    assert attach_tail_keep(provider, p99_s=lambda _: 0.1) is first
    assert provider.get_tracer("a").start_span("b").is_recording()
    assert isinstance(provider.sampler.base, type(ALWAYS_OFF))

    detach_tail_keep(provider)
    detach_tail_keep(TracerProvider())
    detach_tail_keep(None)
    assert not provider.get_tracer("a").start_span("b").is_recording()
    attach_tail_keep(provider, p99_s=lambda _: None)
    assert provider.get_tracer("a").start_span("b").is_recording()
    assert attach_tail_keep(trace.NoOpTracerProvider(), p99_s=lambda _: None) is None


def test_shares_the_limit_with_our_sampler():
    """A `HealthSampler` records what it does not sample without being wrapped, gives half of its limit, and gets it back."""
    sampler = HealthSampler(0.0, max_per_second=10.0, boost_per_second=0.0)
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    attached = attach_tail_keep(provider, p99_s=lambda _: None, max_per_second=1000.0)

    assert provider.sampler is sampler
    assert (attached._keeping._budget._places, sampler._quotas._limit._places) == (5, 5)
    detach_tail_keep(provider)
    assert sampler._quotas._limit._places == 10


def test_says_once_that_there_is_nobody_to_export(caplog):
    """With no exporter behind the SDK's own processors one warning says that nothing can be kept."""
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    attach_tail_keep(provider, p99_s=lambda _: None)
    for _ in range(3):
        with (
            pytest.raises(KeyError),
            provider.get_tracer("a").start_as_current_span("b", attributes={semconv.MODEL: "c"}),
        ):
            raise KeyError

    assert [record.message[:27] for record in caplog.records] == ["failed and slow calls canno"]


class Hostile(SpanExporter):
    """Fails whenever it is called."""

    def export(self, spans):
        """Fail."""
        raise RuntimeError

    def force_flush(self, timeout_millis=30000):
        """Fail."""
        raise RuntimeError


def test_never_raises(service, monkeypatch, caplog):
    """Neither an exporter nor a p99 that fails reaches the program that ends the span."""
    ours = service(0.0)
    guard.set_strict(strict=False)
    monkeypatch.setattr(guard, "_errors", Counter())
    ours.provider.add_span_processor(SimpleSpanProcessor(Hostile()))
    ours.call(fail=True)
    ours.tail.start(p99_s=lambda _: 1 / 0, max_per_second=5.0)
    ours.call(**{semconv.COLD: False})
    sampled = SpanContext(7, 5, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    ours.call(context=set_span_in_context(NonRecordingSpan(sampled)))

    assert guard.error_counts() == {"tail_keep": 2}
    assert len(ours.exported()) == 2


def test_marks_spans_of_an_sdk_that_leaves_them_mutable(service):
    """Where a span can still be changed when it ends, as is specified, it is marked in the ordinary way."""
    span = service(1.0).tracer.start_span("run")
    tail._add_attribute(span, semconv.ADJUSTED_COUNT, 3)

    assert marks(span) == (None, 3)


def test_stops_with_the_provider(service):
    """After shutdown nothing more is exported, and nothing is held."""
    ours = service(0.0)
    server = ours.tracer.start_span("server")
    ours.call(context=set_span_in_context(server))
    assert ours.provider.force_flush()
    ours.provider.shutdown()
    server.end()
    ours.call(fail=True)

    assert ours.exported() == []
    assert not ours.tail._keeping.knows(server.get_span_context().trace_id)


def test_keeps_what_threads_end(service):
    """Failures that end in many threads at once are each exported once."""
    ours = service(0.0, max_per_second=10_000.0)

    def work():
        for _ in range(200):
            ours.request(fail=True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(span.name for span in ours.exported()) == dict.fromkeys(
        ("prepare", "run ranker", "render", "POST /rank"), 800
    )


def test_gets_new_locks_in_a_forked_child(service):
    """A lock that a thread of the parent held does not stop the child."""
    ours = service(0.0)
    thread = threading.Thread(target=ours.tail._lock.acquire)
    thread.start()
    thread.join()
    tail.reset_after_fork()
    ours.call(fail=True)

    assert len(ours.exported()) == 1


def test_wraps_any_sampler_without_losing_attributes():
    """The wrapper's result has the attributes a span is started with, and says what it wraps."""
    sampler = RecordUnsampled(ALWAYS_OFF)
    assert dict(sampler.should_sample(None, 1, "a", attributes={"b": 1}).attributes) == {"b": 1}
    assert RecordUnsampled(ALWAYS_ON).should_sample(None, 1, "a").decision.is_sampled()
    assert sampler.get_description() == "RecordUnsampled{AlwaysOffSampler}"
