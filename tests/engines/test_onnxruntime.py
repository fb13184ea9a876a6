"""onnxruntime: sessions and their runs."""

from __future__ import annotations

import importlib.metadata

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
