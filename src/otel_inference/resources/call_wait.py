"""What the threads that run calls of models wait for: looked at from outside, a few times a second.

The kernel says of each thread whether it runs and, where it waits, in which system call. A thread that waits for the
interpreter's own lock counts as running: while we look, we hold that lock, so that whoever ran Python until now waits.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from random import Random
from typing import TYPE_CHECKING, Final

from otel_inference.resources import _file
from otel_inference.resources.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_FUTEX: Final = {"x86_64": 202, "aarch64": 98}
"""Number of the system call in which a thread waits for another one, by machine."""
_AT_ONCE: Final = 4
"""Threads looked at in one glance: it takes 6 us for each."""


class CallWaitProbe:
    """Shares of the time of running calls in which their threads wait for another thread, and for anything else.

    Linux with the C library of GNU on x86-64 and ARM; elsewhere it reads nothing. It takes no lock, and touches no thread.

    Args:
        threads: Kernel's ids of the threads that run calls now.
        root: The folder that stands for `/`.
        machine: Kind of processor.
    """

    name = "call_wait"

    def __init__(
        self, threads: Callable[[], Collection[int]], *, root: str = "/", machine: str = platform.machine()
    ) -> None:
        self._threads = threads
        self._tasks = f"{root.rstrip('/')}/proc/self/task"
        self._futex = _FUTEX.get(machine) if sys.platform == "linux" else None
        self._interpreter: range | None = None
        self._random = Random()  # noqa: S311 - a choice of threads; the host's own generator stays as it is
        self._looked = self._locked = self._paused = 0

    def glance(self) -> None:
        """Look at some of the threads once."""
        if self._futex is None:
            return
        if self._interpreter is None:
            self._interpreter = _interpreter_memory()
            if not self._interpreter or _file.text(f"{self._tasks}/{threading.get_native_id()}/syscall") is None:
                self._futex = None  # this system does not tell
                return
        threads = list(self._threads())
        if len(threads) > _AT_ONCE:
            threads = self._random.sample(threads, _AT_ONCE)
        for thread in threads:
            self._look(_file.text(f"{self._tasks}/{thread}/syscall"), self._futex, self._interpreter)

    def read(self, at_s: float) -> Reading:
        """See `reading.Probe.read`: of the glances since the reading before."""
        looked, locked, paused = self._looked, self._locked, self._paused
        self._looked = self._locked = self._paused = 0
        if not looked:
            return Reading(at_s=at_s)
        return Reading(at_s=at_s, call_lock_ratio=locked / looked, call_pause_ratio=paused / looked)

    def close(self) -> None:
        """See `reading.Probe.close`."""
        self._looked = self._locked = self._paused = 0

    def reset_after_fork(self) -> None:
        """See `reading.Probe.reset_after_fork`."""
        self.close()

    def _look(self, told: str | None, futex: int, interpreter: range) -> None:
        """Count what the kernel told of a thread: `running`, or the number of its system call and the arguments."""
        fields = (told or "").split()
        if not fields:  # the thread has ended
            return
        self._looked += 1
        if not fields[0].isdigit():  # it runs, or waits for a page of memory
            return
        if int(fields[0]) != futex:
            self._paused += 1
        elif int(fields[1], 16) not in interpreter:
            self._locked += 1


def _interpreter_memory(maps: str = "/proc/self/maps") -> range:
    """Addresses of the interpreter's own state, its lock among it; empty where they cannot be told."""
    if not _is_glibc():  # with musl, who waits for the interpreter waits at an address of its own stack
        return range(0)
    try:
        state = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    except (AttributeError, ValueError):
        return range(0)
    found = range(0)
    for line in (_file.text(maps) or "").splitlines():
        addresses, *_, last = line.split()
        begin, _, end = addresses.partition("-")
        memory = range(int(begin, 16), int(end, 16))
        if state in memory:
            found = memory
        elif found and memory.start == found.stop and last == "0":  # of no file: what the library begins with zeros
            return range(found.start, memory.stop)
    return found


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):  # how other systems and libraries say that they do not know it
        return False
