"""The demo: what its program writes arrives whole."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

RUN = Path(__file__).parents[2] / "examples" / "demo" / "run.py"

THREE_WRITERS = """
import sys, threading

def write(start, size):
    for number in range(100):
        sys.stdout.write(start + "x" * size + "\\n")
        sys.stdout.flush()

sizes = {'{"resourceSpans"': 200_000, '{"resourceMetrics"': 10_000, "said": 20}
threads = [threading.Thread(target=write, args=each) for each in sizes.items()]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The demo's own program, that keeps its files in a folder of the test's."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("demo_run", RUN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.FOLDER.mkdir()
    return module


def test_lines_longer_than_a_pipe_holds_arrive_whole(demo, monkeypatch):
    """Spans, metrics and progress, written at once by three threads, are sorted apart without the loss of a line."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    command = [sys.executable, "-c", THREE_WRITERS]
    with subprocess.Popen(command, env=demo.environment(None), stdout=subprocess.PIPE, text=True) as writers:
        demo.sort(writers, Console(quiet=True))

    spans, metrics = demo.TRACES.read_text().splitlines(), demo.METRICS.read_text().splitlines()
    assert {len(line) for line in spans} == {200_000 + len('{"resourceSpans"')}
    assert {len(line) for line in metrics} == {10_000 + len('{"resourceMetrics"')}
    assert (len(spans), len(metrics)) == (100, 100)
