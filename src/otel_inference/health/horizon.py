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
    """How many calls ended, how many failed and how many were slow, over each of several horizons.

    A call is counted for its ten seconds only. Completed tens of seconds go into a ring for five
    minutes, and by their minute into a ring for six hours: 9 KiB.
    """

    __slots__ = ("_calls", "_coarse", "_errors", "_fine", "_index", "_slot_ends_s", "_slow")

    def __init__(self) -> None:
        self._fine = _CountRing(round(_FINE_UP_TO_S / _FINE_S))
        self._coarse = _CountRing(round(HORIZONS_S[-1] / _COARSE_S))
        self._index = 0
        self._slot_ends_s = -math.inf
        self._calls = self._errors = self._slow = 0

    def add(self, at_s: float, *, failed: bool, slow: bool = False) -> None:
        """Count one call that ended at `at_s`; the clock is passed in, and going back it stands still."""
        if at_s >= self._slot_ends_s:
            self._advance(at_s)
        self._calls += 1
        if failed:
            self._errors += 1
        if slow:
            self._slow += 1

    def counts(self, horizon_s: float, at_s: float) -> tuple[int, int]:
        """Calls and errors of the last `horizon_s` seconds, up to one sub-window fewer.

        Args:
            horizon_s: From ten seconds to six hours.
            at_s: Now, on the clock of `add`.

        Raises:
            ValueError: If the horizon is not between 10 seconds and six hours.
        """
        calls, errors, _ = self._sums(horizon_s, at_s)
        return calls, errors

    def slow_counts(self, horizon_s: float, at_s: float) -> tuple[int, int]:
        """Calls that did not fail and the slow ones among them; otherwise as `counts`."""
        calls, errors, slow = self._sums(horizon_s, at_s)
        return calls - errors, slow

    def _sums(self, horizon_s: float, at_s: float) -> tuple[int, int, int]:
        if not _FINE_S <= horizon_s <= HORIZONS_S[-1]:
            msg = f"horizon_s={horizon_s!r}; expected from {_FINE_S:.0f} to {HORIZONS_S[-1]:.0f} seconds"
            raise ValueError(msg)
        if at_s >= self._slot_ends_s:
            self._advance(at_s)
        fine = horizon_s <= _FINE_UP_TO_S
        ring, slot_s = (self._fine, _FINE_S) if fine else (self._coarse, _COARSE_S)
        index = self._index if fine else _minute(self._index)
        calls, errors, slow = ring.sums(index, round(horizon_s / slot_s))
        return calls + self._calls, errors + self._errors, slow + self._slow

    def _advance(self, at_s: float) -> None:
        """Hand the ten seconds that are over to the rings."""
        counts = (self._calls, self._errors, self._slow)
        if counts[0]:
            self._fine.add(self._index, counts)
            self._coarse.add(_minute(self._index), counts)
        self._calls = self._errors = self._slow = 0
        self._index = math.floor(at_s / _FINE_S)
        self._slot_ends_s = (self._index + 1) * _FINE_S


def _minute(index: int) -> int:
    return index // round(_COARSE_S / _FINE_S)


class _CountRing:
    """Counts by slot of time, the slots reused in turn."""

    __slots__ = ("_calls", "_errors", "_index", "_size", "_slow")

    def __init__(self, size: int) -> None:
        self._size = size
        self._index = -1
        self._calls, self._errors, self._slow = (array("I", bytes(4 * size)) for _ in range(3))

    def add(self, index: int, counts: tuple[int, int, int]) -> None:
        self._advance(index)
        slot = index % self._size
        self._calls[slot] += counts[0]
        self._errors[slot] += counts[1]
        self._slow[slot] += counts[2]

    def sums(self, index: int, slots: int) -> tuple[int, int, int]:
        """Of the slots up to `index`."""
        self._advance(index)
        chosen = [(index - back) % self._size for back in range(min(slots, self._size))]
        return (
            sum(self._calls[slot] for slot in chosen),
            sum(self._errors[slot] for slot in chosen),
            sum(self._slow[slot] for slot in chosen),
        )

    def _advance(self, index: int) -> None:
        for expired in range(max(self._index + 1, index - self._size + 1), index + 1):
            slot = expired % self._size
            self._calls[slot] = self._errors[slot] = self._slow[slot] = 0
        self._index = max(self._index, index)
