"""onnxruntime: sessions and their runs."""

from __future__ import annotations

import importlib.metadata
import threading

import numpy as np
import onnxruntime
import pytest

from otel_inference import name_model

ROWS = {"rows": np.ones((2, 3), np.float32)}


def test_describes_a_run(telemetry, session):
    """One span for a run, with the file's stem as the model and the provider as the device."""
    (doubled,) = session.run(None, ROWS)

    span = telemetry.spans()[-1]
    assert doubled.sum() == 12.0
    assert span.name == "run ranker"
    assert dict(span.attributes) == {
        "inference.engine": "onnxruntime",
        "inference.engine.version": importlib.metadata.version("onnxruntime"),
        "inference.operation": "run",
        "inference.model": "ranker",
        "inference.device": "CPUExecutionProvider",
        "inference.batch.size": 2,
        "inference.input.size": 6,
        "inference.cold": True,
    }


def test_measures_nested_lists(telemetry, session):
    """Rows given as lists have the size of their numbers."""
    session.run(None, {"rows": [[1.0, 2.0, 3.0]] * 4})

    attributes = telemetry.spans()[-1].attributes
    assert (attributes["inference.batch.size"], attributes["inference.input.size"]) == (4, 12)


def test_describes_a_load(telemetry, onnx_path):
    """Building a session from a file is a load: a span and a load duration, and no call."""
    onnxruntime.InferenceSession(onnx_path)

    (span,) = telemetry.spans()
    (point,) = telemetry.points("inference.model.load.duration")
    assert span.name == "load ranker"
    assert "inference.cold" not in span.attributes
    assert dict(point.attributes) == {"inference.engine": "onnxruntime", "inference.model": "ranker"}
    assert telemetry.points("inference.call.duration") == []


def test_names_a_model_of_bytes_by_its_graph(telemetry, onnx_path):
    """A session built from bytes has the name of its graph, in its load and in its runs."""
    session = onnxruntime.InferenceSession(onnx_path.read_bytes())
    session.run(None, ROWS)

    assert [span.name for span in telemetry.spans()] == ["load doubler", "run doubler"]
    assert telemetry.spans()[0].attributes["inference.model"] == "doubler"


def test_takes_the_given_name(telemetry, session):
    """`name_model` names a session."""
    name_model(session, "scorer")
    session.run(None, input_feed=ROWS)

    assert telemetry.spans()[-1].name == "run scorer"


def test_reports_a_failed_load(telemetry):
    """A load that fails is a failed span, and no load duration."""
    with pytest.raises(Exception, match="protobuf") as caught:
        onnxruntime.InferenceSession(b"not a model", providers=["CPUExecutionProvider"])

    (span,) = telemetry.spans()
    assert span.attributes["error.type"].endswith(type(caught.value).__name__)
    assert telemetry.points("inference.model.load.duration") == []


def test_leaves_wrong_arguments_to_the_library(telemetry, session):
    """A call that onnxruntime refuses is refused in its own words, whatever the arguments."""
    with pytest.raises(TypeError, match="input_feed"):
        session.run(None)
    with pytest.raises(ValueError, match="rows"):
        session.run(None, {"wrong": ROWS["rows"]})
    with pytest.raises(AttributeError):
        session.run(None, [1, 2])

    assert [span.attributes["inference.model"] for span in telemetry.spans()[1:]] == ["ranker"] * 3


def test_describes_a_run_with_ort_values(telemetry, session):
    """Values that live with onnxruntime have a shape too."""
    value = onnxruntime.OrtValue.ortvalue_from_numpy(ROWS["rows"])
    (result,) = session.run_with_ort_values(["doubled"], {"rows": value})
    session.run(None, {"rows": value})

    spans = telemetry.spans()[1:]
    assert result.numpy().sum() == 12.0
    assert [span.attributes["inference.batch.size"] for span in spans] == [2, 2]
    assert [span.attributes["inference.input.size"] for span in spans] == [6, 6]


def test_counts_a_run_with_a_binding(telemetry, session):
    """A run over bound buffers is a run like any other."""
    binding = session.io_binding()
    binding.bind_cpu_input("rows", ROWS["rows"])
    binding.bind_output("doubled")
    session.run_with_iobinding(binding)

    assert binding.copy_outputs_to_cpu()[0].sum() == 12.0
    assert telemetry.spans()[-1].name == "run ranker"


class Answer:
    """Waits for an asynchronous run."""

    def __init__(self):
        self.ready = threading.Event()
        self.seen = None

    def __call__(self, results, user_data, message):
        """Take what onnxruntime gives."""
        self.seen = (None if message else results[0].sum(), user_data, message)
        self.ready.set()


@pytest.fixture
def asynchronous(onnx_path):
    """A session with the threads that an asynchronous run needs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(onnx_path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("keywords", [False, True])
def test_ends_an_asynchronous_run_in_its_callback(telemetry, asynchronous, keywords):
    """The call ends before the host's callback runs, which gets what it always gets."""
    answer, mark = Answer(), object()
    if keywords:
        asynchronous.run_async(None, ROWS, callback=answer, user_data=mark)
    else:
        asynchronous.run_async(None, ROWS, answer, mark)
    assert answer.ready.wait(10)

    assert answer.seen == (12.0, mark, "")
    assert telemetry.spans()[-1].name == "run ranker"
    assert telemetry.count("inference.call.duration") == 1


def test_reports_a_failed_asynchronous_run(telemetry, asynchronous):
    """An asynchronous run that fails says so in its callback, and in its span."""
    answer = Answer()
    asynchronous.run_async(None, {"rows": np.ones((2, 2), np.float32)}, answer, None)
    assert answer.ready.wait(10)

    assert answer.seen[2]
    assert telemetry.spans()[-1].attributes["error.type"] == "RuntimeError"


def test_ends_an_asynchronous_run_that_does_not_start(telemetry, asynchronous):
    """An asynchronous run refused at once ends at once."""
    with pytest.raises(ValueError, match="rows"):
        asynchronous.run_async(None, {"wrong": ROWS["rows"]}, Answer(), None)

    assert telemetry.spans()[-1].attributes["error.type"] == "ValueError"
    assert telemetry.points("inference.active_calls")[0].value == 0
