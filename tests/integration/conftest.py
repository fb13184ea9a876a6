"""A real OTLP receiver on loopback, and programs run under OpenTelemetry's launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

BIN = Path(sys.executable).parent


class Receiver:
    """Takes OTLP over HTTP as protobuf, and keeps it."""

    def __init__(self):
        received = self.received = {"/v1/traces": [], "/v1/metrics": []}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.setdefault(self.path, []).append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self):
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self):
        """Spans of our scope as (process id, name, attributes)."""
        return [
            (values(resource.resource)["process.pid"], span.name, values(span))
            for body in self.received["/v1/traces"]
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            if scope.scope.name == "otel_inference"
            for span in scope.spans
        ]

    def metrics(self):
        """Metrics of our scope by name, as received last."""
        return {
            metric.name: metric
            for body in self.received["/v1/metrics"]
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in resource.scope_metrics
            if scope.scope.name == "otel_inference"
            for metric in scope.metrics
        }


def values(message):
    """Attributes of a protobuf message as a dictionary."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in message.attributes}


@pytest.fixture
def receiver():
    """A running OTLP receiver."""
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def environment(receiver):
    """Environment variables of a program whose telemetry goes to the receiver."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COV_"))},
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process",
        "OTEL_INFERENCE_STRICT": "1",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture
def run(environment, tmp_path):
    """Run a program text, or a command, under the launcher or bare."""

    def run(program=None, *, command=None, launcher=True, check=True, **more):
        if program is not None:
            path = tmp_path / "program.py"
            path.write_text(program)
            command = [sys.executable, str(path)]
        prefix = [str(BIN / "opentelemetry-instrument")] if launcher else []
        result = subprocess.run(
            [*prefix, *command],
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            check=False,
        )
        assert not check or result.returncode == 0, result.stderr
        return result

    return run
