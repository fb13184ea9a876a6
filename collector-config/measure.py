"""Prints the numbers that `docs/scale.md` works with: series, points and bytes of one process.

    python collector-config/measure.py

The process serves three models (a generator, an embedder, a ranker), each of which also failed in one way,
with a limiter on one of them, a finding, a maintenance action, and CPU and memory read.
"""

from __future__ import annotations

import gzip
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_inference
from otel_inference import semconv
from otel_inference.finding import Finding, FindingKind, Severity
from otel_inference.protocols import outlet_of
from otel_inference.telemetry.instruments import instruments_for

if TYPE_CHECKING:
    from collections.abc import Sequence

CALLS = 600
BATCH = 512
RESOURCE = Resource.create(
    {
        "service.name": "ranking",
        "service.version": "1.4.2",
        "host.name": "node-0815",
        "k8s.pod.name": "ranking-5d8f-x7k2p",
    }
)


def generate(model: str) -> None:
    """One generation, as an engine reports it."""
    sink = outlet_of("custom").sink
    call = sink.begin("custom", semconv.GENERATE, model, batch_size=1, input_size=37, usage_operation=semconv.CHAT)
    call.request = {semconv.GEN_AI_MAX_TOKENS: 64, semconv.GEN_AI_TEMPERATURE: 0.7, semconv.GEN_AI_STREAM: True}
    first_token_ns = time.perf_counter_ns()
    call.add_tokens(37, 24)
    call.add_decode(first_token_ns, time.perf_counter_ns(), 24)
    call.queue_ns = 1_000
    sink.end(call)


def fail(model: str) -> None:
    """One failed call."""
    with suppress(ValueError), otel_inference.observe(model, "predict", batch_size=8, input_size=1024):
        msg = f"index 3 is out of bounds for dimension 0 with size {model!r}"
        raise ValueError(msg)


def traffic() -> None:
    """Calls of three models."""
    for number in range(CALLS):
        generate("SmolLM2-135M-Instruct")
        with otel_inference.observe("all-MiniLM-L6-v2", "encode", batch_size=16, input_size=2048) as call:
            call.set(input_tokens=512, device="cpu")
        with otel_inference.observe("ranker", "forward", batch_size=8, input_size=1024) as call:
            call.set(device="cpu")
        if number % 100 == 0:
            for model in ("SmolLM2-135M-Instruct", "all-MiniLM-L6-v2", "ranker"):
                fail(model)


def series(metric: Any) -> int:
    """How many series of Prometheus a metric is: a histogram's point is one a bucket, and two."""
    return sum(
        len(point.bucket_counts) + 2 if hasattr(point, "bucket_counts") else 1 for point in metric.data.data_points
    )


def print_metrics(data: Any) -> None:
    """What one export of metrics holds."""
    metrics = [
        metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
    ]
    total = {"points": 0, "series": 0}
    sys.stdout.write(f"{'metric':44} {'points':>6} {'series':>6}\n")
    for metric in metrics:
        points = len(metric.data.data_points)
        total["points"] += points
        total["series"] += series(metric)
        if points:
            sys.stdout.write(f"{metric.name:44} {points:6} {series(metric):6}\n")
    body = encode_metrics(data).SerializeToString()
    sys.stdout.write(f"{'all':44} {total['points']:6} {total['series']:6}\n")
    sys.stdout.write(f"one export: {len(body)} bytes, {len(gzip.compress(body))} with gzip\n")


def print_spans(spans: Sequence[Any]) -> None:
    """How large spans are, by kind, in batches of 512 as the SDK sends them."""
    kinds = {
        "forward": [span for span in spans if span.name.startswith("forward")],
        "generation": [span for span in spans if span.name.startswith("generate")],
        "failed, with its stack": [span for span in spans if not span.status.is_ok and span.events],
    }
    for kind, found in kinds.items():
        batch = (found * (BATCH // len(found) + 1))[:BATCH]
        body = encode_spans(batch).SerializeToString()
        note = "" if len(found) >= BATCH else f" (of {len(found)} different ones, hence no gzip)"
        zipped = f", {len(gzip.compress(body)) / BATCH:.0f} with gzip" if len(found) >= BATCH else note
        sys.stdout.write(f"span, {kind}: {len(body) / BATCH:.0f} bytes{zipped}\n")


def recorded() -> tuple[Any, Sequence[Any]]:
    """The metrics and the spans of the process."""
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    meters, tracers = MeterProvider([reader], resource=RESOURCE), TracerProvider(resource=RESOURCE)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    otel_inference.instrument([], tracer_provider=tracers, meter_provider=meters)
    otel_inference.limit("ranker", otel_inference.AdaptiveLimiter(deadline_s=1.0))
    instruments = instruments_for(meters, "0.1.0")
    instruments.record_finding(
        Finding(FindingKind.SATURATION, Severity.WARNING, None, datetime.now(UTC), {}, "", subject="cpu")
    )
    instruments.record_action("trim_heap", "done")
    traffic()
    time.sleep(2.5)  # for a reading of the machine
    data = reader.get_metrics_data()
    otel_inference.uninstrument()
    return data, exporter.get_finished_spans()


def main() -> None:
    """Run the traffic and print."""
    data, spans = recorded()
    print_metrics(data)
    print_spans(spans)


if __name__ == "__main__":
    main()
