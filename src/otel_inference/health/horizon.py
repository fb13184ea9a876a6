"""Counts over several horizons at once, from a minute to six hours, without storing calls."""

from __future__ import annotations

import math
from array import array
from typing import Final

HORIZONS_S: Final = (60.0, 300.0, 1800.0, 3600.0, 21600.0)
"""One minute, five minutes, half an hour, one hour and six hours."""
_FINE_S: Final = 10.0
_COARSE_S: Final = 60.0
_FINE_UP_TO_S: Final = 300.0


class HorizonCounts:
    """How many calls ended, and how many of them failed, over each of several horizons.

    Two rings of counts, of ten seconds for five minutes and of a minute for six hours: 6 KiB.
    """

    def __init__(self) -> None:
        self._fine = _CountRing(_FINE_S, round(_FINE_UP_TO_S / _FINE_S))
        self._coarse = _CountRing(_COARSE_S, round(HORIZONS_S[-1] / _COARSE_S))

    def add(self, at_s: float, *, failed: bool) -> None:
        """Count one call that ended at `at_s`; the clock is passed in and never goes back."""
        self._fine.add(at_s, failed=failed)
        self._coarse.add(at_s, failed=failed)

    def counts(self, horizon_s: float, at_s: float) -> tuple[int, int]:
        """Calls and errors of the last `horizon_s` seconds, up to one sub-window fewer.

        Args:
            horizon_s: At most six hours.
            at_s: Now, on the clock of `add`.

        Raises:
            ValueError: If the horizon is not between 10 seconds and six hours.
        """
        if not _FINE_S <= horizon_s <= HORIZONS_S[-1]:
            msg = f"horizon_s={horizon_s!r}; expected from {_FINE_S:.0f} to {HORIZONS_S[-1]:.0f} seconds"
            raise ValueError(msg)
        ring = self._fine if horizon_s <= _FINE_UP_TO_S else self._coarse
        return ring.counts(horizon_s, at_s)


class _CountRing:
    """Counts per slot of time, the slots reused in turn."""

    __slots__ = ("_calls", "_errors", "_index", "_size", "_slot_s")

    def __init__(self, slot_s: float, size: int) -> None:
        self._slot_s = slot_s
        self._size = size
        self._index = -1
        self._calls = array("I", bytes(4 * size))
        self._errors = array("I", bytes(4 * size))

    def add(self, at_s: float, *, failed: bool) -> None:
        self._advance(at_s)
        slot = self._index % self._size
        self._calls[slot] += 1
        self._errors[slot] += failed

    def counts(self, horizon_s: float, at_s: float) -> tuple[int, int]:
        self._advance(at_s)
        slots = [(self._index - back) % self._size for back in range(min(round(horizon_s / self._slot_s), self._size))]
        return sum(self._calls[slot] for slot in slots), sum(self._errors[slot] for slot in slots)

    def _advance(self, at_s: float) -> None:
        index = math.floor(at_s / self._slot_s)
        for expired in range(max(self._index + 1, index - self._size + 1), index + 1):
            self._calls[expired % self._size] = self._errors[expired % self._size] = 0
        self._index = max(self._index, index)
