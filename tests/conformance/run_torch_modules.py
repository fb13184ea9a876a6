"""Runs every module of torch's own database on its inputs, in eval and in training mode, with or without us.

`run_torch_modules.py OUTPUT [instrumented]` writes what came of every input, as JSON: a digest of the bits of all
outputs and gradients, or the exception; how often the module was called; how many spans of forwards ended.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from pathlib import Path

import torch
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

import otel_inference


class Spans(SpanProcessor):
    """How many spans of forwards ended so far, and keeps none."""

    def __init__(self):
        self.count = 0

    def on_end(self, span):
        """Count it."""
        self.count += span.attributes["inference.operation"] == "forward"


def tensors(value):
    """All tensors in nested outputs."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [found for item in value for found in tensors(item)] if isinstance(value, (list, tuple)) else []


def digest(value):
    """Types, shapes and bits of nested outputs."""
    found = hashlib.sha256(type(value).__name__.encode())
    for tensor in tensors(value):
        dense = tensor.detach().to_dense() if tensor.layout is not torch.strided else tensor.detach()
        found.update(f"{dense.dtype} {tuple(dense.shape)} {tensor.requires_grad}".encode())
        found.update(dense.contiguous().numpy().tobytes())
    return found.hexdigest()


def inputs_of(info, *, training):
    """The database's inputs of one module, those that must fail included, made from the same seed."""
    torch.manual_seed(0)
    wanted = {"device": "cpu", "dtype": torch.float32, "requires_grad": training, "training": training}
    yield from info.module_inputs_func(info, **wanted)
    if info.module_error_inputs_func is not None:
        yield from (item.module_error_input for item in info.module_error_inputs_func(info, **wanted))


def outcome_of(info, item, *, training):
    """What one module makes of one input: digests of outputs and gradients, else the exception; and its calls."""
    torch.manual_seed(1)
    calls = 0
    try:
        module = info.module_cls(*item.constructor_input.args, **item.constructor_input.kwargs)
        module.train(training)
        calls = 1
        output = module(*item.forward_input.args, **item.forward_input.kwargs)
        outcome = digest(output)
        loss = sum(tensor.float().sum() for tensor in tensors(output) if tensor.requires_grad)
        if isinstance(loss, torch.Tensor):
            loss.backward()
            outcome += " " + digest([p.grad for p in module.parameters() if p.grad is not None])
    except Exception as error:  # noqa: BLE001 - the same one is expected with and without us
        return f"{type(error).__name__}: {error}", calls
    return outcome, calls


def main(output, instrumented=None):
    """Run them all."""
    # Here and not above: it changes torch's global settings, in whoever imports this file.
    from torch.testing._internal.common_modules import module_db

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    spans = Spans()
    if instrumented:
        tracer_provider = TracerProvider(shutdown_on_exit=False)
        tracer_provider.add_span_processor(spans)
        otel_inference.instrument(tracer_provider=tracer_provider)
    rows = {}
    for info in module_db:
        for training in (False, True):
            for number, item in enumerate(inputs_of(info, training=training)):
                before = spans.count
                outcome, calls = outcome_of(info, item, training=training)
                mode = "training" if training else "eval"
                rows[f"{info.name} {mode} {number} {item.desc}"] = [outcome, calls, spans.count - before]
    Path(output).write_text(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
