"""How late a thread of this process gets to run Python: what waiting for the interpreter costs."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Final

from otel_inference.resources.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable

_WAITS: Final = 5
_WAIT_S: Final = 0.001
_AT_MOST_S: Final = 0.25


class HeartbeatProbe:
    """Waits for a millisecond a few times, and measures by how much each wait ended late.

    A thread that has slept needs the interpreter lock to go on. Where no other thread holds it for long, a wait
    ends about 0.1 ms late; beside one thread that never lets go of it, 5 ms (`sys.getswitchinterval`) late. The
    median of the waits is given: a processor that is short delays some of them, the lock delays most.

    The waits take 5 ms of the thread that reads, a quarter of a second at most, and some 0.2 ms of a processor.

    Args:
        clock: Measures a wait.
        sleep: Waits.
    """

    __slots__ = ("_clock", "_sleep")

    name = "heartbeat"

    def __init__(
        self, *, clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep

    def read(self, at_s: float) -> Reading:
        """See `reading.Probe.read`."""
        return Reading(at_s=at_s, interpreter_delay_s=median(self._delays_s()))

    def close(self) -> None:
        """See `reading.Probe.close`."""

    def reset_after_fork(self) -> None:
        """See `reading.Probe.reset_after_fork`."""

    def _delays_s(self) -> list[float]:
        delays_s: list[float] = []
        before_s = began_s = self._clock()
        while len(delays_s) < _WAITS and before_s - began_s < _AT_MOST_S:
            self._sleep(_WAIT_S)
            now_s = self._clock()
            delays_s.append(max(0.0, now_s - before_s - _WAIT_S))
            before_s = now_s
        return delays_s
