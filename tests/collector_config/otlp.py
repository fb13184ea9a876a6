"""A real OTLP receiver on loopback: all signals by gRPC, and by HTTP as Prometheus takes them."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Received:
    """What has arrived, request by request."""

    def __init__(self):
        self.traces = []
        self.metrics = []
        self.logs = []

    def spans(self):
        """Each span that has arrived, with the attributes of its resource."""
        return [
            (values(resource.resource), span)
            for request in list(self.traces)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def points(self, name):
        """The points of one metric, in the order in which they came."""
        return [point for _, point in self.points_of(name)]

    def points_of(self, name):
        """The same, with the attributes of the process that sent them."""
        return [
            (values(resource.resource), point)
            for request in list(self.metrics)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]

    def records(self):
        """Each record of a log that has arrived."""
        return [
            record
            for request in list(self.logs)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


def values(message):
    """Attributes of a message as a dictionary."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in message.attributes}


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, received):
        self._received = received

    def Export(self, request, context):  # noqa: N802 - the service's name
        self._received.traces.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, received):
        self._received = received

    def Export(self, request, context):  # noqa: N802 - the service's name
        self._received.logs.append(request)
        return logs_service_pb2.ExportLogsServiceResponse()


def _handler(received):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            known = self.path == "/api/v1/otlp/v1/metrics"
            if known:
                received.metrics.append(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body))
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    return Handler


@contextmanager
def receiving():
    """A receiver: what it got, its gRPC address, and its HTTP address with Prometheus's path."""
    received = Received()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(received), server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(received), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    web = ThreadingHTTPServer(("127.0.0.1", 0), _handler(received))
    thread = Thread(target=web.serve_forever)
    thread.start()
    try:
        yield received, f"127.0.0.1:{port}", f"http://127.0.0.1:{web.server_port}/api/v1/otlp"
    finally:
        web.shutdown()
        thread.join()
        web.server_close()
        server.stop(0).wait()
