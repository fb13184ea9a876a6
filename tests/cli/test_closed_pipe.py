"""The command line as the first half of a pipe whose second half has read enough."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from otel_inference.cli.main import UNREAD

PROGRAM = (
    "import importlib.util, sys\n"
    "if sys.argv.pop(1) == 'plain':\n"
    "    found = importlib.util.find_spec\n"
    "    importlib.util.find_spec = lambda name: None if name == 'rich' else found(name)\n"
    "from otel_inference.cli.main import main\n"
    "sys.exit(main())\n"
)
CALL = {
    "traceId": "a" * 32,
    "spanId": "b" * 16,
    "name": "forward m",
    "startTimeUnixNano": "1",
    "endTimeUnixNano": "2",
    "attributes": [
        {"key": f"inference.{key}", "value": {"stringValue": value}}
        for key, value in {"engine": "torch", "operation": "forward", "model": "m"}.items()
    ],
}


@pytest.mark.parametrize(("command", "style"), [("check", "table"), ("check", "plain"), ("report", "table")])
def test_it_ends_quietly_when_nobody_reads_on(tmp_path, monkeypatch, command, style):
    """Nothing is printed to standard error, and the exit code is that of a closed pipe."""
    file = tmp_path / "traces.jsonl"
    file.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [CALL]}]}]}) + "\n")
    for signal in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    arguments = [command, *([str(file)] if command == "report" else [])]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, style, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (said, process.returncode) == ("", UNREAD)
