"""A small serving process for the Collectors: a real model, instrumented by the launcher, sending OTLP.

Each line on standard input is a number of requests to serve and how many characters each brings; what was traced is
answered as a line of JSON, spans by trace id. Every fifth request fails. It ends when standard input does.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress

import numpy as np
import onnxruntime
from opentelemetry import trace

import otel_inference

tracer = trace.get_tracer("serving")


def request(session: onnxruntime.InferenceSession, size: int, *, failing: bool) -> tuple[str, int]:
    """Serve one: its trace id, and how many spans its trace has."""
    with tracer.start_as_current_span("request", attributes={"text": "x" * size}) as span:
        with otel_inference.observe("tokenizer", "tokenize", batch_size=2):
            pass
        rows = np.zeros((2, 4 if failing else 3), dtype=np.float32)
        with suppress(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            session.run(None, {"rows": rows})
        return trace.format_trace_id(span.get_span_context().trace_id), 3


def main() -> None:
    """Serve until standard input ends."""
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    for line in sys.stdin:
        requests, size = map(int, line.split())
        traced = dict(request(session, size, failing=number % 5 == 0) for number in range(requests))
        otel_inference.evaluate()
        sent = otel_inference.force_flush(30.0)
        sys.stdout.write(json.dumps({"traced": traced, "sent": sent}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
