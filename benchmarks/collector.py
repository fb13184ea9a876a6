"""Processor time that the Collector tiers take for a span and for an export of metrics: numbers of `docs/scale.md`.

    python -m benchmarks.collector

Runs `collector-config/agent.yaml` and `gateway.yaml` in the Collector that `tests/collector_config` finds, less what
that one lacks, and sends what a process of three models sends, as fast as it is taken.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from tests.collector_config import collector, names, otlp

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 512
BATCHES = 400
EXPORTS = 3000
HOST = f"127.92.{os.getpid() >> 8 & 255}.{os.getpid() & 255 | 1}"


def telemetry() -> tuple[bytes, bytes]:
    """A batch of spans and an export of metrics, of the process that `measure.py` runs."""
    metrics, spans = runpy.run_path(str(names.ROOT / "measure.py"))["recorded"]()
    return encode_spans(spans[:BATCH]).SerializeToString(), encode_metrics(metrics).SerializeToString()


def send(path: str, body: bytes, times: int) -> None:
    """Post to the agent, one after the other."""
    for _ in range(times):
        headers = {"Content-Type": "application/x-protobuf"}
        request = urllib.request.Request(f"http://{HOST}:4318{path}", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()


def cpu_s(processes: list[psutil.Process]) -> list[float]:
    """Processor seconds of each."""
    return [sum(process.cpu_times()[:2]) for process in processes]


def measure(tiers: list[psutil.Process], path: str, body: bytes, times: int, arrived: Callable[[], int]) -> list[float]:
    """Processor milliseconds of each tier for one request, taken until the last has come through both."""
    before = cpu_s(tiers)
    send(path, body, 1)
    collector.until(arrived, "the first comes through")
    of_one = arrived()
    send(path, body, times - 1)
    collector.until(lambda: arrived() >= of_one * times, f"{path} comes through")
    return [(after - earlier) * 1e3 / times for after, earlier in zip(cpu_s(tiers), before, strict=True)]


def span_count(received: otlp.Received) -> int:
    """Spans that have come through."""
    return sum(
        len(scope.spans)
        for each in received.traces
        for resource in each.resource_spans
        for scope in resource.scope_spans
    )


def metric_count(received: otlp.Received) -> int:
    """Metrics that have come through."""
    return sum(
        len(scope.metrics)
        for each in received.metrics
        for resource in each.resource_metrics
        for scope in resource.scope_metrics
    )


def main() -> None:
    """Run both tiers, send, and print."""
    found = collector.installed()
    if found is None:
        sys.exit("no Collector: see CONTRIBUTING.md")
    spans, export = telemetry()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        received, traces, metrics = stack.enter_context(otlp.receiving())
        environment = {
            "OTEL_AGENT_HOST": HOST,
            "OTEL_AGENT_STORAGE": str(folder / "queue"),
            "OTEL_GATEWAY_ENDPOINT": f"{HOST}:14317",
            "OTEL_GATEWAY_HOST": HOST,
            "OTEL_GATEWAY_PEERS": HOST,
            "OTEL_TRACES_ENDPOINT": traces,
            "OTEL_PROMETHEUS_ENDPOINT": metrics,
        }
        tiers = []
        for name, port in (("gateway", 8889), ("agent", 8888)):
            config = collector.merged([f"{name}.yaml"])
            print(f"{name} without: {', '.join(found.lacks(config)) or 'nothing'}")
            running = collector.running(
                found, collector.reduced(config, found), environment, folder / name, f"{HOST}:{port}"
            )
            tiers.insert(0, psutil.Process(stack.enter_context(running).pid))
        time.sleep(2)
        agent, gateway = measure(tiers, "/v1/traces", spans, BATCHES, lambda: span_count(received))
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"a span, us: agent {agent * 1e3 / BATCH:.1f}, gateway {gateway * 1e3 / BATCH:.1f}")
        agent, gateway = measure(tiers, "/v1/metrics", export, EXPORTS, lambda: metric_count(received))
        print(f"an export of {len(export)} bytes, ms: agent {agent:.2f}, gateway {gateway:.2f}")


if __name__ == "__main__":
    main()
