"""What health costs beside the span it judges: a span of another instrumentation, and a call of ours."""

from __future__ import annotations

import gc
import random
import sys
from threading import Event
from time import perf_counter, sleep, thread_time_ns
from typing import TYPE_CHECKING, Any

from benchmarks.timing import median_of, ratio_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from benchmarks.timing import Estimate

_CALLS = 2000
_ROUNDS = 40
PROBE_SECONDS = 10.0


def add_judging(table: Table) -> None:
    """Time per call, memory per model, and the share of a core that the probes take."""
    span_us, judging_us, window_us = _per_call()
    total = median_of([one + other for one, other in zip(judging_us, window_us, strict=True)])
    ratio = ratio_of([one + other for one, other in zip(judging_us, window_us, strict=True)], span_us)
    table.add_row("span processor passes our span over", *_figures(median_of(judging_us), "us"))
    table.add_row("one call into its model's statistics", *_figures(median_of(window_us), "us"))
    table.add_row("both", *_figures(total, "us"), "<= 3.00 us", "ok" if total.value <= 3 else "miss")
    table.add_row(
        "both, of the span judged", *_figures(ratio, "x"), "<= 0.15 x", "ok" if ratio.value <= 0.15 else "miss"
    )
    kib = memory_kib()
    table.add_row("memory of one model's statistics", f"{kib:.0f} KiB", "", "<= 64 KiB", "ok" if kib <= 64 else "miss")
    share = probe_share()
    table.add_row("probes, share of a core", f"{share:.2%}", "", "<= 0.50%", "ok" if share <= 0.005 else "miss")


def _figures(estimate: Estimate, unit: str) -> tuple[str, str]:
    return f"{estimate.value:.2f} {unit}", f"{estimate.low:.2f} - {estimate.high:.2f} {unit}"


def _per_call() -> tuple[list[float], list[float], list[float]]:
    """Microseconds per round of: a recorded span with batch export, `on_end` for it, the statistics."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from otel_inference import semconv
    from otel_inference.health.stretch import Exemplar
    from otel_inference.telemetry.processor import HealthSpanProcessor
    from otel_inference.telemetry.registry import HealthRegistry

    class Nowhere(SpanExporter):
        def export(self, _spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracer = provider.get_tracer(semconv.SCOPE)
    attributes = {semconv.ENGINE: "torch", semconv.OPERATION: "forward", semconv.MODEL: "m", semconv.BATCH_SIZE: 8}
    ended: list[Any] = []

    def span() -> None:
        started = tracer.start_span("forward m", attributes=attributes)
        started.end()
        ended.append(started)

    span()
    processor, statistics = HealthSpanProcessor(HealthRegistry()), HealthRegistry().of("m")
    durations = [random.lognormvariate(-4, 0.5) for _ in range(_CALLS)]
    exemplar, now_s, index = Exemplar(1, 2), perf_counter(), 0

    def judge() -> None:
        processor.on_end(ended[0])

    def count() -> None:
        nonlocal index
        index = (index + 1) % _CALLS
        statistics.ended(now_s, durations[index], failed=False, cold=False, size=128, exemplar=exemplar)

    rows: tuple[list[float], list[float], list[float]] = ([], [], [])
    gc.disable()
    for _ in range(_ROUNDS):
        for row, work in zip(rows, (span, judge, count), strict=True):
            row.append(_microseconds(work))
        del ended[1:]
        gc.collect()
    gc.enable()
    provider.shutdown()
    return rows


def _microseconds(work: Callable[[], None]) -> float:
    began = thread_time_ns()
    for _ in range(_CALLS):
        work()
    return (thread_time_ns() - began) / _CALLS / 1000


def memory_kib() -> float:
    """Of a model that has seen every duration and size."""
    from otel_inference.telemetry.registry import ModelStatistics

    model = ModelStatistics(60.0, lambda: 100.0, 0.0)
    for at_s in range(100):
        for number in range(0, 5000, 10):
            model.ended(float(at_s), 1e-6 * 1.0044**number, failed=False, cold=False, size=number**2)
    return _deep_bytes(model) / 1024


def _deep_bytes(root: object) -> int:
    seen: set[int] = set()
    todo, total = [root], 0
    while todo:
        thing = todo.pop()
        if id(thing) not in seen and not isinstance(thing, type) and not callable(thing):
            seen.add(id(thing))
            total += sys.getsizeof(thing)
            todo.extend(gc.get_referents(thing))
    return total


def probe_share() -> float:
    """CPU time of the thread that reads the probes, over the time passed."""
    import os
    import time

    from otel_inference.resources.sampler import ResourceSampler
    from otel_inference.resources.standard import standard_probes

    used: list[float] = []
    settled = Event()

    def note(_: object) -> None:
        used.append(time.thread_time())
        settled.set()

    sampler = ResourceSampler(standard_probes(os.environ), on_tick=note)
    sampler.start()
    settled.wait(30)
    sleep(2.0)  # what is loaded once is not what a reading costs
    first, began_s = used[-1], perf_counter()
    sleep(PROBE_SECONDS)
    last, took_s = used[-1], perf_counter() - began_s
    sampler.stop()
    return (last - first) / took_s
