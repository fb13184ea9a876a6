"""Limits on the calls in flight, to compare with: fixed ones, and the rules of three well-known families.

Own words and own code after the published rules: Vegas and Gradient2 and AIMD as in Netflix' concurrency-limits.
They see what a limiter outside the server sees: how long a call was in flight and how many were.
"""

from __future__ import annotations

import math
import random
from typing import Protocol


class Limit(Protocol):
    """How many calls may be in flight."""

    value: float

    def sample(self, now_s: float, rtt_s: float, inflight: int) -> None:
        """A call was in flight for `rtt_s`; with it there were `inflight` when it came in."""


class InFlight:
    """A door with a limit and no queue of its own: a call beyond the limit is turned away."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._inflight = 0
        self._entered: dict[int, tuple[float, int]] = {}

    def arrive(self, now_s: float, call: int) -> bool:
        if self._inflight >= int(self.limit.value):
            return False
        self._inflight += 1
        self._entered[call] = now_s, self._inflight
        return True

    def leave(self, now_s: float, call: int) -> list[int]:
        self._inflight -= 1
        entered_s, inflight = self._entered.pop(call)
        self.limit.sample(now_s, now_s - entered_s, inflight)
        return []


class Fixed:
    """The same limit all the time."""

    def __init__(self, value: float) -> None:
        self.value = value

    def sample(self, now_s: float, rtt_s: float, inflight: int) -> None:
        pass


class Scheduled(InFlight):
    """A door with a limit for each phase, chosen by someone who knew what would come."""

    def __init__(self, values: list[float], edges_s: list[float]) -> None:
        super().__init__(Fixed(values[0]))
        self._later = list(zip(edges_s[1:], values[1:], strict=False))

    def arrive(self, now_s: float, call: int) -> bool:
        while self._later and now_s >= self._later[0][0]:
            self.limit.value = self._later.pop(0)[1]
        return super().arrive(now_s, call)


class Aimd:
    """One more while calls are quick, a tenth less after a slow one."""

    def __init__(
        self, *, timeout_s: float = 5.0, initial: float = 20, lowest: float = 20, highest: float = 200
    ) -> None:
        self.value = initial
        self._timeout_s, self._lowest, self._highest = timeout_s, lowest, highest

    def sample(self, now_s: float, rtt_s: float, inflight: int) -> None:  # noqa: ARG002
        if rtt_s > self._timeout_s:
            self.value = math.floor(self.value * 0.9)
        elif inflight * 2 >= self.value:
            self.value += 1
        self.value = min(self._highest, max(self._lowest, self.value))


class Vegas:
    """Keeps the queue, as told from the shortest time seen, between 3 and 6 times log10 of the limit."""

    def __init__(self, *, initial: float = 20, highest: float = 1000, seed: int = 0) -> None:
        self.value = initial
        self._highest = highest
        self._rng = random.Random(seed)
        self._shortest_s = math.inf
        self._left = self._until_probe()

    def sample(self, now_s: float, rtt_s: float, inflight: int) -> None:  # noqa: ARG002
        self._left -= 1
        if self._left <= 0:
            self._left = self._until_probe()
            self._shortest_s = rtt_s
        elif rtt_s < self._shortest_s:
            self._shortest_s = rtt_s
        elif inflight * 2 >= self.value:
            self._step(math.ceil(self.value * (1 - self._shortest_s / rtt_s)))

    def _step(self, queue: int) -> None:
        log = max(1, int(math.log10(self.value)))
        if queue <= log:
            self.value += 6 * log
        elif queue < 3 * log:
            self.value += log
        elif queue > 6 * log:
            self.value -= log
        self.value = min(self._highest, max(1, self.value))

    def _until_probe(self) -> float:
        return self._rng.uniform(0.5, 1.0) * 30 * self.value


class Gradient2:
    """Follows the ratio of the long-term to the present time in flight."""

    def __init__(self, *, initial: float = 20, lowest: float = 20, highest: float = 200) -> None:
        self.value = initial
        self._lowest, self._highest = lowest, highest
        self._long_s = 0.0
        self._samples = 0

    def sample(self, now_s: float, rtt_s: float, inflight: int) -> None:  # noqa: ARG002
        self._samples += 1
        warm = 10
        factor = 1 / self._samples if self._samples <= warm else 2 / 601
        self._long_s += (rtt_s - self._long_s) * factor
        if self._long_s > 2 * rtt_s:
            self._long_s *= 0.95
        if inflight < self.value / 2:
            return
        gradient = max(0.5, min(1.0, 1.5 * self._long_s / rtt_s))
        aim = gradient * self.value + 4
        self.value = min(self._highest, max(self._lowest, self.value * 0.8 + aim * 0.2))


class Windowed:
    """Gives a limit the mean of a second, of at least ten calls."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self.value = limit.value
        self._until_s = 0.0
        self._clear()

    def sample(self, now_s: float, rtt_s: float, inflight: int) -> None:
        self._sum_s += rtt_s
        self._calls += 1
        self._most = max(self._most, inflight)
        if now_s > self._until_s and self._calls >= 10:
            self._limit.sample(now_s, self._sum_s / self._calls, self._most)
            self.value = self._limit.value
            self._until_s = now_s + 1.0
            self._clear()

    def _clear(self) -> None:
        self._sum_s, self._calls, self._most = 0.0, 0, 0
