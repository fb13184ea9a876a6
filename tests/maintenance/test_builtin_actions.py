"""The actions on resources that come with the package."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime
from types import SimpleNamespace

import psutil
import pytest

from otel_inference.errors import ConfigError
from otel_inference.finding import Finding, FindingKind, Severity
from otel_inference.maintenance import builtin_actions, recycling
from otel_inference.maintenance.action import MaintenanceEvent
from otel_inference.maintenance.builtin_actions import builtin
from otel_inference.maintenance.builtin_knobs import adopt_torch_threads

NAMES = ["collect_garbage", "trim_heap", "release_accelerator_cache", "reduce_torch_threads", "recycle_worker"]

SERVED = """
import os
from datetime import UTC, datetime
from opentelemetry.trace import NoOpTracer
from otel_inference.finding import Finding, FindingKind, Severity
from otel_inference.maintenance import recycling
from otel_inference.maintenance.builtin_actions import builtin
from otel_inference.maintenance.maintainer import maintainer

recycling.GRACE_S = 0.1
recycling.YOUNG_S = 0.0  # all workers of this test are young
for action in builtin(["recycle_worker"]):
    maintainer.add(action)
maintainer.start("act", health=lambda _: None, tracer=NoOpTracer(), journal_path=os.environ["JOURNAL"])

def answer(path):
    if path == "/grow":
        finding = Finding(FindingKind.MEMORY_GROWTH, Severity.WARNING, None, datetime.now(UTC), {}, "")
        maintainer.notice([finding])
    return str(os.getpid()).encode()

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer(environ["PATH_INFO"])]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer(scope["path"])})
"""

ASKED = f"""
import sys
from otel_inference.maintenance.builtin_actions import builtin

for action in builtin({NAMES}):
    if action.precondition is not None:
        action.precondition(None)
assert not {{"torch", "transformers", "onnxruntime", "gunicorn", "uvicorn"}} & set(sys.modules)
"""

TRIM = """
import ctypes, os
from otel_inference.maintenance.builtin_actions import builtin

def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = libc.free.argtypes = [ctypes.c_size_t]
blocks = [libc.malloc(16384) for _ in range(4096)]
for block in blocks:
    ctypes.memset(block, 1, 16384)
for block in blocks[:-1]:  # the last one keeps the heap from shrinking by itself
    libc.free(block)
before = rss_bytes()
action = builtin(["trim_heap"])[0]
assert action.precondition(None) is True
action.run(None)
assert before - rss_bytes() > 48 * 2**20, (before, rss_bytes())
"""


@pytest.fixture
def event():
    """Memory grows."""
    finding = Finding(FindingKind.MEMORY_GROWTH, Severity.WARNING, None, datetime.now(UTC), {}, "")
    return MaintenanceEvent(finding=finding, health=None, journal=())


class FakeTorch:
    """Counts what it is asked; its number of threads is each thread's own once it has computed, as with OpenMP."""

    def __init__(self, *, cuda=True, threads=8):
        """Begin with a number of threads."""
        self.emptied = 0
        self.cuda = SimpleNamespace(is_initialized=lambda: cuda, empty_cache=self._empty)
        self._mine = threading.local()
        self._threads = threads

    def _empty(self):
        self.emptied += 1

    def get_num_threads(self):
        """How many the calling thread computes on."""
        self._mine.threads = getattr(self._mine, "threads", self._threads)
        return self._mine.threads

    def set_num_threads(self, number):
        """Set it for this thread and for those that have not computed yet."""
        self._mine.threads = self._threads = number


def in_thread(function):
    """What `function` returns in a new thread."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_are_made_by_name_gentlest_first():
    """Named in any order, and once, they come in the order in which they are to be tried."""
    actions = builtin(["recycle_worker", "trim_heap", "collect_garbage", "trim_heap"])

    assert list(dict.fromkeys(action.name for action in actions)) == ["collect_garbage", "trim_heap", "recycle_worker"]
    assert list(dict.fromkeys(action.name for action in builtin(NAMES))) == NAMES
    assert builtin([]) == []


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["trim_heep"], "unknown action 'trim_heep' .did you mean 'trim_heap'"),
        ("trim_heap", "is the string 'trim_heap'"),
    ],
)
def test_a_name_that_nobody_knows_is_told_with_the_nearest(names, told):
    """A misspelt name, or one name instead of a list, is a ConfigError."""
    with pytest.raises(ConfigError, match=told):
        builtin(names)


def test_none_imports_an_engine():
    """Making actions and asking whether they make sense loads no library."""
    done = subprocess.run([sys.executable, "-c", ASKED], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_the_accelerator_cache_is_released_where_torch_uses_one(event):
    """Torch is asked to empty its cache on both findings about accelerator memory."""
    torch = FakeTorch()
    actions = builtin_actions.release_accelerator_cache({"torch": torch})
    for action in actions:
        assert action.precondition(event) is True
        action.run(event)

    assert torch.emptied == 2
    assert [(action.kind, action.subject) for action in actions] == [
        ("saturation", "gpu_memory"),
        ("bottleneck", "gpu_memory"),
    ]


@pytest.mark.parametrize("modules", [{}, {"torch": object()}, {"torch": FakeTorch(cuda=False)}])
def test_without_an_accelerator_there_is_nothing_to_release(event, modules):
    """CUDA that is not initialised stays so, and the journal says why nothing was done."""
    action, _ = builtin_actions.release_accelerator_cache(modules)

    assert action.precondition(event) == "torch does not use CUDA in this process"


def test_garbage_is_collected_and_the_rest_frozen_once(event):
    """Cycles are gone, what is left is frozen the first time, and later garbage is still collected."""
    (action,) = builtin(["collect_garbage"])

    class Node:
        pass

    def leak():
        node = Node()
        node.itself = node

    def nodes():
        return sum(type(each) is Node for each in gc.get_objects())

    try:
        for _ in range(2):
            leak()
            action.run(event)
            assert nodes() == 0
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_the_heap_is_trimmed():
    """What was freed in small pieces goes back to the system."""
    done = subprocess.run([sys.executable, "-c", TRIM], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_another_c_library_has_nothing_to_trim(event, monkeypatch):
    """Where there is no malloc_trim the journal says so."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    action, _ = builtin(["trim_heap"])

    assert action.precondition(event) == "the C library has no malloc_trim; it is glibc's"
    action.run(event)


@pytest.fixture
def torch(monkeypatch):
    """An imitation of torch that computes on eight threads."""
    fake = FakeTorch(threads=8)
    monkeypatch.setitem(sys.modules, "torch", fake)
    return fake


@pytest.mark.parametrize(("cores", "expected"), [(2.7, 2), (0.5, 1), (None, 1)])
def test_torch_computes_on_as_many_threads_as_the_quota_has_processors(event, torch, cores, expected):
    """Threads that have computed adopt the number when they next call a model, new ones have it, and undo takes it back."""
    action, _ = builtin_actions.reduce_torch_threads(usable_cores=lambda: cores)
    assert torch.get_num_threads() == 8
    assert in_thread(lambda: action.precondition(event)) is True
    in_thread(lambda: action.run(event))
    assert torch.get_num_threads() == 8
    adopt_torch_threads()

    assert (torch.get_num_threads(), in_thread(torch.get_num_threads)) == (expected, expected)
    told = in_thread(lambda: action.precondition(event))
    assert told == f"torch computes on {expected} threads already, of {expected} usable"
    in_thread(lambda: action.undo(event))
    adopt_torch_threads()
    assert (torch.get_num_threads(), in_thread(torch.get_num_threads)) == (8, 8)


@pytest.mark.parametrize("modules", [{}, {"torch": object()}])
def test_without_torch_there_are_no_threads_to_reduce(event, modules):
    """It is refused with the reason."""
    action, _ = builtin_actions.reduce_torch_threads(modules)

    assert action.precondition(event) == "torch is not imported"


def test_the_quota_is_read_when_asked(event, torch):
    """By default it is what quota, affinity and machine leave, at least one processor."""
    action, _ = builtin_actions.reduce_torch_threads()
    torch.set_num_threads(1)

    assert "torch computes on 1 threads already" in action.precondition(event)


def worker(pid=None, ppid=None, kind=object):
    """Modules in which gunicorn's worker is `kind`, and one with these ids."""
    made = type("SyncWorker", (kind,), {"handle_exit": lambda *_: None})()
    made.pid = os.getpid() if pid is None else pid
    made.ppid = os.getppid() if ppid is None else ppid
    return made


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ({}, None),
        ({"pid": 1}, "no worker of gunicorn's or uvicorn's"),
        ({"ppid": 1}, "no worker of gunicorn's or uvicorn's"),
        ({"kind": str}, "no worker of gunicorn's or uvicorn's"),
    ],
)
def test_only_a_worker_whose_arbiter_is_its_parent_is_recycled(monkeypatch, ids, told):
    """A child that a worker forked, an arbiter and any other program are refused."""

    class Worker:
        pass

    handler = worker(**{"kind": Worker, **ids}).handle_exit
    monkeypatch.setattr(recycling.signal, "getsignal", lambda _: handler)
    monkeypatch.setattr(recycling, "_ages_of_siblings_s", lambda: [100.0])
    why_not = recycling.why_not({"gunicorn.workers.base": SimpleNamespace(Worker=Worker)})

    assert why_not == told if told is None else told in why_not


def test_a_program_that_sigterm_would_kill_is_not_recycled(event):
    """Without a handler of SIGTERM nothing ends gracefully; with any other one nothing would start another."""
    (action,) = builtin(["recycle_worker"])
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert action.precondition(event) == "nothing in this process ends it gracefully on SIGTERM"
        signal.signal(signal.SIGTERM, lambda *_: None)
        assert "no worker of gunicorn's or uvicorn's" in action.precondition(event)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_worker_of_a_server_is_recycled_at_a_time(event, monkeypatch):
    """While another one is at it, or has just begun to serve, a worker waits."""
    monkeypatch.setattr(recycling, "_is_gunicorn_worker", lambda _: True)
    monkeypatch.setattr(recycling.signal, "getsignal", lambda _: print)
    ages_s = [5.0]
    monkeypatch.setattr(recycling, "_ages_of_siblings_s", lambda: ages_s)
    assert recycling.why_not() == "another worker is less than 60 s old"
    ages_s[0] = 61.0
    assert recycling.why_not() is None
    (action,) = builtin(["recycle_worker"])
    with recycling._claim():
        assert recycling.why_not() == "another worker is being recycled"
        with pytest.raises(RuntimeError, match="another worker of this server is being recycled"):
            action.run(event)

    assert recycling.why_not() is None


def test_siblings_are_the_other_children_of_the_parent(monkeypatch):
    """Their ages are in seconds; one that has ended and is not waited for yet is none, and so is this process."""
    monkeypatch.setattr(recycling.os, "getppid", os.getpid)
    others = len(recycling._ages_of_siblings_s())  # which other tests left, such as multiprocessing's tracker
    with subprocess.Popen(["sleep", "30"]) as living, subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        ages_s = recycling._ages_of_siblings_s()
        living.kill()
    monkeypatch.setattr(recycling.os, "getppid", lambda: living.pid)

    assert (len(ages_s), -1 < min(ages_s) < 60) == (others + 1, True)
    assert recycling._ages_of_siblings_s() == []


def get(port, path="/", *, timeout_s=30.0):
    """What the server answers, as soon as it does."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.read()
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


def children(process):
    """Ids of its children."""
    return {child.pid for child in psutil.Process(process.pid).children() if child.status() != psutil.STATUS_ZOMBIE}


def until(condition, timeout_s=30.0):
    """Wait for it; returns whether it came true."""
    deadline_s = time.monotonic() + timeout_s
    while not (met := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return met


@pytest.mark.parametrize(
    "command",
    [
        ["gunicorn", "--bind", "127.0.0.1:{port}", "served:wsgi"],
        ["gunicorn", "--bind", "127.0.0.1:{port}", "-k", "uvicorn.workers.UvicornWorker", "served:asgi"],
        ["uvicorn", "--port", "{port}", "--workers", "2", "served:asgi"],
    ],
    ids=["gunicorn", "gunicorn-uvicorn", "uvicorn"],
)
def test_a_leaking_worker_is_replaced(tmp_path, command):
    """A worker whose memory grows ends by itself, its server starts another one, and the journal says so."""
    pytest.importorskip(command[0])
    (tmp_path / "served.py").write_text(SERVED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [part.format(port=port) for part in command]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "JOURNAL": str(tmp_path / "journal.jsonl")}
    server = subprocess.Popen([sys.executable, "-m", *arguments], env=environ, cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        leaking, before = int(get(port, "/grow")), children(server)
        assert until(lambda: leaking not in (now := children(server)) and now - before)
        assert int(get(port)) != leaking
    finally:
        server.terminate()
        _, said = server.communicate(timeout=30)
    entry = json.loads((tmp_path / "journal.jsonl").read_text())

    assert (entry["action"], entry["outcome"], entry["pid"]) == ("recycle_worker", "done", leaking), said
