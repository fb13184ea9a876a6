"""Quantiles of durations in fixed memory, with a relative error of at most 1 %.

The mapping of DDSketch (Masson, Rim, Lee, VLDB 2019): with gamma = (1 + a) / (1 - a) a value x is
counted in bucket ceil(log_gamma x), and every value of a bucket lies within a of its centre,
2 gamma^i / (gamma + 1). Counts can be added and subtracted, which is what a sliding window needs.
"""

from __future__ import annotations

import math
from array import array
from math import ceil, log
from typing import Final

RELATIVE_ERROR: Final = 0.01
SMALLEST_S: Final = 1e-6
LARGEST_S: Final = 3600.0

_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_PER_LOG: Final = 1 / math.log(_GAMMA)
_FIRST: Final = math.ceil(math.log(SMALLEST_S) * _PER_LOG)
_LAST: Final = math.ceil(math.log(LARGEST_S) * _PER_LOG)
BUCKETS: Final = _LAST - _FIRST + 1
_CENTRES: Final = array("d", (2 * _GAMMA**index / (_GAMMA + 1) for index in range(_FIRST, _LAST + 1)))


class QuantileSketch:
    """Counts of durations from 1 us to 1 h in buckets 2 % wide.

    Shorter and longer ones are counted in the first and the last bucket, and reported as 1 us and
    1 h. A sketch holds 4 bytes for each of its 1,100 buckets, whatever it has seen.

    >>> sketch = QuantileSketch()
    >>> for milliseconds in range(1, 101):
    ...     sketch.add(milliseconds / 1000)
    >>> round(sketch.quantile(0.5), 3)
    0.05
    """

    __slots__ = ("_counts", "count")

    def __init__(self) -> None:
        self._counts = array("I", bytes(BUCKETS * array("I").itemsize))
        self.count = 0

    def add(self, value: float) -> None:
        """Count one duration.

        Args:
            value: Seconds. What is no number of seconds (negative, NaN) is counted as the shortest.
        """
        if SMALLEST_S < value < LARGEST_S:
            self._counts[ceil(log(value) * _PER_LOG) - _FIRST] += 1
        else:
            self._counts[BUCKETS - 1 if value >= LARGEST_S else 0] += 1
        self.count += 1

    def merge(self, other: QuantileSketch) -> None:
        """Add what `other` has counted."""
        for index, count in enumerate(other._counts):
            if count:
                self._counts[index] += count
        self.count += other.count

    def subtract(self, other: QuantileSketch) -> None:
        """Take away what `other` has counted, all of which has been added here before."""
        for index, count in enumerate(other._counts):
            if count:
                self._counts[index] -= count
        self.count -= other.count

    def clear(self) -> None:
        """Forget everything."""
        self._counts = array("I", bytes(BUCKETS * array("I").itemsize))
        self.count = 0

    def copy(self) -> QuantileSketch:
        """A sketch that goes its own way."""
        other = QuantileSketch()
        other._counts = self._counts[:]
        other.count = self.count
        return other

    def quantile(self, q: float) -> float:
        """The duration in seconds that a share `q` of the durations does not exceed; NaN while empty.

        Args:
            q: From 0 to 1. The result is within 1 % of the value of rank floor(q (n - 1)).

        Raises:
            ValueError: If `q` is not from 0 to 1.
        """
        return self.quantiles((q,))[0]

    def quantiles(self, qs: tuple[float, ...]) -> tuple[float, ...]:
        """Several quantiles in one pass; `qs` has to ascend."""
        if not all(0 <= q <= 1 for q in qs):
            msg = f"quantiles {qs!r}; expected numbers from 0 to 1"
            raise ValueError(msg)
        if self.count == 0:
            return (math.nan,) * len(qs)
        ranks = [math.floor(q * (self.count - 1)) for q in qs]
        found: list[float] = []
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            while len(found) < len(ranks) and seen > ranks[len(found)]:
                found.append(_CENTRES[index])
            if len(found) == len(ranks):
                break
        return tuple(found)
