"""`otel-inference check`: what it finds in an environment, at an endpoint, and what it says to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from otel_inference.cli import checklist
from otel_inference.cli.check import Result, Verdict, exit_code, heard, of_environment
from otel_inference.cli.main import main
from otel_inference.cli.reachability import clock, of_endpoints

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)


class Endpoint(HTTPServer):
    """Takes OTLP by HTTP, or answers as it is told."""

    status = 200
    ahead = timedelta()

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self):
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        """Answer with the status of the server."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self):
        """Refuse, as endpoints of OTLP do, and say the time."""
        self.send_response(405)
        self.end_headers()

    def date_time_string(self, timestamp=None):
        """The time, as far ahead as the test says."""
        return format_datetime(datetime.now(UTC) + self.server.ahead, usegmt=True)

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def endpoint(monkeypatch):
    """An endpoint that takes everything, to which the environment points."""
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    clean(monkeypatch)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def clean(monkeypatch):
    """Take every variable of OpenTelemetry's away."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def subjects(results, verdict):
    """What had that verdict."""
    return [result.subject for result in results if result.verdict is verdict]


def one(results, subject):
    """The one result on a subject."""
    (result,) = (result for result in results if result.subject == subject)
    return result


def test_a_good_environment_has_nothing_to_be_done():
    """With a name and the health sampler, every check of the environment is well."""
    environ = {
        "OTEL_SERVICE_NAME": "ranking",
        "OTEL_TRACES_SAMPLER": "inference_health",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }
    results = of_environment(environ)
    assert {result.verdict for result in results} == {Verdict.OK}
    assert one(results, "sampler").found == "inference_health 0.01"
    assert exit_code(results) == 0


@pytest.mark.parametrize(
    ("environ", "subject", "verdict", "words"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, "SDK", Verdict.FAILED, "nothing is exported"),
        ({"OTEL_CONFIG_FILE": "/nowhere.yaml"}, "SDK", Verdict.FAILED, "/nowhere.yaml, which is not there"),
        ({"OTEL_CONFIG_FILE": __file__}, "SDK", Verdict.WARNING, "do not apply"),
        ({"OTEL_INFERENCE_WINDOW": "3"}, "options", Verdict.FAILED, "did you mean OTEL_INFERENCE_WINDOW_S"),
        ({"OTEL_INFERENCE_WINDOW_S": "wide"}, "options", Verdict.FAILED, "OTEL_INFERENCE_WINDOW_S='wide'"),
        ({}, "service", Verdict.WARNING, "unknown_service"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=x"}, "service", Verdict.OK, "x"),
        ({}, "sampler", Verdict.WARNING, "every call is a span"),
        ({"OTEL_TRACES_SAMPLER": "inference_healt"}, "sampler", Verdict.FAILED, "is unknown"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "sampler", Verdict.WARNING, "no traces at all"),
        (
            {"OTEL_TRACES_SAMPLER": "inference_health", "OTEL_TRACES_SAMPLER_ARG": "1%"},
            "sampler",
            Verdict.FAILED,
            "not a number from 0 to 1",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(environ, subject, verdict, words):
    """Each mistake has its verdict, names the variable or its effect, and says what to do."""
    result = one(of_environment(environ), subject)
    assert result.verdict is verdict
    assert words in result.found
    assert bool(result.remedy) is (verdict is not Verdict.OK)


def test_a_misspelt_sampler_gets_the_right_name():
    """The nearest sampler that there is stands in the remedy."""
    assert (
        one(of_environment({"OTEL_TRACES_SAMPLER": "inference_healt"}), "sampler").remedy
        == "Did you mean inference_health?"
    )


def test_another_instrumentation_of_an_engine_is_a_warning(monkeypatch):
    """Another instrumentor of transformers is named, unless the launcher is told to leave it out."""
    points = importlib.metadata.entry_points

    def with_another(**selected):
        other = importlib.metadata.EntryPoint(
            "transformers", "somebody.else:Instrumentor", "opentelemetry_instrumentor"
        )
        return [*points(**selected), *([other] if selected["group"] == other.group else [])]

    monkeypatch.setattr(importlib.metadata, "entry_points", with_another)
    result = one(of_environment({}), "duplicates")
    assert (result.verdict, "transformers" in result.found) == (Verdict.WARNING, True)
    told = one(of_environment({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask, transformers"}), "duplicates")
    assert told.verdict is Verdict.OK


def test_an_engine_that_is_shut_off_is_a_warning():
    """What the launcher is told to leave out of ours is named."""
    results = of_environment({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "inference_torch"})
    assert any(result.subject == "engines" and "torch: not instrumented" in result.found for result in results)


def test_no_engine_is_a_warning(monkeypatch):
    """Where no engine is installed, that is said."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert one(of_environment({}), "engines").verdict is Verdict.WARNING


def test_an_endpoint_that_takes_everything_is_well(endpoint):
    """All three signals and the clock are well, by the exporters that the SDK would use."""
    results = of_endpoints(os.environ, 2.0)
    assert subjects(results, Verdict.OK) == ["traces", "metrics", "logs", "clock"]
    assert f"127.0.0.1:{endpoint.server_port} takes them, by http/protobuf" in one(results, "traces").found


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "OTEL_EXPORTER_OTLP_HEADERS is not set"), (404, "OTEL_TRACES_EXPORTER=none"), (400, "Look at the log")],
)
def test_a_refusal_says_what_to_do(endpoint, status, words):
    """By the status of the refusal the remedy is another."""
    endpoint.status = status
    result = one(of_endpoints(os.environ, 2.0), "traces")
    assert result.verdict is Verdict.FAILED
    assert str(status) in result.found
    assert words in result.remedy


def test_a_clock_that_is_off_is_a_failure(endpoint):
    """Ten minutes between two machines are said with their direction."""
    endpoint.ahead = timedelta(minutes=10)
    result = one(of_endpoints(os.environ, 2.0), "clock")
    assert result.verdict is Verdict.FAILED
    assert "behind" in result.found


@pytest.mark.parametrize(
    ("ahead_s", "verdict"), [(0, Verdict.OK), (4, Verdict.OK), (-30, Verdict.WARNING), (90, Verdict.FAILED)]
)
def test_skew_is_judged_by_its_size(ahead_s, verdict):
    """A few seconds are the header's own coarseness, half a minute is a warning, more than one a failure."""
    date = format_datetime(NOW + timedelta(seconds=ahead_s), usegmt=True)
    assert clock(date, NOW, "collector:4318").verdict is verdict


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_no_date_is_no_verdict(date):
    """A server that does not say the time is skipped."""
    assert clock(date, NOW, "collector:4318").verdict is Verdict.SKIPPED


def test_nobody_listening_is_a_failure(endpoint, monkeypatch):
    """A refused connection is told apart from a refused request, and says where to find a Collector."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/v1/traces")
    result = one(of_endpoints(os.environ, 2.0), "traces")
    assert result.verdict is Verdict.FAILED
    assert "nobody answers at 127.0.0.1:1" in result.found
    assert "collector-config/README.md" in result.remedy


def test_signals_that_are_not_sent_are_skipped(endpoint, monkeypatch):
    """`none` and other exporters are not looked at, and an unknown protocol is a failure."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")
    results = of_endpoints(os.environ, 2.0)
    assert one(results, "metrics").found == "exported by prometheus, which is not looked at"
    assert one(results, "logs").found == "not exported"
    assert one(results, "traces").verdict is Verdict.FAILED
    assert one(results, "clock").verdict is Verdict.SKIPPED


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes traces by gRPC, and nothing else."""

    def Export(self, request, context):  # noqa: N802 - the name of the service
        """Take them."""
        return trace_service_pb2.ExportTraceServiceResponse()


def test_grpc_is_checked_by_signal(monkeypatch):
    """An endpoint that takes traces only is well for traces, and for the others the remedy is to switch them off."""
    clean(monkeypatch)
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    try:
        results = of_endpoints(os.environ, 2.0)
    finally:
        server.stop(None).wait()
    assert subjects(results, Verdict.OK) == ["traces"]
    assert one(results, "metrics").remedy.startswith("It does not take metrics: set OTEL_METRICS_EXPORTER=none")


def test_the_command_prints_and_ends_with_a_code(endpoint, monkeypatch, capsys):
    """A set-up that works ends with 0; one in which something failed with 1."""
    assert main(["check", "--timeout", "2"]) == 0
    assert "takes them, by http/protobuf" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert main(["check", "--timeout", "2"]) == 1
    assert "1 failed" in capsys.readouterr().out


def test_without_rich_it_is_plain_text(monkeypatch, capsys):
    """The list is printed without `rich` too, with what to do beneath what was found."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    checklist.show([Result(subject="clock", verdict=Verdict.WARNING, found="30 s behind", remedy="Synchronise it.")])
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "warning  clock      30 s behind",
        " " * 20 + "-> Synchronise it.",
        "0 ok, 0 skipped, 1 warning, 0 failed",
    ]


def test_listening_to_a_log_leaves_it_as_it_was(capfd):
    """What is logged meanwhile is collected and not printed, and the logger is as before."""
    log = logging.getLogger("otel_inference.test")
    before = (logging.getLogger("otel_inference").propagate, logging.getLogger("otel_inference").handlers[:])
    with heard("otel_inference") as said:
        log.warning("%s is wrong", "it")
    assert said == ["it is wrong"]
    assert (logging.getLogger("otel_inference").propagate, logging.getLogger("otel_inference").handlers) == before
    assert capfd.readouterr().err == ""
