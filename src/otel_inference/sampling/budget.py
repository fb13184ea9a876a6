"""How many traces a second: a hard limit, and the estimates that keep sampling below it without bias.

A limit that simply turns away what comes too late distorts every count. So the rate of each model
is estimated, and its probability set such that the limit is rarely met (`Rate`, `fair_level`); the
limit itself (`Budget`) is what holds when the estimate lags behind.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

FAST_S: Final = 0.5
SLOW_S: Final = 5.0
"""Time constants of the estimate: a rise is believed after the first, a fall after the second."""

_LEAST_S: Final = 0.1
"""Arrivals count as spread over at least this, so that the first two are not taken for a flood."""

_NEWCOMERS: Final = 10
"""One part in this many is kept free for those that have had less than their share."""


class Rate:
    """Arrivals per second, exponentially weighted.

    Count and time decay alike, by `b = exp(-dt / tau)`, and the rate is the one over the other, as in
    the consistent rate limiting sampler of OpenTelemetry's Java contributions; but the time is that of
    arrivals spread evenly, `A = A b + tau (1 - b)`, which silence does not let grow. Of the two time
    constants the greater rate counts: exceeding a limit is worse than falling short of it for a moment.

    Args:
        born_s: When counting begins.
    """

    __slots__ = ("_at_s", "_fast", "_slow")

    def __init__(self, born_s: float) -> None:
        self._at_s = born_s
        self._fast = _Decayed(FAST_S)
        self._slow = _Decayed(SLOW_S)

    def add(self, arrivals: float, now_s: float) -> float:
        """Count what has arrived since the last time.

        Args:
            arrivals: How many.
            now_s: The present, on the clock of `born_s`.

        Returns:
            Arrivals per second.
        """
        passed_s = max(0.0, now_s - self._at_s)
        self._at_s = max(now_s, self._at_s)
        return max(self._fast.add(arrivals, passed_s), self._slow.add(arrivals, passed_s))


class _Decayed:
    __slots__ = ("_constant_s", "_count", "_time_s")

    def __init__(self, constant_s: float) -> None:
        self._constant_s = constant_s
        self._count = 0.0
        self._time_s = 0.0

    def add(self, arrivals: float, passed_s: float) -> float:
        decay = math.exp(-passed_s / self._constant_s)
        weighted_s = self._constant_s * (1.0 - decay)
        # They came spread over the time that has passed, the first of them have decayed since.
        self._count = self._count * decay + arrivals * (weighted_s / passed_s if passed_s > 0.0 else 1.0)
        self._time_s = self._time_s * decay + weighted_s
        return self._count / max(_LEAST_S, self._time_s)


def fair_level(wants: Sequence[float], total: float) -> float:
    """What each may have at most, so that together they have no more than `total` (max-min fairness).

    Those that want less than the level have all they want, and what they leave goes to the others.

    Returns:
        The level, in the unit of `wants`; infinite where there is enough for all.

    >>> fair_level([1.0, 10.0, 100.0], 31.0)
    20.0
    >>> fair_level([1.0, 2.0], 31.0)
    inf
    """
    left = total
    ascending = sorted(wants)
    for index, want in enumerate(ascending):
        level = left / (len(ascending) - index)
        if want > level:
            return level
        left -= want
    return math.inf


class Budget:
    """A limit that no second exceeds, wherever it begins, shared fairly.

    It remembers when each of its last places was taken, which is stricter than a bucket of tokens: a
    bucket that is full lets twice its rate pass within one second. A tenth of the places is open
    only to those that have had less than their share, so that one that takes all it can get leaves
    something for the next.

    Args:
        per_second: Places; below 1 they are spread over the time between two of them.
    """

    def __init__(self, per_second: float) -> None:
        self._places = math.ceil(per_second)
        self._width_s = self._places / per_second if per_second > 0.0 else 1.0
        self._taken: deque[tuple[float, str]] = deque()
        self._by_key: Counter[str] = Counter()

    def has_room(self, key: str, now_s: float) -> bool:
        """Whether `key` may take a place now."""
        self._forget(now_s)
        free = self._places - len(self._taken)
        if free > self._places // _NEWCOMERS:
            return True
        share = self._places // (len(self._by_key) + 1)
        return free > 0 and self._by_key[key] < max(1, share)

    def take(self, key: str, now_s: float) -> None:
        """Take a place for `key`, which must have had room."""
        self._taken.append((now_s, key))
        self._by_key[key] += 1

    def _forget(self, now_s: float) -> None:
        while self._taken and self._taken[0][0] <= now_s - self._width_s:
            _, key = self._taken.popleft()
            self._by_key[key] -= 1
            if not self._by_key[key]:
                del self._by_key[key]
