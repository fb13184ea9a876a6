"""The causes: how each is put into the process, from outside or by asking it, and the name it is to be found under."""

from __future__ import annotations

import subprocess
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.injected.groups import OTHERS, SUBJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.injected.subject import Subject

QUOTA: Final = 1.15
"""Times what the process uses."""
SPARE_BYTES: Final = 256 << 20
MEMORY_LEFT_BYTES: Final = 32 << 20
"""For the mapped weights, which are half as large again, and what it takes to run a process that holds the rest."""
SETTLE_S: Final = 3.0
"""Until what is in use has been read again."""
NO_LIMIT_BYTES: Final = 1 << 40


class CauseEndedError(RuntimeError):
    """A cause was not there for as long as it was meant to be, such as when the kernel was short of memory itself."""


@contextmanager
def cpu_hog(subject: Subject) -> Iterator[None]:
    """Another process comes onto the process's core, and is given twice as much of it."""
    spin = f"import os; os.sched_setaffinity(0, {{{subject.core}}})\nwhile True: pass"
    with _running(subject.groups.within(OTHERS, "-c", spin)):
        yield


@contextmanager
def throttling(subject: Subject) -> Iterator[None]:
    """The quota is lowered to a little more than what the process uses."""
    subject.groups.limit_cores(QUOTA * subject.used_cores(5.0))
    try:
        yield
    finally:
        subject.groups.limit_cores(1.0)


@contextmanager
def memory_balloon(subject: Subject) -> Iterator[None]:
    """Another process in the same control group takes memory, until hardly any is left for the mapped weights."""
    subject.groups.shed_memory()  # pages of libraries that were read once would be given up in place of the weights
    subject.rest(SETTLE_S)
    subject.groups.limit_memory(subject.groups.memory_bytes() + SPARE_BYTES)
    take = subject.weights_bytes + SPARE_BYTES - MEMORY_LEFT_BYTES
    fill = (
        "open('/proc/self/oom_score_adj', 'w').write('1000')\n"
        f"held = [b'x' * (1 << 20) for _ in range({take >> 20})]\n"
        "import time; time.sleep(1e6)"
    )
    try:
        with _running(subject.groups.within(SUBJECT, "-c", fill)):
            yield
    finally:
        subject.groups.limit_memory(NO_LIMIT_BYTES)


def _inside(name: str) -> Callable[[Subject], AbstractContextManager[None]]:
    """A cause that the process makes itself."""

    @contextmanager
    def cause(subject: Subject) -> Iterator[None]:
        subject.ask(name)
        try:
            yield
        finally:
            subject.ask("")

    return cause


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        yield
        if process.poll() is not None:
            msg = f"it ended by itself: {process.returncode}"
            raise CauseEndedError(msg)
    finally:
        process.kill()
        process.wait()


CAUSES: Final[dict[str, tuple[str, Callable[[Subject], AbstractContextManager[None]]]]] = {
    "CPU hog": ("cpu", cpu_hog),
    "quota lowered": ("cpu_throttled", throttling),
    "memory taken": ("memory", memory_balloon),
    "collections": ("gc", _inside("gc")),
    "lock": ("lock", _inside("lock")),
    "sleep": ("model", _inside("sleep")),
}
