"""Collector files in a real Collector: each is accepted, and two tiers of them carry a real process's telemetry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.collector_config import collector, names, otlp

from otel_inference import semconv

COLLECTOR = collector.installed()
HOST = f"127.91.{os.getpid() >> 8 & 255}.{os.getpid() & 255 | 1}"
"""A loopback address of this test's own: the files' ports are the real ones."""
SENDING = {
    "OTEL_SERVICE_NAME": "ranking",
    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:4318",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_INFERENCE_SLO_ERRORS": "0.999",
}
SPANS = 3
"""Of one request: itself, and a call of each model."""
LARGE, LARGE_SIZE = 400, 20_000
"""Requests whose spans together are twice as large as what a gRPC receiver takes at once."""
TAIL_KEEP = {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_INFERENCE_TAIL_KEEP": "true"}

pytestmark = pytest.mark.skipif(
    COLLECTOR is None,
    reason="no Collector: put otelcol-contrib on the path or its path in $OTELCOL (CONTRIBUTING.md says how to build one)",
)


@pytest.mark.parametrize("files", collector.FILES, ids=" + ".join)
def test_a_collector_accepts_the_file(files, tmp_path, monkeypatch, record_property):
    """`validate` finds nothing wrong with what the Collector knows of a file and its overlay."""
    monkeypatch.setenv("OTEL_AGENT_STORAGE", str(tmp_path))
    monkeypatch.setenv("OTEL_OBJECTS_FROM", "2026-11-29 14:00")
    monkeypatch.setenv("OTEL_OBJECTS_UNTIL", "2026-11-29 15:00")
    config = collector.merged(files)
    lacked = COLLECTOR.lacks(config)
    record_property("not loaded", ", ".join(lacked))
    print("not loaded:", ", ".join(lacked) or "nothing")  # noqa: T201 - shown with the result
    if lacked:
        assert not COLLECTOR.validate(collector.reduced(config, COLLECTOR), tmp_path)
    else:
        command = [COLLECTOR.program, "validate", *(f"--config={file}" for file in files)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=names.ROOT)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_misspelt_option_is_refused(tmp_path):
    """The validation can fail: an option that a component does not have is an error that names it."""
    config = collector.reduced(collector.merged(["agent.yaml"]), COLLECTOR)
    config["exporters"]["otlp"]["sending_queue"]["queue_sise"] = 1
    assert "queue_sise" in COLLECTOR.validate(config, tmp_path)


@dataclass
class Story:
    """What two processes sent, and what came out behind both tiers."""

    calls: int = 0
    traced: dict[str, int] = field(default_factory=dict)
    """Spans of each trace of the process that samples all."""
    failed: set[str] = field(default_factory=set)
    """Traces of the process that samples none and keeps what fails."""
    early: int = 0
    """Spans that had come when the gateway went away."""
    received: otlp.Received | None = None
    own: set[str] = field(default_factory=set)
    """Names of the Collectors' own metrics."""


@pytest.fixture(scope="module")
def story(tmp_path_factory, onnx_path):
    """Serve with both tiers up, go on while the gateway is away, let it come back, and wait for everything."""
    folder, story = tmp_path_factory.mktemp("tiers"), Story()
    with ExitStack() as stack:
        story.received, traces, metrics = stack.enter_context(otlp.receiving())
        stack.enter_context(tier("agent", 8888, folder, OTEL_GATEWAY_ENDPOINT=f"{HOST}:14317"))
        process = stack.enter_context(served(onnx_path, folder))
        keeping = stack.enter_context(served(onnx_path, folder, **TAIL_KEEP))
        behind = {"OTEL_GATEWAY_PEERS": HOST, "OTEL_TRACES_ENDPOINT": traces, "OTEL_PROMETHEUS_ENDPOINT": metrics}
        with tier("gateway", 8889, folder, **behind):
            story.traced |= serve(process, 20)
            collector.until(lambda: arrived(story) >= set(story.traced), "the first spans come through")
        story.early = len(story.received.spans())
        story.traced |= serve(process, 30)
        story.traced |= serve(process, LARGE, LARGE_SIZE)
        story.calls = len(story.traced)
        story.failed = {trace for number, trace in enumerate(serve(keeping, 10)) if number % 5 == 0}
        with tier("gateway", 8889, folder, **behind):
            collector.until(lambda: arrived(story) >= set(story.traced) | story.failed, "spans of the meantime come")
            collector.until(lambda: counted(story) >= story.calls, "the metrics have caught up")
            collector.until(story.received.records, "events come")
            story.own = {*collector.own_metrics(f"{HOST}:8888"), *collector.own_metrics(f"{HOST}:8889")}
    return story


def test_traces_arrive_whole_though_the_gateway_was_away(story):
    """Each span of each trace comes, those of the time without a gateway too: the agent kept and retried them."""
    ids = {(span.trace_id.hex(), span.span_id) for _, span in story.received.spans() if is_of(story.traced, span)}
    assert story.early < len(ids)
    assert Counter(trace for trace, _ in ids) == story.traced


def test_spans_arrive_that_are_larger_together_than_a_receiver_takes(story):
    """What has gathered while the gateway was away is sent in parts that it takes: more than 4 MiB would be dropped."""
    large = [span for _, span in story.received.spans() if len(otlp.values(span).get("text", "")) == LARGE_SIZE]
    assert len({span.span_id for span in large}) == LARGE
    assert sum(span.ByteSize() for span in large) > 2 * 4 * 2**20 * 0.9


def test_spans_arrive_with_what_the_process_wrote(story):
    """Attributes, status and resource of a model's call are what its process gave them."""
    runs = [
        (of, span) for of, span in story.received.spans() if span.name == "run ranker" and is_of(story.traced, span)
    ]
    assert len(runs) == story.calls
    assert {of["service.name"] for of, _ in runs} == {"ranking"}
    for _, span in runs:
        attributes = otlp.values(span)
        assert attributes[semconv.ENGINE] == "onnxruntime"
        assert attributes[semconv.MODEL] == "ranker"
        assert attributes[semconv.BATCH_SIZE] == 2
    failed = [span for _, span in runs if span.status.code == span.status.STATUS_CODE_ERROR]
    assert len(failed) == story.calls / 5
    types = {otlp.values(span)[semconv.ERROR_TYPE].rpartition(".")[2] for span in failed}
    assert types == {"InvalidArgument"}


def test_what_the_process_kept_by_its_tail_says_so_behind_the_gateway(story):
    """Of a process that samples nothing, failed calls come, each as one call, with the rest of their traces as none."""
    kept = [span for _, span in story.received.spans() if is_of(story.failed, span)]
    assert {otlp.values(span)[semconv.KEPT_BY] for span in kept} == {"error"}
    counts = {(span.name, otlp.values(span)[semconv.ADJUSTED_COUNT]) for span in kept}
    assert counts == {("run ranker", 1), ("tokenize tokenizer", 0), ("request", 0)}
    others = {span.name for _, span in story.received.spans() if not is_of(set(story.traced) | story.failed, span)}
    assert others == {"load ranker"}


def test_metrics_arrive_where_prometheus_takes_them(story):
    """The histogram of calls counts every call in the end, with its labels."""
    attributes = [otlp.values(point) for point in story.received.points(semconv.CALL_DURATION)]
    assert counted(story) == story.calls
    assert {each[semconv.MODEL] for each in attributes} >= {"ranker", "tokenizer"}


def test_events_of_findings_arrive(story):
    """That calls fail was found in the process, and is a log record behind the gateway, with its kind and model."""
    opened = [otlp.values(each) for each in story.received.records() if each.event_name == semconv.FINDING_OPENED]
    found = {(each[semconv.FINDING_EVENT_KIND], each[semconv.MODEL]) for each in opened}
    assert found & {("error_burst", "ranker"), ("slo_burn", "ranker")}


def test_the_collectors_own_metrics_have_the_names_that_dashboards_ask_for(story):
    """What the dashboards ask of the Collectors is exposed by one of the tiers."""
    asked = {name for each in names.asked() for name in names.names_in(each.plain)[0] if name.startswith("otelcol_")}
    assert asked
    assert asked - story.own == set()


@pytest.mark.skipif(
    COLLECTOR is not None and "file_storage" not in COLLECTOR.knows["extensions"],
    reason="this Collector has no file_storage, which keeps the queue on disk: take otelcol-contrib",
)
def test_what_waits_on_disk_outlives_the_agent(onnx_path, tmp_path):
    """What an agent took in and could not hand over before it was killed is handed over by the next one."""
    with ExitStack() as stack:
        received, traces, metrics = stack.enter_context(otlp.receiving())
        story = Story(received=received)
        with served(onnx_path, tmp_path) as process:
            with tier("agent", 8888, tmp_path, OTEL_GATEWAY_ENDPOINT=f"{HOST}:14317") as agent:
                story.traced = serve(process, 50)
                agent.kill()
            stack.enter_context(tier("agent", 8888, tmp_path, OTEL_GATEWAY_ENDPOINT=f"{HOST}:14317"))
        behind = {"OTEL_GATEWAY_PEERS": HOST, "OTEL_TRACES_ENDPOINT": traces, "OTEL_PROMETHEUS_ENDPOINT": metrics}
        stack.enter_context(tier("gateway", 8889, tmp_path, **behind))
        collector.until(lambda: arrived(story) >= set(story.traced), "what the killed agent had comes")


def is_of(traces, span):
    """Whether a span belongs to one of these traces."""
    return span.trace_id.hex() in traces


def arrived(story):
    """Traces of which all spans have come."""
    counts = Counter(span.trace_id.hex() for _, span in story.received.spans())
    return {trace for trace, count in counts.items() if count >= story.traced.get(trace, SPANS)}


def counted(story):
    """How many calls of the model the process that samples all has counted by its last metrics."""
    last = {}
    for of, point in story.received.points_of(semconv.CALL_DURATION):
        attributes = otlp.values(point)
        if attributes[semconv.MODEL] == "ranker" and attributes[semconv.OPERATION] == "run":
            key = (of["service.instance.id"], attributes.get(semconv.ERROR_TYPE))
            last[key] = point.count
    by_process = Counter()
    for (process, _), count in last.items():
        by_process[process] += count
    return max(by_process.values(), default=0)


@contextmanager
def tier(name, port, folder, **environment):
    """One tier as its file says, as far as this Collector can; logs of the gateway go where its traces go."""
    config = collector.reduced(collector.merged([f"{name}.yaml"]), COLLECTOR)
    if name == "gateway":
        config["service"]["pipelines"]["logs"]["exporters"] = ["otlp/traces"]
    environment |= {"OTEL_AGENT_HOST": HOST, "OTEL_GATEWAY_HOST": HOST, "OTEL_AGENT_STORAGE": str(folder / "queue")}
    with collector.running(COLLECTOR, config, environment, folder / name, f"{HOST}:{port}") as process:
        yield process


@contextmanager
def served(onnx_path, folder, **environment):
    """The serving process under OpenTelemetry's launcher."""
    launcher = Path(sys.executable).with_name("opentelemetry-instrument")
    command = [launcher, sys.executable, Path(__file__).with_name("serving.py"), onnx_path]
    with (folder / "serving.log").open("a") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **SENDING, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        with process:
            yield process
            process.stdin.close()
            assert process.wait(60) == 0, (folder / "serving.log").read_text()[-3000:]


def serve(process, requests, size=100):
    """Have requests of a size served and sent: how many spans each trace has, in their order."""
    process.stdin.write(f"{requests} {size}\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    assert answer["sent"]
    return answer["traced"]
