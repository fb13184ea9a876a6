"""What is called: models from ten microseconds to a generation, and how a user would describe a call of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
import transformers

from otel_inference import semconv

if TYPE_CHECKING:
    from collections.abc import Callable

Attributes = dict[str, Any]

SUBMODULES = 200


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model, one call of it, and what a user who writes spans by hand would put on them."""

    title: str
    call: Callable[[], Any]
    engine: str
    operation: str
    model: str
    describe: Callable[[], Attributes]
    """Attributes known before the call, beside engine, operation and model."""
    describe_result: Callable[[Any], Attributes] | None = None
    noise: float = 1.0
    """How much longer than the smallest subjects it takes to tell its variants apart."""


def subjects() -> list[Subject]:
    """All of them, smallest first."""
    torch.set_num_threads(1)
    linear = torch.nn.Linear(8, 8).eval()
    return [
        _onnx("onnx 10 us", "tiny", layers=1, width=8),
        _onnx("onnx 1 ms", "small", layers=4, width=384, noise=2.0),
        _torch("torch Linear", linear),
        _torch(f"torch, {SUBMODULES} submodules", Stack(), noise=2.0),
        _generation(),
    ]


class Stack(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to the checker
    """Blocks of a few layers, 200 modules in all beside itself."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Identity())
            for _ in range(SUBMODULES // 4)
        )
        self.eval()

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Each block in turn."""
        for block in self.blocks:
            value = block(value)
        return value


def _onnx(title: str, name: str, *, layers: int, width: int, noise: float = 1.0) -> Subject:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # all of its work on the thread whose clock is read
    session = onnxruntime.InferenceSession(
        _onnx_bytes(name, layers, width), options, providers=["CPUExecutionProvider"]
    )
    rows = np.random.default_rng(0).standard_normal((width // 4, width), dtype=np.float32)
    feed = {"rows": rows}

    def describe() -> Attributes:
        return {
            semconv.ENGINE_VERSION: onnxruntime.__version__,
            semconv.DEVICE: session.get_providers()[0],
            semconv.BATCH_SIZE: rows.shape[0],
            semconv.INPUT_SIZE: rows.size,
            semconv.COLD: False,
        }

    return Subject(
        title=title,
        call=lambda: session.run(None, feed),
        engine="onnxruntime",
        operation=semconv.RUN,
        model=name,
        describe=describe,
        noise=noise,
    )


def _onnx_bytes(name: str, layers: int, width: int) -> bytes:
    """A chain of matrix products."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).standard_normal((width, width), dtype=np.float32) / width**0.5
    values = ["rows", *(f"hidden_{layer}" for layer in range(1, layers)), "result"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [values[layer], "weights"], [values[layer + 1]]) for layer in range(layers)],
        name,
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    serialized: bytes = model.SerializeToString()
    return serialized


def _torch(title: str, module: torch.nn.Module, noise: float = 1.0) -> Subject:
    rows = torch.ones(4, 8)

    def call() -> torch.Tensor:
        with torch.inference_mode():
            result: torch.Tensor = module(rows)
            return result

    def describe() -> Attributes:
        return {
            semconv.ENGINE_VERSION: torch.__version__,
            semconv.DEVICE: str(rows.device),
            semconv.BATCH_SIZE: rows.shape[0],
            semconv.INPUT_SIZE: rows.numel(),
            semconv.COLD: False,
        }

    return Subject(
        title=title,
        call=call,
        engine="torch",
        operation=semconv.FORWARD,
        model=type(module).__name__,
        describe=describe,
        noise=noise,
    )


def _generation() -> Subject:
    """Random weights: what is generated means nothing, and the end-of-text token cannot cut it short."""
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=32, vocab_size=64, n_positions=32, bos_token_id=0, eos_token_id=None, pad_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.arange(1, 9).reshape(1, 8)
    mask = torch.ones_like(ids)

    def describe() -> Attributes:
        return {
            semconv.ENGINE_VERSION: transformers.__version__,
            semconv.DEVICE: str(ids.device),
            semconv.BATCH_SIZE: ids.shape[0],
            semconv.INPUT_SIZE: ids.numel(),
            semconv.COLD: False,
            semconv.GEN_AI_OPERATION: semconv.TEXT_COMPLETION,
            semconv.GEN_AI_PROVIDER: "transformers",
            semconv.GEN_AI_MODEL: "GPT2LMHeadModel",
            semconv.GEN_AI_MAX_TOKENS: 8,
        }

    def describe_result(result: torch.Tensor) -> Attributes:
        return {
            semconv.GEN_AI_INPUT_TOKENS: ids.numel(),
            semconv.GEN_AI_OUTPUT_TOKENS: result.shape[0] * (result.shape[1] - ids.shape[1]),
        }

    return Subject(
        title="generate, 8 tokens",
        call=lambda: model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False),
        engine="transformers",
        operation=semconv.GENERATE,
        model="GPT2LMHeadModel",
        describe=describe,
        describe_result=describe_result,
        noise=5.0,
    )
