"""Every module of torch's own database gives the same bits, gradients and exceptions with and without us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parent / "run_torch_modules.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the modules gave without us and with us, each in a process of its own, both at once."""
    pytest.importorskip("expecttest", reason="torch's module database imports it")
    folder = tmp_path_factory.mktemp("torch")
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


def test_gives_the_same_bits_and_exceptions(results):
    """Outputs, gradients and exceptions of every module on every input, in both modes, are as without us."""
    bare, ours = ({name: row[:2] for name, row in result.items()} for result in results)

    assert {name: (row, ours.get(name)) for name, row in bare.items() if ours.get(name) != row} == {}
    assert ours.keys() == bare.keys()
    failed = [name for name, (outcome, _) in bare.items() if ": " in outcome]
    assert len(bare) > 3000
    assert len(failed) < len(bare) / 10


@pytest.mark.parametrize("mode", ["eval", "training"])
def test_counts_every_call_in_eval_mode(results, mode):
    """In eval mode each call is one span, failed ones included; in training mode there is none."""
    _, ours = results
    rows = {name: row for name, row in ours.items() if name.split()[1] == mode}

    expected = {name: calls if mode == "eval" else 0 for name, (_, calls, _) in rows.items()}
    assert {name: spans for name, (_, _, spans) in rows.items()} == expected
    assert len(rows) > 1500
