"""What sampling costs and whether it keeps its promises: `python -m benchmarks.sampling`, about two minutes.

Costs are ratios of two things timed in the same run, block by block in turn, on the CPU clock of the
process, exporter included: the median over the rounds, with its 90 % interval. Promises are counted
over traffic through a real SDK provider at made-up times, so that a minute of it takes seconds.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
from itertools import repeat
from statistics import fmean
from time import process_time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, set_span_in_context

from benchmarks.timing import ratio_of
from otel_inference import semconv
from otel_inference.sampling.attention import Attention
from otel_inference.sampling.head import HealthSampler
from otel_inference.sampling.tail import TailKeep, attach_tail_keep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.util.types import AnyValue

    from benchmarks.timing import Estimate

ATTRIBUTES: Final[dict[str, AnyValue]] = {
    semconv.ENGINE: "torch",
    semconv.OPERATION: "forward",
    semconv.MODEL: "ranker",
    semconv.ENGINE_VERSION: "2.13.0",
    semconv.COLD: False,
    semconv.DEVICE: "cpu",
    semconv.BATCH_SIZE: 8,
    semconv.INPUT_SIZE: 4096,
}
"""What the recorder gives to a call's span at its start."""

DROPPED: Final = (1 << 127) | (1 << 63) | 12345
"""A trace id that neither the SDK's ratio sampler nor ours keeps at 1 %."""


class Exporter(SpanExporter):
    """Does nothing, or encodes as OTLP and sends nothing."""

    def __init__(self, *, encode: bool) -> None:
        self._encode = encode

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._encode:
            encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


def provider_of(sampler: Sampler, *, encode: bool) -> TracerProvider:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Exporter(encode=encode), schedule_delay_millis=3_600_000))
    return provider


def compared(ours: Callable[[], Any], theirs: Callable[[], Any], *, calls: int, rounds: int) -> tuple[Estimate, float]:
    """Cost of `ours` in units of `theirs`, and microseconds of the latter; each makes `calls` calls."""
    spent: dict[int, list[float]] = {0: [], 1: []}
    pair = [(0, ours), (1, theirs)]
    for _, block in pair:
        block()
    for _ in repeat(None, rounds):
        random.shuffle(pair)
        gc.collect(0)
        gc.disable()
        for index, block in pair:
            started_ns = process_time_ns()
            block()
            spent[index].append((process_time_ns() - started_ns) / calls / 1000)
        gc.enable()
    return ratio_of(spent[0], spent[1]), sorted(spent[1])[rounds // 2]


def decisions(sampler: Sampler, context: Any, calls: int) -> Callable[[], None]:
    def block() -> None:
        decide = sampler.should_sample
        for _ in repeat(None, calls):
            decide(context, DROPPED, "forward ranker", None, ATTRIBUTES, ())

    return block


def spans(provider: TracerProvider, context: Any, calls: int) -> Callable[[], None]:
    tracer = provider.get_tracer("service")

    def block() -> None:
        for _ in repeat(None, calls):
            span = tracer.start_span("forward ranker", context, attributes=ATTRIBUTES)
            span.set_attribute(semconv.DEVICE_DURATION, 0.01)
            span.end()
        provider.force_flush()

    return block


def requests(provider: TracerProvider, calls: int) -> Callable[[], None]:
    """A server's span around a call."""
    tracer = provider.get_tracer("service")

    def block() -> None:
        for _ in repeat(None, calls):
            server = tracer.start_span("POST /rank")
            tracer.start_span("forward ranker", set_span_in_context(server), attributes=ATTRIBUTES).end()
            server.end()
        provider.force_flush()

    return block


def report(title: str, bar: float | None, found: tuple[Estimate, float]) -> None:
    ratio, theirs_us = found
    beside = "nothing is exported, for comparison" if bar is None else f"bar {bar} x"
    print(f"  {title:66} {ratio.value:5.2f} x  [{ratio.low:.2f}, {ratio.high:.2f}]  of {theirs_us:6.2f} us; {beside}")


def costs(rounds: int) -> None:
    print("Cost of a decision that drops, in units of ParentBased(TraceIdRatioBased(0.01)):")
    unsampled = set_span_in_context(
        NonRecordingSpan(SpanContext(DROPPED, 5, is_remote=True, trace_flags=TraceFlags(0)))
    )
    for title, context in (("the trace begins here", None), ("under a parent that is not sampled", unsampled)):
        ours = HealthSampler(0.01, attention=watched())
        theirs = ParentBased(TraceIdRatioBased(0.01))
        blocks = [decisions(sampler, context, 2000) for sampler in (ours, theirs)]
        report(title, 1.3, compared(*blocks, calls=2000, rounds=rounds))
    print("Cost of a call that is not sampled, with tail keep, in units of a sampled and exported span:")
    for encode in (True, False):
        how = "exporter encodes OTLP" if encode else "exporter does nothing"
        kept = provider_of(HealthSampler(0.0, boost_per_second=0.0), encode=encode)
        attach_tail_keep(kept, p99_s=lambda _: 1e6)
        sampled = provider_of(ALWAYS_ON, encode=encode)
        bar = 0.6 if encode else None
        alone = [spans(provider, None, 400) for provider in (kept, sampled)]
        report(f"a call alone, {how}", bar, compared(*alone, calls=400, rounds=rounds))
        within = [requests(provider, 200) for provider in (kept, sampled)]
        report(f"a call within a server's span, {how}", bar, compared(*within, calls=400, rounds=rounds))


def watched() -> Attention:
    """As the runtime has it: a hook that does next to nothing."""
    attention = Attention()
    attention.on_decision = lambda: None
    return attention


class _Ids(RandomIdGenerator):
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def generate_span_id(self) -> int:
        return self._random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return self._random.getrandbits(128) or 1


class Service(SpanExporter):
    """Requests that are served at made-up times, and what of them is exported."""

    def __init__(self, base: float, seed: int, **limits: float) -> None:
        self.now_s = 1000.0
        self.exported: list[ReadableSpan] = []
        self.sampler = HealthSampler(base, attention=Attention(), clock=lambda: self.now_s, **limits)
        self.provider = TracerProvider(sampler=self.sampler, id_generator=_Ids(seed), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self))
        self.tail = TailKeep(
            self.provider,
            p99_s=lambda _: 0.1,
            max_per_second=self.sampler.begin_tail_keep(),
            clock=lambda: self.now_s,
        )
        self.provider.add_span_processor(self.tail)
        self.tracer = self.provider.get_tracer("service")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.exported.extend(spans)
        return SpanExportResult.SUCCESS

    def request(self, *, took_s: float = 0.01, fail: bool = False) -> int:
        server = self.tracer.start_span("POST /rank")
        span = self.tracer.start_span("run ranker", set_span_in_context(server), attributes=ATTRIBUTES, start_time=1)
        if fail:
            span.set_status(Status(StatusCode.ERROR))
        span.end(1 + round(took_s * 1e9))
        server.end()
        return server.get_span_context().trace_id


def weight(span: ReadableSpan) -> float:
    """For how many a span stands."""
    counted = (span.attributes or {}).get(semconv.ADJUSTED_COUNT)
    if counted is not None:
        return float(counted)  # type: ignore[arg-type]
    assert span.context is not None
    members = dict(part.split(":") for part in span.context.trace_state["ot"].split(";"))
    return 2**56 / (2**56 - int(members["th"].ljust(14, "0"), 16))


def completeness(seeds: int) -> None:
    """20,000 requests at 1 %, 100 of them failing and 100 slow, anywhere."""
    missing, shares, totals, errors = 0, [], [], []
    for seed in range(seeds):
        service, special = Service(0.01, seed), set()
        kinds = ["fail"] * 100 + ["slow"] * 100 + [""] * 19_800
        random.Random(seed).shuffle(kinds)
        for kind in kinds:
            service.now_s += 0.005
            trace_id = service.request(fail=kind == "fail", took_s=0.5 if kind == "slow" else 0.01)
            if kind:
                special.add(trace_id)
        count: dict[int, int] = {}
        for span in service.exported:
            assert span.context is not None
            count[span.context.trace_id] = count.get(span.context.trace_id, 0) + 1
        missing += sum(count.get(trace_id) != 2 for trace_id in special)
        shares.append(len(count.keys() - special) / 19_800)
        calls = [span for span in service.exported if span.name == "run ranker"]
        totals.append(sum(map(weight, calls)))
        errors.append(sum(weight(span) for span in calls if not span.status.is_ok))
    print(f"20,000 requests at 1 %, 100 fail and 100 are slow; {seeds} seeds:")
    print(f"  special traces not exported whole: {missing} of {200 * seeds}")
    print(f"  of the others exported: {100 * fmean(shares):.2f} %, at most {100 * max(shares):.2f} %")
    off = (fmean(totals) - 20_000) / (19_800 * 0.99 / 0.01 / seeds) ** 0.5
    print(f"  estimated calls: {fmean(totals):.0f}, {off:+.1f} standard errors from 20,000")
    print(f"  estimated failures: {min(errors):.0f} to {max(errors):.0f} of 100")


def storm(seconds: int) -> None:
    """2,000 requests a second, all of which fail."""
    service = Service(0.01, 1, max_per_second=100.0)
    times: list[float] = []
    total, blocks = 0.0, []
    for _ in range(seconds):
        for _ in repeat(None, 2000):
            service.now_s += 1 / 2000
            service.request(fail=True)
            traces = {span.context.trace_id for span in service.exported if span.context is not None}
            times.extend([service.now_s] * len(traces))
            total += sum(weight(span) for span in service.exported if span.name == "run ranker")
            service.exported.clear()
        blocks.append(sys.getallocatedblocks())
    worst = max(
        sum(first <= at_s < first + 1 - 1e-9 for at_s in times[index : index + 400])
        for index, first in enumerate(times)
    )
    print(f"2,000 failing requests a second for {seconds} s, at most 100 traces a second:")
    print(f"  exported {len(times) / seconds:.1f} a second, {worst} in the worst second")
    print(f"  estimated calls: {total:.0f} of {2000 * seconds}")
    print(f"  blocks of memory after two thirds: {blocks[2 * seconds // 3]}, at the end: {blocks[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of it")
    parts = 1 if parser.parse_args().quick else 4
    costs(rounds=40 * parts)
    completeness(seeds=6 * parts)
    storm(seconds=6 * parts)


if __name__ == "__main__":
    main()
