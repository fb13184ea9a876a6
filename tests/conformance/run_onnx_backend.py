"""Runs the tests that come with the `onnx` package through `onnxruntime.backend`, with or without us.

`run_onnx_backend.py OUTPUT [instrumented]` writes what became of every test, as JSON: the outcome, how often a session
was run, counted below our layer, and how many spans of runs ended.
"""

from __future__ import annotations

import io
import json
import sys
import unittest
import warnings
from contextlib import redirect_stdout
from pathlib import Path

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

import otel_inference

DOWNLOADED = "resnet50|vgg19|densenet|squeezenet|shufflenet|inception|alexnet|zfnet512"


class Runs:
    """How often a session was run so far."""

    def __init__(self):
        self.count = 0

    def watch(self):
        """Count from below: what is put around `Session.run` afterwards calls this."""
        from onnxruntime.capi.onnxruntime_inference_collection import Session

        original = Session.run

        def run(session, *args, **kwargs):
            self.count += 1
            return original(session, *args, **kwargs)

        Session.run = run


class Spans(SpanProcessor):
    """How many spans of runs ended so far, and keeps none."""

    def __init__(self):
        self.count = 0

    def on_end(self, span):
        """Count it."""
        self.count += span.attributes["inference.operation"] == "run"


class Outcomes(unittest.TestResult):
    """One row a test: outcome, runs, spans."""

    def __init__(self, runs, spans):
        super().__init__()
        self.runs = runs
        self.spans = spans
        self.rows = {}

    def startTest(self, test):  # noqa: D102, N802
        super().startTest(test)
        self._before = (self.runs.count, self.spans.count)

    def _note(self, test, outcome):
        runs, spans = self._before
        self.rows[test.id()] = [outcome, self.runs.count - runs, self.spans.count - spans]

    def addSuccess(self, test):  # noqa: D102, N802
        self._note(test, "passed")

    def addSkip(self, test, reason):  # noqa: D102, N802
        self._note(test, f"skipped: {reason}")

    def addFailure(self, test, err):  # noqa: D102, N802
        self._note(test, f"failed: {err[0].__name__}")

    addError = addFailure  # noqa: N815


def suite():
    """All tests that need no download and no accelerator."""
    import onnxruntime.backend
    from onnx.backend.test import BackendTest

    backend_test = BackendTest(onnxruntime.backend, __name__)
    backend_test.exclude(rf"_cuda$|{DOWNLOADED}")
    return backend_test.test_suite


def counted(reader):
    """Runs in `inference.call.duration`."""
    data = reader.get_metrics_data()
    return sum(
        point.count
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "inference.call.duration"
        for point in metric.data.data_points
        if point.attributes["inference.operation"] == "run"
    )


def main(output, instrumented=None):
    """Run them all."""
    warnings.simplefilter("ignore")
    runs, spans, reader = Runs(), Spans(), InMemoryMetricReader()
    runs.watch()
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(spans)
    meter_provider = MeterProvider([reader], shutdown_on_exit=False)
    if instrumented:
        otel_inference.instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)
    outcomes = Outcomes(runs, spans)
    with redirect_stdout(io.StringIO()):
        suite().run(outcomes)
    Path(output).write_text(json.dumps({"tests": outcomes.rows, "runs": runs.count, "counted": counted(reader)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
