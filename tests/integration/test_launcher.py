"""Programs that know nothing of us, under `opentelemetry-instrument`, with a real OTLP receiver."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

IMPORTS = """
import sys
engines = {"torch", "transformers", "onnxruntime"} & set(sys.modules)
threads = __import__("threading").active_count()
print(sorted(engines))
"""

SERVE = """
import onnxruntime, sys, torch, numpy
session = onnxruntime.InferenceSession(sys.argv[1] if len(sys.argv) > 1 else "{path}")
for _ in range(3):
    session.run(None, {{"rows": numpy.ones((2, 3), numpy.float32)}})
torch.nn.Linear(3, 1).eval()(torch.ones(5, 3))
"""

YAML = """
file_format: "1.0"
resource: {{attributes: [{{name: process.pid, value: 1}}]}}
tracer_provider:
  processors: [{{batch: {{exporter: {{otlp_http: {{endpoint: "{endpoint}/v1/traces"}}}}}}}}]
meter_provider:
  readers: [{{periodic: {{exporter: {{otlp_http: {{endpoint: "{endpoint}/v1/metrics"}}}}}}}}]
instrumentation/development:
  python:
    inference_torch: {{training: true}}
    inference_onnxruntime: {{max_models: 1}}
"""


@pytest.fixture
def serve(onnx_path):
    """A program with three runs of `ranker` and one forward of a linear module."""
    return SERVE.format(path=onnx_path)


def test_imports_no_engine(run):
    """Under the launcher a program that uses no engine imports none."""
    assert run(IMPORTS).stdout.strip() == "[]"


def test_observes_where_no_engine_is_instrumented(run, receiver):
    """What `observe()` measures needs none: a program may ask a model elsewhere, and have no engine installed."""
    run(
        "import otel_inference\nwith otel_inference.observe('remote-llm', 'ask'): pass",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=",".join(
            f"inference_{name}"
            for name in ("torch", "transformers", "onnxruntime", "sentence_transformers", "llama_cpp")
        ),
    )

    assert [name for _, name, _ in receiver.spans()] == ["ask remote-llm"]


def test_sends_spans_and_metrics(run, receiver, serve):
    """Without a code change spans and metrics of every call arrive at the receiver."""
    run(serve)

    names = [name for _, name, _ in receiver.spans()]
    assert names == ["load ranker", "run ranker", "run ranker", "run ranker", "forward Linear"]
    points = receiver.metrics()["inference.call.duration"].histogram.data_points
    assert sorted(point.count for point in points) == [1, 3]
    assert all(len(point.explicit_bounds) > 15 and point.explicit_bounds[0] < 1e-4 for point in points)
    assert {len(point.exemplars) > 0 for point in points} == {True}
    assert {"inference.batch.size", "inference.model.load.duration", "inference.active_calls"} <= set(
        receiver.metrics()
    )


def test_leaves_out_what_is_disabled(run, receiver, serve):
    """The launcher's own switch, by entry point name, and ours, by engine, leave engines out."""
    run(serve, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="inference_onnxruntime")
    run(serve, OTEL_INFERENCE_ENGINES="torch")

    assert [name for _, name, _ in receiver.spans()] == ["forward Linear"] * 2


def test_takes_options_from_declarative_configuration(run, receiver, onnx_path, tmp_path):
    """Options under each instrumentor's name are in force, whichever of them comes first."""
    (tmp_path / "otel.yaml").write_text(YAML.format(endpoint=receiver.endpoint))
    program = SERVE.format(path=onnx_path) + "\ntorch.nn.Bilinear(1, 1, 1)(torch.ones(2, 1), torch.ones(2, 1))\n"
    run(program, OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml"))

    names = [name for _, name, _ in receiver.spans()]
    assert names == ["load ranker", *["run ranker"] * 3, "forward other", "forward other"]


def test_reports_a_bad_option_and_goes_on(run, receiver, onnx_path, tmp_path):
    """A wrong option in the file is one line about it; the program and the other engines go on."""
    text = YAML.format(endpoint=receiver.endpoint).replace("max_models: 1", "max_models: -1")
    (tmp_path / "otel.yaml").write_text(text)
    result = run(SERVE.format(path=onnx_path), OTEL_CONFIG_FILE=str(tmp_path / "otel.yaml"))

    assert "max_models is -1; expected" in result.stderr
    assert "forward Linear" in [name for _, name, _ in receiver.spans()]


def test_runs_with_the_sdk_disabled_or_the_collector_down(run, serve):
    """With no SDK, or nobody listening, the program runs and ends as without us."""
    run(serve, OTEL_SDK_DISABLED="true")
    run(serve, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")


def test_counts_forked_and_spawned_workers(run, receiver, onnx_path):
    """Workers made by fork and by spawn each report their own calls."""
    program = f"""
import multiprocessing, os
from opentelemetry import metrics, trace

def work():
    import numpy, onnxruntime
    session = onnxruntime.InferenceSession({str(onnx_path)!r})
    session.run(None, {{"rows": numpy.ones((1, 3), numpy.float32)}})
    trace.get_tracer_provider().force_flush()

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        worker = multiprocessing.get_context(method).Process(target=work)
        worker.start()
        worker.join()
        assert worker.exitcode == 0
"""
    run(program)

    names = [name for _, name, _ in receiver.spans()]
    assert names == ["load ranker", "run ranker"] * 2
    assert len({pid for pid, _, _ in receiver.spans()}) == 2


def test_leaves_magika_as_it_is(run, receiver):
    """`magika`, which nobody here wrote, prints and exits the same under the launcher, one span a run."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [str(library / name) for name in ("abc.py", "json/decoder.py")]
    command = [sys.executable, "-m", "magika.cli.magika_client", *files]
    bare = run(command=command, launcher=False, check=False)
    ours = run(command=command, check=False)

    assert (ours.stdout, ours.stderr, ours.returncode) == (bare.stdout, bare.stderr, bare.returncode)
    spans = [(name, attributes.get("error.type")) for _, name, attributes in receiver.spans()]
    assert spans[0] == ("load model", None)
    assert set(spans[1:]) == {("run model", None)}
    batches = [attributes["inference.batch.size"] for _, name, attributes in receiver.spans() if name == "run model"]
    assert sum(batches) == 2
    assert ours.returncode == 0
    refused = [run(command=[*command, "no such file"], launcher=launcher, check=False) for launcher in (False, True)]
    assert {(result.stdout, result.stderr, result.returncode) for result in refused} == {
        (refused[0].stdout, refused[0].stderr, 1)
    }
