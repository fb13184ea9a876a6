"""Ended calls are written off their path, all of them, once, and never late for who looks."""

from __future__ import annotations

import subprocess
import sys
import threading

from otel_inference import Config, observe, uninstrument
from otel_inference.telemetry import writer
from otel_inference.telemetry.writer import CallWriter
from otel_inference.testing import recorded


class Slow:
    """A writer's end that can be stopped."""

    def __init__(self):
        self.written = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, call, ended_ns):
        """Write."""
        self.go_on.wait(10)
        self.written.append(call)


def test_writes_in_order_without_being_asked():
    """What is put in is written soon by the writer's own thread."""
    done = threading.Event()
    written = []
    calls = CallWriter(lambda call, _: (written.append(call), done.set() if call == 99 else None))
    for number in range(100):
        calls.put(number, 0)
    assert done.wait(10)
    calls.stop()

    assert written == list(range(100))


def test_waits_for_what_another_thread_is_writing():
    """Who drains returns only when all that was put in before is written, by whomever."""
    end = Slow()
    calls = CallWriter(end)
    end.go_on.clear()
    calls.put(1, 0)
    draining = threading.Thread(target=calls.drain)
    draining.start()
    second = threading.Thread(target=calls.drain)
    second.start()
    second.join(0.05)
    waited = second.is_alive()
    end.go_on.set()
    second.join(10)
    draining.join(10)
    calls.stop()

    assert waited
    assert end.written == [1]


def test_writes_at_once_when_the_queue_is_full(monkeypatch):
    """Beyond its bound the queue grows no further, and nothing is lost."""
    monkeypatch.setattr(writer, "MAX_QUEUED", 10)
    monkeypatch.setattr(CallWriter, "_start", lambda _: None)
    end = Slow()
    calls = CallWriter(end)
    for number in range(25):
        calls.put(number, 0)
    assert (len(calls._queue), len(end.written)) == (10, 15)

    calls.drain()
    assert sorted(end.written) == list(range(25))


def test_loses_nothing_under_threads():
    """Many threads that put while others drain: each call is written once."""
    written = []
    calls = CallWriter(lambda call, _: written.append(call))

    def work(first):
        for number in range(first, first + 3000):
            calls.put(number, 0)
            if number % 500 == 0:
                calls.drain()

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 24_000, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    calls.stop()

    assert sorted(written) == list(range(24_000))


def test_shows_all_calls_to_a_collection(telemetry):
    """A collection right after a call finds it, though the thread has not come to it yet."""
    for number in range(1, 30):
        with observe("ranker"):
            pass
        assert telemetry.count("inference.call.duration") == number


def test_leaves_no_thread_behind():
    """After `uninstrument()` the writer's thread ends."""
    with recorded(config=Config(strict=True)), observe("ranker"):
        pass
    uninstrument()
    for thread in threading.enumerate():
        if thread.name == "otel-inference-writer":
            thread.join(10)

    assert "otel-inference-writer" not in {thread.name for thread in threading.enumerate() if thread.is_alive()}


AT_EXIT = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(ConsoleMetricExporter())]))
import otel_inference
otel_inference.instrument()
for _ in range(7):
    with otel_inference.observe("ranker"):
        pass
"""


def test_writes_what_is_left_at_exit():
    """A program that ends right after its calls has them all in its last export."""
    result = subprocess.run([sys.executable, "-c", AT_EXIT], check=True, timeout=60, capture_output=True, text=True)

    assert '"inference.call.duration"' in result.stdout
    assert '"count": 7' in result.stdout


FORKS = """
import os, threading, warnings
warnings.simplefilter("ignore")
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from otel_inference import Config, observe
from otel_inference.testing import recorded

stop = threading.Event()

def work():
    while not stop.is_set():
        with observe("ranker"):
            pass

with recorded(config=Config(strict=True, resources=False), sampler=ALWAYS_OFF) as telemetry:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                with observe("in the child"):
                    pass
                seen = telemetry.count("inference.call.duration", inference__model="in the child")
                os._exit(0 if seen == 1 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()
    assert telemetry.count("inference.call.duration") > 0
"""


def test_forks_under_load():
    """Children forked while calls are being written can record and collect, and so can the parent."""
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=120)
