"""Small real models, telemetry kept in memory, and the assertion that nothing of ours is left behind."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
from opentelemetry import trace

from otel_inference import guard, nesting, runtime
from otel_inference.config import Config
from otel_inference.testing import recorded

STRICT = Config(strict=True, resources=False)


@pytest.fixture(autouse=True)
def _nothing_left():
    """Each test starts and ends uninstrumented, outside any call, without a failure of our own."""
    before = guard.error_counts()
    yield
    runtime.uninstrument()
    guard.set_strict(strict=False)
    assert nesting.current.get() is None
    assert not trace.get_current_span().get_span_context().is_valid
    assert guard.error_counts() == before


@pytest.fixture
def telemetry():
    """All engines instrumented, spans and metrics kept in memory, our own failures raised."""
    with recorded(config=STRICT) as telemetry:
        yield telemetry


@pytest.fixture(scope="session")
def onnx_path(tmp_path_factory):
    """An ONNX model `ranker.onnx` that doubles a float matrix of any number of rows."""
    import onnx
    from onnx import TensorProto, helper

    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", 3])
    doubled = helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Add", ["rows", "rows"], ["doubled"])], "doubler", [rows], [doubled])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("models") / "ranker.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def session(onnx_path):
    """An onnxruntime session on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx_path, options, providers=["CPUExecutionProvider"])


@pytest.fixture
def linear():
    """A torch module of one layer, in eval mode."""
    import torch

    return torch.nn.Linear(4, 2).eval()


@pytest.fixture
def gpt2():
    """A causal language model of two layers with random weights, in eval mode."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=64, n_positions=64, bos_token_id=0, eos_token_id=1)
    config.pad_token_id = 2
    return GPT2LMHeadModel(config).eval()
