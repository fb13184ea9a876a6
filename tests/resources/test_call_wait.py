"""What the threads of running calls wait for."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from contextlib import contextmanager

import pytest

from otel_inference.resources import call_wait
from otel_inference.resources.call_wait import CallWaitProbe, _interpreter_memory

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells what threads wait for")


@contextmanager
def a_thread(target):
    """The kernel's id of a thread that runs `target(over)` until the test is over."""
    over, begun = threading.Event(), threading.Event()

    def run():
        begun.set()
        target(over)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(30)
        yield thread.native_id
    finally:
        over.set()
        thread.join()


def _seen(threads, *, until):
    """What was read of `threads` once it is as expected; another glance else."""
    probe = CallWaitProbe(lambda: threads)
    while True:
        probe.glance()
        reading = probe.read(1.0)
        if until(reading):
            return reading


@needs_linux
def test_a_thread_that_waits_for_a_lock_is_seen():
    """All of its time, as soon as it waits."""
    lock = threading.Lock()
    lock.acquire()
    with a_thread(lambda _: lock.acquire()) as thread:
        reading = _seen({thread}, until=lambda reading: reading.call_lock_ratio == 1.0)
        lock.release()

    assert reading.call_pause_ratio == 0.0


@needs_linux
def test_a_thread_that_reads_pauses():
    """Input that does not come is no lock."""
    reading_end, writing_end = os.pipe()
    with a_thread(lambda _: os.read(reading_end, 1)) as thread:
        reading = _seen({thread}, until=lambda reading: reading.call_pause_ratio == 1.0)
        os.write(writing_end, b"x")
    os.close(reading_end)
    os.close(writing_end)

    assert reading.call_lock_ratio == 0.0


@needs_linux
def test_a_thread_that_runs_python_waits_for_nothing():
    """Though whoever looks at it holds the interpreter, for which it has to wait."""

    def compute(over):
        while not over.is_set():
            sum(range(100))

    with a_thread(compute) as thread:
        probe = CallWaitProbe(lambda: {thread})
        for _ in range(50):
            probe.glance()
        reading = probe.read(1.0)

    assert (reading.call_lock_ratio, reading.call_pause_ratio) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("following", "found"),
    [
        ("3000-4000 rw-p 00000000 00:00 0", range(0x1000, 0x4000)),
        ("3000-4000 rw-p 00000000 08:01 77   /usr/lib/other.so", range(0x1000, 0x3000)),
        ("3800-4000 rw-p 00000000 00:00 0", range(0x1000, 0x3000)),
    ],
    ids=["zeros", "another-file", "a-gap"],
)
def test_the_interpreters_memory_is_that_of_its_file_and_the_zeros_behind(tmp_path, monkeypatch, following, found):
    """Where its state ends among what begins with zeros, its lock may be there; what others map is not its own."""
    maps = tmp_path / "maps"
    maps.write_text(
        f"0400-1000 r-xp 00000000 08:01 42   /usr/bin/python\n1000-3000 rw-p 00000c00 08:01 42   /usr/bin/python\n{following}\n"
    )
    monkeypatch.setattr(call_wait.ctypes, "addressof", lambda _: 0x2800)

    assert _interpreter_memory(str(maps)) == found


@needs_linux
def test_a_thread_that_has_ended_is_passed_over():
    """A call may end between being listed and being looked at."""
    probe = CallWaitProbe(lambda: {2**22 + 1})
    probe.glance()

    assert probe.read(1.0).call_lock_ratio is None


def _told(tmp_path, text, machine):
    """What is read where the kernel tells `text` of thread 7."""
    for thread in (7, threading.get_native_id()):
        (tmp_path / f"proc/self/task/{thread}").mkdir(parents=True)
        (tmp_path / f"proc/self/task/{thread}/syscall").write_text(text)
    probe = CallWaitProbe(lambda: {7}, root=str(tmp_path), machine=machine)
    probe.glance()
    reading = probe.read(1.0)
    return reading.call_lock_ratio, reading.call_pause_ratio


@needs_linux
@pytest.mark.parametrize(
    ("text", "machine", "seen"),
    [
        ("running\n", "x86_64", (0.0, 0.0)),
        ("202 0x10 0x80 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n", "x86_64", (1.0, 0.0)),
        ("202 0x10 0x80 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n", "aarch64", (0.0, 1.0)),
        ("98 0x10 0x80 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n", "aarch64", (1.0, 0.0)),
        ("230 0x1 0x0 0x7ffe 0x0 0x0 0x0 0x7ffe 0x7f00\n", "x86_64", (0.0, 1.0)),
        ("-1 0x7ffe 0x7f00\n", "x86_64", (0.0, 0.0)),
        ("202 0x10 0x80 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n", "riscv64", (None, None)),
    ],
    ids=["runs", "lock", "another-machine's-number", "lock-on-arm", "sleep", "page-fault", "unknown-machine"],
)
def test_what_the_kernel_tells_is_understood(tmp_path, text, machine, seen):
    """The format is that of proc(5); numbers of system calls differ from machine to machine."""
    assert _told(tmp_path, text, machine) == seen


@needs_linux
def test_a_wait_for_the_interpreter_is_none(tmp_path):
    """Whoever waits for a lock within the interpreter's own state counts as running."""
    own = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))

    assert _told(tmp_path, f"202 {own + 8:#x} 0x80 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n", "x86_64") == (0.0, 0.0)


@needs_linux
def test_of_many_threads_some_are_looked_at(tmp_path):
    """Four at a time, others the next time, so that it costs the same however many calls run."""
    threads = range(7, 27)
    for thread in (*threads, threading.get_native_id()):
        (tmp_path / f"proc/self/task/{thread}").mkdir(parents=True)
        told = "running\n" if thread % 2 else "202 0x10 0x80 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n"
        (tmp_path / f"proc/self/task/{thread}/syscall").write_text(told)
    probe = CallWaitProbe(lambda: threads, root=str(tmp_path), machine="x86_64")
    ratios = set()
    for _ in range(1000):
        probe.glance()
        ratios.add(probe.read(1.0).call_lock_ratio)

    assert ratios == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_where_the_kernel_does_not_tell_nothing_is_read(tmp_path):
    """Neither the first time nor later."""
    probe = CallWaitProbe(lambda: {7}, root=str(tmp_path))
    probe.glance()
    probe.glance()

    assert probe.read(1.0).call_lock_ratio is None


@needs_linux
def test_beside_another_c_library_nothing_is_read(tmp_path, monkeypatch):
    """With musl, a thread that waits for the interpreter cannot be told from one that waits for a lock."""

    def confstr(name):
        raise OSError(22, name)  # as musl answers

    monkeypatch.setattr(os, "confstr", confstr)

    told = "202 0x10 0x80 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n"
    assert _told(tmp_path, told, "x86_64") == (None, None)


@needs_linux
@pytest.mark.parametrize("ending", ["close", "reset_after_fork", "read"])
def test_each_reading_begins_anew(ending):
    """What was seen before belongs to the reading before, or to nobody."""
    with a_thread(lambda over: over.wait()) as thread:
        probe = CallWaitProbe(lambda: {thread})
        probe.glance()
        getattr(probe, ending)(*([1.0] if ending == "read" else []))

    assert probe.read(2.0).call_lock_ratio is None
