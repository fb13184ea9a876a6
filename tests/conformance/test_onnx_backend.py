"""The tests that come with the `onnx` package give the same results through onnxruntime with and without us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

RUNNER = Path(__file__).parent / "run_onnx_backend.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the suite gave without us and with us, each in a process of its own, both at once."""
    folder = tmp_path_factory.mktemp("onnx")
    outputs = [folder / "bare.json", folder / "ours.json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COV_"))}
    environment["OTEL_INFERENCE_STRICT"] = "1"
    runs = [
        subprocess.Popen(
            [sys.executable, str(RUNNER), str(output), *more], env=environment, stderr=subprocess.PIPE, text=True
        )
        for output, more in zip(outputs, [[], ["instrumented"]], strict=True)
    ]
    errors = [run.communicate(timeout=170)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors[1][-2000:]
    return [json.loads(output.read_text()) for output in outputs]


def test_gives_the_same_results(results):
    """Every test passes, fails with the same exception or is skipped as without us, and runs as many sessions."""
    bare, ours = ({name: row[:2] for name, row in result["tests"].items()} for result in results)

    assert {name: (row, ours.get(name)) for name, row in bare.items() if ours.get(name) != row} == {}
    assert ours.keys() == bare.keys()
    counts = Counter(outcome.partition(":")[0] for outcome, _ in bare.values())
    assert counts["passed"] > 1500
    assert counts["failed"] < counts["passed"] / 4


def test_counts_every_run(results):
    """Every run of every test is one span and one measurement, and no test passes without one."""
    bare, ours = results

    assert {name: row for name, row in ours["tests"].items() if row[1] != row[2]} == {}
    assert [name for name, (outcome, _, spans) in ours["tests"].items() if outcome == "passed" and spans == 0] == []
    assert (ours["counted"], bare["counted"]) == (ours["runs"], 0)
    assert ours["runs"] == bare["runs"] > 1500
