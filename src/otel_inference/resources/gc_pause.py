"""How long garbage collection stopped the process: while it runs, no other thread runs Python."""

from __future__ import annotations

import contextlib
import gc
import time
from typing import TYPE_CHECKING, Any

from otel_inference.resources.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class GcPauseProbe:
    """Sums the time of collections between two readings. The first reading installs it and knows nothing.

    Args:
        clock_ns: Measures a pause.
    """

    __slots__ = ("_before", "_callback", "_clock_ns", "_longest_ns", "_paused_ns", "_started_ns")

    name = "gc_pause"

    def __init__(self, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock_ns = clock_ns
        self._callback: Callable[[str, Mapping[str, int]], None] | None = None
        self._before: tuple[float, int] | None = None
        self._started_ns = 0
        self._paused_ns = 0
        self._longest_ns = 0

    def install(self) -> None:
        """Have the interpreter tell of its collections; again is no matter."""
        if self._callback is None:
            self._callback = self._note
            gc.callbacks.append(self._callback)

    def remove(self) -> None:
        """Leave the interpreter as it was."""
        if self._callback is not None:
            with contextlib.suppress(ValueError):  # somebody cleared the list
                gc.callbacks.remove(self._callback)
            self._callback = None
        self._before = None
        self._started_ns = self._longest_ns = 0

    def read(self, at_s: float) -> Reading:
        """See `reading.Probe.read`."""
        self.install()
        # `_paused_ns` only ever grows, so that a collection in the middle of this method is not lost.
        paused_ns = self._paused_ns
        longest_ns, self._longest_ns = self._longest_ns, 0
        before, self._before = self._before, (at_s, paused_ns)
        if before is None or at_s <= before[0]:
            return Reading(at_s=at_s)
        pause_s = (paused_ns - before[1]) / 1e9
        return Reading(
            at_s=at_s,
            gc_pause_s=pause_s,
            gc_pause_ratio=pause_s / (at_s - before[0]),
            gc_pause_max_s=longest_ns / 1e9,
        )

    def close(self) -> None:
        """See `reading.Probe.close`."""
        self.remove()

    def reset_after_fork(self) -> None:
        """See `reading.Probe.reset_after_fork`."""
        self.remove()

    def _note(self, phase: str, info: Any) -> None:  # noqa: ARG002 - the interpreter's signature
        """Runs inside a collection, of which there is one at a time: no lock, no container, nothing called but a clock."""
        now_ns = self._clock_ns()
        if phase == "start":
            self._started_ns = now_ns
        elif self._started_ns:  # one that began before we were there has no start
            pause_ns = now_ns - self._started_ns
            self._paused_ns += pause_ns
            if pause_ns > self._longest_ns:  # noqa: PLR1730 - `max` makes a tuple of its arguments
                self._longest_ns = pause_ns
            self._started_ns = 0
