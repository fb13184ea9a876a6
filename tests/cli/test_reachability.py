"""`otel-inference check`: what it finds out about an endpoint, and what it says to do."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import certifi
import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from tests.cli.endpoint import clean, one, subjects

from otel_inference.cli.check import Verdict
from otel_inference.cli.listener import listener
from otel_inference.cli.reachability import clock, of_endpoints

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)


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


def test_where_a_file_configures_the_sdk_no_variable_is_judged(monkeypatch):
    """Exporters that the file may not have are not asked, and a variable that does not apply is no failure."""
    monkeypatch.setenv("OTEL_CONFIG_FILE", __file__)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "consol")
    results = of_endpoints(os.environ, 2.0)
    assert [(result.subject, result.verdict) for result in results] == [
        ("traces", Verdict.SKIPPED),
        ("metrics", Verdict.SKIPPED),
        ("logs", Verdict.SKIPPED),
        ("clock", Verdict.SKIPPED),
    ]


def test_an_exporter_that_is_not_there_is_a_failure(endpoint, monkeypatch):
    """A misspelt exporter, for which the SDK refuses its whole configuration, gets the right name."""
    result = of_traces(monkeypatch, OTEL_TRACES_EXPORTER="consol")
    assert (result.verdict, result.remedy) == (Verdict.FAILED, "Did you mean console?")
    assert "no exporter 'consol' is there" in result.found
    unlike = of_traces(monkeypatch, OTEL_TRACES_EXPORTER="zzz")
    assert "Known here are console, otlp" in unlike.remedy


@pytest.mark.parametrize(
    ("names", "verdicts"),
    [
        ("otlp, console", [Verdict.OK, Verdict.SKIPPED]),
        ("console,oltp", [Verdict.SKIPPED, Verdict.FAILED]),
        ("otlp,", [Verdict.OK, Verdict.FAILED]),
        ("console,none", [Verdict.SKIPPED, Verdict.FAILED]),
        ("", [Verdict.SKIPPED]),
    ],
)
def test_each_exporter_of_a_list_is_looked_at(endpoint, monkeypatch, names, verdicts):
    """Of several exporters each has its result; what the SDK makes of an empty name and of a `none` among others is a failure."""
    clean(monkeypatch)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", names)
    results = of_endpoints(os.environ, 2.0)
    assert [result.verdict for result in results if result.subject == "traces"] == verdicts


def test_an_exporter_that_says_its_protocol_is_asked_by_it(endpoint, monkeypatch):
    """`otlp_proto_http` speaks HTTP, whatever the variable of the protocol says."""
    result = of_traces(monkeypatch, OTEL_TRACES_EXPORTER="otlp_proto_http", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert (result.verdict, "by http/protobuf" in result.found) == (Verdict.OK, True)


def test_otlp_without_its_exporter_says_what_to_install(endpoint, monkeypatch):
    """Where the package of the protocol's exporter is not installed, its name is the remedy."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_selected: ())
    result = of_traces(monkeypatch)
    assert (result.verdict, result.remedy) == (Verdict.FAILED, "pip install opentelemetry-exporter-otlp-proto-http")


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes traces by gRPC, and nothing else."""

    def Export(self, request, context):  # noqa: N802 - the name of the service
        """Take them."""
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def grpc_address(monkeypatch):
    """Where traces are taken by gRPC, to which the environment points."""
    clean(monkeypatch)
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{address}")
    yield address
    server.stop(None).wait()


def test_grpc_is_checked_by_signal(grpc_address):
    """An endpoint that takes traces only is well for traces, and for the others the remedy is to switch them off."""
    results = of_endpoints(os.environ, 2.0)
    assert subjects(results, Verdict.OK) == ["traces"]
    assert grpc_address in one(results, "traces").found
    assert one(results, "metrics").remedy.startswith("It does not take metrics: set OTEL_METRICS_EXPORTER=none")
    assert one(results, "logs").remedy.startswith("It does not take logs: set OTEL_LOGS_EXPORTER=none")


def of_traces(monkeypatch, timeout_s=1.0, **environ):
    """The result for traces alone, in an environment with these variables too."""
    for name, value in {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", **environ}.items():
        monkeypatch.setenv(name, value)
    return one(of_endpoints(os.environ, timeout_s), "traces")


def test_http_to_an_endpoint_of_grpc_names_the_protocol(grpc_address, monkeypatch):
    """The remedy for requests over HTTP to a gRPC server is the variable with its value."""
    result = of_traces(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    assert (result.verdict, result.found) == (Verdict.FAILED, f"{grpc_address} does not speak http/protobuf")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in result.remedy


def test_grpc_to_an_endpoint_of_http_names_the_protocol(endpoint, monkeypatch):
    """The remedy for gRPC to an HTTP server is the variable with its value."""
    result = of_traces(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert (result.verdict, result.found) == (Verdict.FAILED, f"127.0.0.1:{endpoint.server_port} does not speak grpc")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in result.remedy


@pytest.mark.parametrize(
    ("protocol", "scheme"), [("grpc", "https://"), ("grpc", ""), ("http/protobuf", "https://"), ("http/protobuf", "")]
)
def test_tls_to_an_endpoint_without_it_names_the_address(request, monkeypatch, protocol, scheme):
    """Where the address asks for TLS, or does not say, the remedy is the address that would do."""
    address = request.getfixturevalue("grpc_address" if protocol == "grpc" else "endpoint")
    place = address if protocol == "grpc" else address.url.removeprefix("http://")
    result = of_traces(
        monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=f"{scheme}{place}", OTEL_EXPORTER_OTLP_PROTOCOL=protocol
    )
    assert result.verdict is Verdict.FAILED
    assert "http://" in result.remedy
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in result.remedy


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Files of a certificate that this machine calls itself by, signed by nobody else, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (Debian: openssl)")
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    named = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]]
    subprocess.run([*made.split(), *named], check=True, capture_output=True)
    return files


@pytest.fixture
def secure(endpoint, certificate, monkeypatch):
    """The endpoint with TLS; its address."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    plain = endpoint.socket
    endpoint.socket = context.wrap_socket(plain, server_side=True)
    return f"127.0.0.1:{endpoint.server_port}"


def test_a_certificate_that_is_trusted_is_well(secure, certificate, monkeypatch):
    """With its authority named, traces and the clock are well over TLS."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificate[0]))
    result = of_traces(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=f"https://{secure}")
    assert result.verdict is Verdict.OK
    assert one(of_endpoints(os.environ, 1.0), "clock").verdict is Verdict.OK


def test_http_to_an_endpoint_of_grpc_over_tls_names_the_protocol(secure, certificate, monkeypatch):
    """It is found out too where a server by TLS takes nobody who does not say that they speak HTTP/2."""
    server = grpc.server(ThreadPoolExecutor(1))
    chain, key = (file.read_bytes() for file in certificate)
    place = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', grpc.ssl_server_credentials([(key, chain)]))}"
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificate[0]))
    result = of_traces(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=f"https://{place}")
    server.stop(None).wait()
    assert (result.verdict, result.found) == (Verdict.FAILED, f"{place} does not speak http/protobuf")


def test_a_folder_of_authorities_is_one(secure, certificate, tmp_path):
    """What listens is trusted by a certificate that lies in a folder, under the name that OpenSSL looks for."""
    hashed = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", certificate[0]], check=True, capture_output=True, text=True
    )
    shutil.copy(certificate[0], tmp_path / f"{hashed.stdout.strip()}.0")
    host, port = secure.split(":")
    assert listener(host, int(port), 5.0, certificates=str(tmp_path)).distrust is None


def test_a_certificate_of_another_name_is_said(secure, certificate, monkeypatch):
    """One that is trusted and not for this name is no matter of authorities."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificate[0]))
    place = secure.replace("127.0.0.1", "localhost")
    result = of_traces(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=f"https://{place}")
    assert result.verdict is Verdict.FAILED
    assert "not trusted: Hostname mismatch" in result.found
    assert result.remedy == "Write a name in OTEL_EXPORTER_OTLP_ENDPOINT that the certificate has."


@pytest.mark.parametrize(
    ("scheme", "environ", "found", "remedy"),
    [
        ("http", {}, "speaks TLS only", "Write https://"),
        ("https", {}, "not trusted: self-signed certificate", "Set OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ("https", {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere"}, "/nowhere cannot be read", "OTLP_CERTIFICATE"),
    ],
)
def test_what_is_wrong_with_tls_is_said(secure, monkeypatch, scheme, environ, found, remedy):
    """A missing https, an authority that is not known and a file that is not there each have their own words."""
    result = of_traces(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=f"{scheme}://{secure}", **environ)
    assert result.verdict is Verdict.FAILED
    assert found in result.found
    assert remedy in result.remedy


def test_a_variable_that_goes_before_the_certificate_is_named(secure, certificate, monkeypatch):
    """Where the library of the exporter over HTTP has authorities of its own, that variable is the remedy."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificate[0]))
    result = of_traces(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=f"https://{secure}")
    assert result.verdict is Verdict.FAILED
    assert result.remedy.endswith("Unset REQUESTS_CA_BUNDLE, which goes before it.")


def test_a_name_that_is_not_known_is_told_apart(endpoint, monkeypatch):
    """A name without an address is another failure than a machine that does not answer."""
    result = of_traces(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="http://collector.invalid:4318")
    assert result.verdict is Verdict.FAILED
    assert "the name collector.invalid is not known here" in result.found


def test_who_accepts_and_says_nothing_is_told_apart(endpoint, monkeypatch):
    """A connection that is taken and never answered is neither a wrong protocol nor a refusal."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        place = f"127.0.0.1:{mute.getsockname()[1]}"
        result = of_traces(monkeypatch, 0.3, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{place}")
    assert result.verdict is Verdict.FAILED
    assert f"{place} is there and answers neither HTTP nor gRPC" in result.found


def test_a_port_is_not_a_status(monkeypatch):
    """An endpoint whose port has the digits of a refusal, and that never answers, is not taken for one that refuses."""
    clean(monkeypatch)
    mute = socket.socket()
    for port in range(40100, 40200):
        with suppress(OSError):
            mute.bind(("127.0.0.1", port))
            break
    with mute:
        mute.listen()
        place = f"127.0.0.1:{mute.getsockname()[1]}"
        result = of_traces(monkeypatch, 0.3, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{place}")
    assert f"{place} is there and answers neither HTTP nor gRPC" in result.found
