"""Sampling in programs that know nothing of us, under the launcher, with a real OTLP receiver."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.integration.conftest import values

JOBS = """
from opentelemetry import trace
from otel_inference import observe
tracer = trace.get_tracer("application")
for number in range(300):
    try:
        with tracer.start_as_current_span("job"), observe("ranker"):
            if number % 100 == 7:
                raise LookupError
    except LookupError:
        pass
"""

YAML = """
file_format: "1.0"
tracer_provider:
  sampler: {sampler}
  processors: [{{batch: {{exporter: {{otlp_http: {{endpoint: "{endpoint}/v1/traces"}}}}}}}}]
instrumentation/development:
  python:
    inference_torch: {{tail_keep: true}}
"""

SERVER = """
import os, requests, signal, socket, threading, time, uvicorn
from fastapi import FastAPI
from otel_inference import observe

app = FastAPI()

@app.get("/rank")
def rank(fail: bool = False):
    with observe("ranker"):
        if fail:
            raise LookupError
    return {}

def client():
    while not server.started:
        time.sleep(0.01)
    for number in range(20):
        requests.get(f"http://127.0.0.1:{port}/rank", params={"fail": number == 11}, timeout=10)
    os.kill(os.getpid(), signal.SIGTERM)

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))
threading.Thread(target=client).start()
server.run()
"""


def exported(receiver):
    """All spans received, of any scope."""
    return [
        span
        for body in receiver.received["/v1/traces"]
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def assert_failures(receiver):
    """The three failing jobs were exported whole, and nothing else."""
    spans = exported(receiver)
    assert Counter(span.name for span in spans) == {"job": 3, "call ranker": 3}
    assert len({span.trace_id for span in spans}) == 3
    for span in spans:
        counted = 1 if span.name == "call ranker" else 0
        assert values(span)["inference.sampling.kept_by"] == "error"
        assert values(span)["inference.sampling.adjusted_count"] == counted


def test_keeps_failures_with_a_sampler_of_the_sdk(run, receiver):
    """With a ratio of 0 by a sampler of the SDK exactly the failing jobs arrive."""
    run(
        JOBS,
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0",
        OTEL_INFERENCE_TAIL_KEEP="true",
    )

    assert_failures(receiver)


@pytest.mark.parametrize(
    "sampler",
    ["{inference_health: {}}", "{parent_based: {root: {inference_health: {}}}}"],
    ids=["ours", "ours within another"],
)
def test_keeps_failures_under_declarative_configuration(run, receiver, tmp_path, sampler):
    """The same by a configuration file, with our sampler by its name there, alone or inside another."""
    (tmp_path / "otel.yaml").write_text(YAML.format(endpoint=receiver.endpoint, sampler=sampler))
    run(JOBS, OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml"), OTEL_INFERENCE_SAMPLING_RATIO="0")

    assert_failures(receiver)


def test_follows_its_ratio(run, receiver):
    """Without tail keep the ratio decides, and what arrives says with what threshold."""
    run(JOBS, OTEL_TRACES_SAMPLER="inference_health", OTEL_TRACES_SAMPLER_ARG="0.1")
    spans = exported(receiver)

    assert 8 <= sum(span.name == "job" for span in spans) <= 60
    assert {span.trace_state for span in spans} == {"ot=th:e6666666666666"}


def test_sends_what_is_kept_before_a_signal_ends_the_program(run, receiver):
    """With our sampler, a program that SIGTERM ends without exit handlers has its failures sent first, and ends as ever."""
    program = JOBS + "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(20)\n"
    result = run(
        program,
        check=False,
        OTEL_TRACES_SAMPLER="inference_health",
        OTEL_TRACES_SAMPLER_ARG="0",
        OTEL_INFERENCE_TAIL_KEEP="true",
    )

    assert result.returncode == -15
    assert_failures(receiver)


@pytest.mark.skipif(
    not all(map(find_spec, ("opentelemetry.instrumentation.fastapi", "opentelemetry.instrumentation.requests"))),
    reason="needs the FastAPI and requests instrumentations",
)
def test_keeps_the_request_with_the_call(run, receiver):
    """Through FastAPI, requests and uvicorn a failing call arrives with the spans of client and server, also at SIGTERM."""
    result = run(
        SERVER,
        check=False,
        OTEL_TRACES_SAMPLER="inference_health",
        OTEL_TRACES_SAMPLER_ARG="0",
        OTEL_INFERENCE_TAIL_KEEP="true",
    )
    spans = exported(receiver)

    assert result.returncode == -15, result.stderr
    assert len({span.trace_id for span in spans}) == 1
    names = Counter(span.name for span in spans)
    assert {"GET", "GET /rank", "call ranker"} <= set(names)
    assert names["call ranker"] == 1
    assert {values(span)["inference.sampling.kept_by"] for span in spans} == {"error"}
