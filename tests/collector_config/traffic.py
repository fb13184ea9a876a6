"""A small serving process without models, to measure with: every instrument of ours in use, scraped over HTTP.

Writes the port that Prometheus may scrape to standard output. One call in two fails until a line arrives
on standard input, then none. It ends when standard input does.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import start_http_server

import otel_inference
from otel_inference import guard, semconv
from otel_inference.finding import Finding, FindingKind, Severity
from otel_inference.protocols import outlet_of
from otel_inference.telemetry.instruments import Instruments, instruments_for

MODEL, VERSION = "ranker", "0.1.0"
FINDING = Finding(FindingKind.STALL, Severity.CRITICAL, MODEL, datetime.now(UTC), {}, "")


def instrumented() -> Instruments:
    """Everything on; the instruments, for what takes minutes to come about by itself."""
    provider = MeterProvider([PrometheusMetricReader()])
    otel_inference.instrument([], tracer_provider=TracerProvider(), meter_provider=provider)
    otel_inference.limit(MODEL, otel_inference.AdaptiveLimiter(deadline_s=1.0))
    return instruments_for(provider, VERSION)


def load() -> None:
    """A load of the model, as an engine reports it."""
    sink = outlet_of("custom").sink
    assert sink is not None
    sink.end(sink.begin("custom", semconv.LOAD, MODEL))


def generate() -> None:
    """A generation with times per token that waited for its turn, as an engine reports it."""
    sink = outlet_of("custom").sink
    assert sink is not None
    call = sink.begin("custom", semconv.GENERATE, MODEL, batch_size=1, usage_operation=semconv.TEXT_COMPLETION)
    assert call is not None
    time.sleep(0.001)
    first_token_ns = time.perf_counter_ns()
    time.sleep(0.002)
    call.add_tokens(20, 8)
    call.add_decode(first_token_ns, time.perf_counter_ns(), 8)
    call.queue_ns = 1_000_000
    sink.end(call)


def rank(number: int, *, failing: bool) -> None:
    """One call, which fails every other time while told to."""
    with suppress(ValueError), otel_inference.observe(MODEL, "predict", batch_size=4, input_size=128):
        time.sleep(0.002)
        if failing and number % 2:
            raise ValueError


def report(instruments: Instruments) -> None:
    """A finding, an action, and a failure and a loss of our own."""
    instruments.record_finding(FINDING)
    instruments.record_finding(replace(FINDING, kind=FindingKind.SATURATION, model=None, subject="cpu"))
    instruments.record_action("trim_heap", "done")
    with guard.guarded("traffic"):
        raise LookupError
    guard.dropped("traffic")


def serve(instruments: Instruments, healed: threading.Event, ended: threading.Event) -> None:
    """Calls, about 100 a second, until told to end."""
    number = 0
    while not ended.wait(0.01):
        rank(number, failing=not healed.is_set())
        generate()
        if number % 25 == 0:
            load()
            report(instruments)
        number += 1


def main() -> None:
    """Serve until standard input ends."""
    instruments = instrumented()
    server, _ = start_http_server(0, "127.0.0.1")
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    healed, ended = threading.Event(), threading.Event()
    serving = threading.Thread(target=serve, args=(instruments, healed, ended))
    serving.start()
    for _ in sys.stdin:
        healed.set()
    ended.set()
    serving.join()
    os._exit(0)


if __name__ == "__main__":
    main()
