"""Maintenance in whole programs: callbacks that mean harm, modes, forks and reloads, and real servers' signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

STALLED = """
import importlib, json, os, sys, threading, time, _thread
import otel_inference
from otel_inference import evaluate, instrument, journal, observe, on
from otel_inference.maintenance import maintainer as module
from otel_inference.maintenance.maintainer import THREAD_NAME, maintainer
from otel_inference.telemetry.registry import registry

@observe("ranker")
def rank(rows):
    return sum(rows)

def stall():
    '''Have a call that began a long time ago.'''
    threading.Thread(target=observe("slow")(threading.Event().wait), daemon=True).start()
    real = registry._clock
    registry._clock = lambda: real() + 1000.0
    until(lambda: evaluate())

def until(condition):
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)

def maintainers():
    return [thread.name for thread in threading.enumerate()].count(THREAD_NAME)
"""

HOSTILE = """
begun = []

def hostile(act):
    def run(event):
        begun.append(act.__name__)
        act(event)
    run.__qualname__ = run.__name__ = act.__name__
    on("stall", timeout=0.1 if act.__name__ == "hangs" else 30, cooldown=0)(run)

@hostile
def raises(event):
    raise ValueError

@hostile
def exits(event):
    sys.exit(3)

@hostile
def kills_its_thread(event):
    _thread.exit()

@hostile
def calls_itself_and_the_model(event):
    rank([1])
    calls_itself_and_the_model(event)

@hostile
def hangs(event):
    threading.Event().wait()

instrument()
stall()
calls = 0
while len(set(begun)) < 5 or calls < 1000:
    assert rank([1, 2]) == 3
    calls += 1
assert otel_inference.health("ranker").errors == 0
until(lambda: len({entry.action for entry in journal()}) == 5)
print(json.dumps({entry.action: entry.outcome for entry in journal() if entry.outcome != "refused"}))
"""

MODE = """
ran = []
on("stall")(ran.append)
instrument()
stall()
if maintainer.mode == "off":
    time.sleep(0.2)
else:
    until(journal)
print(json.dumps([maintainer.mode, [entry.outcome for entry in journal()], len(ran)]))
"""

ONCE = """
ran = []

@on("stall", cooldown=0, max_per_hour=100)
def act(event):
    ran.append(os.getpid())

def again():
    del ran[:]
    otel_inference.uninstrument()
    instrument()
    stall()
    until(lambda: evaluate() and ran)
    assert maintainers() == 1, maintainers()

for reloaded in (None, module, otel_inference, sys.modules["otel_inference.runtime"]):
    if reloaded is not None:
        importlib.reload(reloaded)
    again()
    assert len(maintainer.actions()) == 1
child = os.fork()
if child == 0:
    status = 1
    try:
        assert maintainers() == 0
        stall()
        until(lambda: os.getpid() in ran)
        assert maintainers() == 1
        status = 0
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert maintainers() == 1
print(json.dumps("once"))
"""

INSTRUMENTED_FIRST = """
import signal

def state():
    return [maintainer.mode, signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL]

instrument()
seen = [state()]
on("stall")(print)
os.kill(os.getpid(), signal.SIGUSR2)
seen.append(state())
otel_inference.uninstrument()
seen.append(state())
on("stall")(repr)
seen.append(state())
print(json.dumps(seen))
"""

SERVED = """
import os, signal
import otel_inference
from otel_inference.maintenance.maintainer import maintainer

taken = []
if os.environ.get("TAKEN"):
    signal.signal(signal.SIGUSR2, lambda *_: taken.append(1))
otel_inference.on("stall")(print)
otel_inference.instrument()

def answer():
    return f"{os.getpid()} {maintainer.mode} {len(taken)}".encode()

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer()]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer()})
"""


def run(program, **environ):
    """What a program prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", STALLED + program],
        check=False, capture_output=True, text=True, timeout=100, env={**os.environ, **environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_callback_holds_up_a_call():
    """Whatever callbacks do, a thousand calls meanwhile give their results, and each callback's end is in the journal."""
    assert run(HOSTILE) == {
        "raises": "failed",
        "exits": "failed",
        "kills_its_thread": "failed",
        "calls_itself_and_the_model": "failed",
        "hangs": "timed_out",
    }


@pytest.mark.parametrize(
    ("mode", "outcomes", "runs"), [("act", ["done"], 1), ("observe", ["would_run"], 0), ("off", [], 0)]
)
def test_the_environment_says_what_may_be_done(mode, outcomes, runs):
    """`OTEL_INFERENCE_MAINTENANCE` runs, says what would run, or does nothing."""
    assert run(MODE, OTEL_INFERENCE_MAINTENANCE=mode) == [mode, outcomes, runs]


def test_a_process_has_one_maintainer():
    """Instrumented again, reloaded or forked, a process has one thread of maintenance and each callback once."""
    assert run(ONCE) == "once"


def asked(port):
    """Process id, mode and how often the program's own handler ran, as soon as the server answers."""
    deadline_s = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as response:
                pid, mode, taken = response.read().decode().split()
                return int(pid), mode, int(taken)
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


@pytest.mark.parametrize("taken", ["", "1"], ids=["free", "taken"])
@pytest.mark.parametrize(
    "command",
    [["gunicorn", "--bind", "127.0.0.1:{port}", "served:wsgi"], ["uvicorn", "--port", "{port}", "served:asgi"]],
    ids=["gunicorn", "uvicorn"],
)
def test_a_signal_switches_a_servers_maintenance(tmp_path, command, taken):
    """SIGUSR2 switches the maintenance of a worker off and on again, unless the program has a use for it of its own."""
    pytest.importorskip(command[0])
    (tmp_path / "served.py").write_text(SERVED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [part.format(port=port) for part in command]
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", "TAKEN": taken}
    server = subprocess.Popen([sys.executable, "-m", *arguments], env=environ, cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        pid, *before = asked(port)
        seen = []
        for _ in range(2):
            os.kill(pid, signal.SIGUSR2)
            seen.append(asked(port))
    finally:
        server.terminate()
        server.communicate(timeout=30)

    assert before == ["act", 0]
    assert seen == ([(pid, "act", 1), (pid, "act", 2)] if taken else [(pid, "off", 0), (pid, "act", 0)])


def test_the_kill_switch_is_there_as_soon_as_there_is_something_to_switch():
    """A program that registers after it was instrumented, as under the launcher, has the signal; without a call too it is given back."""
    assert run(INSTRUMENTED_FIRST) == [["act", True], ["off", False], ["act", True], ["act", True]]
