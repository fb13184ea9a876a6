"""The processors that a process may run on, and whether anybody uses them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from otel_inference.resources import _file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_MACHINE_CORES: Final = os.cpu_count() or 1
_IDLE: Final = slice(3, 5)
"""Idle, and idle while waiting for a disk; the columns are those of proc(5)."""
_ALL: Final = slice(0, 8)
"""Without the time of guests, which is part of a user's."""


def allowed(pids: Iterable[int]) -> Collection[int]:
    """Numbers of the processors that the threads of this process and the processes `pids` may run on, all together.

    Threads of one process may be bound to processors of their own, as OpenMP does when it is told to
    (`OMP_PROC_BIND`): its first thread alone then says 1.
    """
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return range(_MACHINE_CORES)
    found: set[int] = set()
    for each in (0, *pids, *_thread_ids()):
        try:
            found |= os.sched_getaffinity(each)
        except OSError:  # it has ended, or is not ours to ask
            continue
        if len(found) >= _MACHINE_CORES:
            break
    return found or range(_MACHINE_CORES)


class Idleness:
    """How much of the processors' time was used since it was last asked, by anybody on the machine.

    Args:
        root: The folder that stands for `/`.
    """

    def __init__(self, root: str = "/") -> None:
        self._path = f"{root.rstrip('/')}/proc/stat"
        self._before: dict[str, tuple[int, int]] = {}

    def busy_ratio(self, processors: Iterable[int]) -> float | None:
        """Share of these processors' time that was used; `None` the first time and where it is not told."""
        now = _times(_file.text(self._path) or "")
        before, self._before = self._before, now
        idle = passed = 0
        for name in (f"cpu{number}" for number in processors):
            if name in now and name in before:
                idle += now[name][0] - before[name][0]
                passed += now[name][1] - before[name][1]
        return min(1.0, max(0.0, 1.0 - idle / passed)) if passed > 0 else None

    def forget(self) -> None:
        """Begin anew."""
        self._before = {}


def _times(stat: str) -> dict[str, tuple[int, int]]:
    r"""Idle and all time of each processor, in ticks.

    >>> _times("cpu  9 9 9 9 9 9 9 9 0 0\ncpu3 10 0 5 80 2 0 1 2 4 0\nintr 1 0\n")
    {'cpu3': (82, 100)}
    """
    found = {}
    for line in stat.splitlines():
        if not line.startswith("cpu"):
            break  # they come first; what follows is long
        name, *columns = line.split()
        if name != "cpu":
            ticks = [int(column) for column in columns]
            found[name] = (sum(ticks[_IDLE]), sum(ticks[_ALL]))
    return found


def _thread_ids() -> Iterable[int]:
    try:
        yield from map(int, os.listdir("/proc/self/task"))  # noqa: PTH208 - names only
    except OSError:
        return
