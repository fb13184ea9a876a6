"""How many calls were in flight, on average over the window: call-seconds over seconds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Concurrency:
    """Mean number of calls in flight over the last `width_s` seconds.

    Ended calls leave the time they ran in the sub-windows they ran in; those that still run are
    given when the mean is asked for. Little's law says that the mean equals throughput times mean
    duration, which is how its test checks it. The clock is passed in; calls may be added in any order.

    Args:
        width_s: Seconds that it looks back.
        slots: Sub-windows it is made of.
        born_s: When it began to count.
    """

    __slots__ = ("_area", "_born_s", "_index", "_slot_s")

    def __init__(self, *, width_s: float = 60.0, slots: int = 6, born_s: float = 0.0) -> None:
        self._slot_s = width_s / slots
        self._area = [0.0] * slots
        """Call-seconds by sub-window."""
        self._born_s = born_s
        self._index = math.floor(born_s / self._slot_s)

    def add(self, started_s: float, ended_s: float) -> None:
        """Count a call that ran from `started_s` to `ended_s`."""
        slot_s = self._slot_s
        if self._index * slot_s <= started_s and ended_s < (self._index + 1) * slot_s:  # most do
            self._area[self._index % len(self._area)] += ended_s - started_s
            return
        self._advance(ended_s)
        start_s = max(started_s, self._oldest_s())
        slot = math.floor(start_s / self._slot_s)
        while start_s < ended_s:
            edge_s = min((slot + 1) * self._slot_s, ended_s)
            self._area[slot % len(self._area)] += max(0.0, edge_s - start_s)
            start_s, slot = edge_s, slot + 1

    def mean(self, at_s: float, running_since_s: Iterable[float] = ()) -> float:
        """Mean number in flight up to `at_s`.

        Args:
            at_s: Now.
            running_since_s: When the calls that still run began.
        """
        self._advance(at_s)
        since_s = max(self._oldest_s(), self._born_s)
        if at_s <= since_s:
            return 0.0
        running_s = sum(max(0.0, at_s - max(started_s, since_s)) for started_s in running_since_s)
        return (sum(self._area) + running_s) / (at_s - since_s)

    def _oldest_s(self) -> float:
        return (self._index - len(self._area) + 1) * self._slot_s

    def _advance(self, at_s: float) -> None:
        index = math.floor(at_s / self._slot_s)
        for expired in range(max(self._index, index - len(self._area)) + 1, index + 1):
            self._area[expired % len(self._area)] = 0.0
        self._index = max(self._index, index)
