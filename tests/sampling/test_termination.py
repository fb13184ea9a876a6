"""What is kept is sent before SIGTERM ends a process; each test ends one."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from otel_inference.sampling.termination import Termination

PREFACE = """
import os, signal, sys, threading, time
from otel_inference.sampling.termination import Termination
def flush():
    print("sent by", threading.current_thread().name, flush=True)
def end():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
"""


def ended(program):
    """What a program printed, and how it ended."""
    result = subprocess.run(
        [sys.executable, "-c", PREFACE + program], capture_output=True, text=True, timeout=60, check=False
    )
    return result.stdout.split("\n")[:-1], result.returncode, result.stderr


def test_sends_and_ends_as_without_us():
    """The flush runs on a thread of ours, then the signal ends the process."""
    assert ended("assert Termination(flush).install(); end()") == (["sent by otel-inference-flush"], -15, "")


def test_waits_no_longer_than_allowed():
    """A flush that hangs delays the end by the time limit only; so does one that needs a lock of the main thread."""
    program = """
lock = threading.Lock()
Termination(lock.acquire, timeout_s=0.1).install()
with lock:
    end()
"""
    assert ended(program)[1] == -15


@pytest.mark.parametrize("before", [True, False])
def test_leaves_the_programs_handler_alone(before):
    """A handler that the program has, or gets later, is the one that runs."""
    own = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"
    ours = f"print(Termination(flush).install() is {not before})"
    program = f"{own}\n{ours}" if before else f"{ours}\n{own}"

    assert ended(program + "\nend()")[:2] == (["True"], 7)


def test_is_removed():
    """Once removed, the signal ends the process without a flush; another's handler stays."""
    assert ended("t = Termination(flush); t.install(); t.remove(); end()")[:2] == ([], -15)
    program = """
t = Termination(flush)
t.install()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
t.remove()
end()
"""
    assert ended(program)[1] == 7


def test_serves_programs_that_raise_the_signal_again():
    """A server that puts the earlier handler back and raises the signal again, as uvicorn does, gets its flush."""
    program = """
Termination(flush).install()
earlier = signal.signal(signal.SIGTERM, lambda *_: None)
signal.raise_signal(signal.SIGTERM)
signal.signal(signal.SIGTERM, earlier)
signal.raise_signal(signal.SIGTERM)
"""
    assert ended(program)[:2] == (["sent by otel-inference-flush"], -15)


def test_bears_a_flush_that_fails():
    """A failing flush ends the process all the same."""
    assert ended("Termination(lambda: 1 / 0).install(); end()")[1] == -15


def test_is_installed_from_the_main_thread_only():
    """On another thread nothing is installed, and nothing raised."""
    found = []
    thread = threading.Thread(target=lambda: found.append(Termination(lambda: None).install()))
    thread.start()
    thread.join()

    assert found == [False]
