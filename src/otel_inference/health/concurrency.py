"""How many calls are in flight, on average over the window: the area under their number by time."""

from __future__ import annotations

import math


class Concurrency:
    """Mean number of calls in flight over the last `width_s` seconds.

    Little's law says that it equals throughput times mean duration, which is how its test checks it.
    The clock is passed in; a time before the latest one counts as the latest.

    Args:
        width_s: Seconds that it looks back.
        slots: Sub-windows it is made of.
        born_s: When it began to count.
    """

    __slots__ = ("_area", "_born_s", "_index", "_latest_s", "_slot_s", "in_flight")

    def __init__(self, *, width_s: float = 60.0, slots: int = 6, born_s: float = 0.0) -> None:
        self._slot_s = width_s / slots
        self._area = [0.0] * slots
        """Call-seconds by sub-window."""
        self._born_s = self._latest_s = born_s
        self._index = math.floor(born_s / self._slot_s)
        self.in_flight = 0

    def change(self, at_s: float, by: int) -> None:
        """Note that `by` more calls are in flight from `at_s` on."""
        self._advance(at_s)
        self.in_flight += by

    def mean(self, at_s: float) -> float:
        """Mean number in flight up to `at_s`; the present number in a window without age."""
        self._advance(at_s)
        oldest_s = (self._index - len(self._area) + 1) * self._slot_s
        covered_s = self._latest_s - max(oldest_s, self._born_s)
        return sum(self._area) / covered_s if covered_s > 0 else float(self.in_flight)

    def _advance(self, at_s: float) -> None:
        if at_s <= self._latest_s:
            return
        last = math.floor(at_s / self._slot_s)
        if last - self._index >= len(self._area):  # idle for longer than the window
            self._index = last - len(self._area)
            self._latest_s = max(self._latest_s, (self._index + 1) * self._slot_s)
        while self._index < last:
            edge_s = (self._index + 1) * self._slot_s
            self._area[self._index % len(self._area)] += self.in_flight * max(0.0, edge_s - self._latest_s)
            self._latest_s = max(self._latest_s, edge_s)
            self._index += 1
            self._area[self._index % len(self._area)] = 0.0
        self._area[self._index % len(self._area)] += self.in_flight * (at_s - self._latest_s)
        self._latest_s = at_s
