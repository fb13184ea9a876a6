"""This process and its descendants, and what the system counts for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import psutil  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LISTING_SHARE: Final = 0.001
"""Finding descendants means looking at every process of the machine (about 20 us each), so it is done no
more often than keeps it to this share of one core; on a small machine that is at every reading."""
_LISTING_MIN_S: Final = 0.5


class ProcessTree:
    """Shared by the probes that read it, so that descendants are looked for once.

    Args:
        process: Makes the `psutil.Process` at the top.
        work_clock: CPU seconds of this thread, to know what looking costs.
    """

    def __init__(
        self,
        process: Callable[[], Any] = psutil.Process,
        work_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._process = process
        self._work_clock = work_clock
        self._processes: tuple[Any, ...] = ()
        self._due_s = float("-inf")

    def cpu_s(self, at_s: float) -> float:
        """CPU seconds of all of them so far, with those of descendants that ended and were waited for."""
        return sum(sum(times[:4]) for times in self._each(at_s, "cpu_times"))  # user, system, and both of children

    def rss_bytes(self, at_s: float) -> int:
        """Resident memory of all of them."""
        return sum(memory.rss for memory in self._each(at_s, "memory_info"))

    def pids(self, at_s: float) -> tuple[int, ...]:
        """Their process ids, as this process's namespace counts."""
        return tuple(process.pid for process in self._listed(at_s))

    def reset_after_fork(self) -> None:
        """Begin with the process that this one is now."""
        self._processes = ()
        self._due_s = float("-inf")

    def _each(self, at_s: float, question: str) -> Iterator[Any]:
        top, *descendants = self._listed(at_s)
        yield getattr(top, question)()  # a failure here is the probe's
        for process in descendants:
            try:
                yield getattr(process, question)()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue

    def _listed(self, at_s: float) -> tuple[Any, ...]:
        if at_s < self._due_s:
            return self._processes
        began_s = self._work_clock()
        top = self._processes[0] if self._processes else self._process()
        self._processes = (top, *top.children(recursive=True))
        worked_s = self._work_clock() - began_s
        self._due_s = at_s + max(_LISTING_MIN_S, worked_s / _LISTING_SHARE)
        return self._processes
