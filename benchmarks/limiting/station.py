"""The server: what happens to calls once they are let in."""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import Protocol


class Station(Protocol):
    """Works on calls. Time must not go back; a call is known by its index."""

    next_s: float
    """When the next call ends if nothing else happens; infinite when there is none."""

    def start(self, now_s: float, call: int, work_s: float) -> None:
        """Let a call in."""

    def end(self) -> int:
        """The call that ends at `next_s`."""

    def change_speed(self, now_s: float, speed: float) -> None:
        """Work at `speed` times the full speed from now on."""


class Fifo:
    """Workers that take one call each, first come first served."""

    def __init__(self, workers: int) -> None:
        self.next_s = math.inf
        self._idle = workers
        self._speed = 1.0
        self._busy: list[tuple[float, int]] = []
        self._waiting: deque[tuple[int, float]] = deque()

    def start(self, now_s: float, call: int, work_s: float) -> None:
        if self._idle:
            self._idle -= 1
            heapq.heappush(self._busy, (now_s + work_s / self._speed, call))
            self.next_s = self._busy[0][0]
        else:
            self._waiting.append((call, work_s))

    def end(self) -> int:
        now_s, call = heapq.heappop(self._busy)
        self._idle += 1
        if self._waiting:
            self.start(now_s, *self._waiting.popleft())
        self.next_s = self._busy[0][0] if self._busy else math.inf
        return call

    def change_speed(self, now_s: float, speed: float) -> None:
        stretch = self._speed / speed
        self._busy = [(now_s + (end_s - now_s) * stretch, call) for end_s, call in self._busy]
        self._speed = speed
        self.next_s = self._busy[0][0] if self._busy else math.inf


class ProcessorSharing:
    """All calls at once, each with the same share of `workers`, and the less in all the more calls there are.

    With n > workers calls the whole does workers / (1 + thrash * (n / workers - 1)) seconds of work per second.
    Calls end in the order of the work they were given when the work done on each since the begin is taken as time.
    """

    def __init__(self, workers: int, thrash: float) -> None:
        self.next_s = math.inf
        self._workers = workers
        self._thrash = thrash
        self._speed = 1.0
        self._each_s = 0.0
        """Work done so far on a call that was there all the time."""
        self._at_s = 0.0
        self._rate = 1.0
        self._heap: list[tuple[float, int]] = []

    def start(self, now_s: float, call: int, work_s: float) -> None:
        self._advance(now_s)
        heapq.heappush(self._heap, (self._each_s + work_s, call))
        self._schedule()

    def end(self) -> int:
        self._at_s = self.next_s
        self._each_s, call = heapq.heappop(self._heap)
        self._schedule()
        return call

    def change_speed(self, now_s: float, speed: float) -> None:
        self._advance(now_s)
        self._speed = speed
        self._schedule()

    def _advance(self, now_s: float) -> None:
        self._each_s += (now_s - self._at_s) * self._rate
        self._at_s = now_s

    def _schedule(self) -> None:
        running, workers = len(self._heap), self._workers
        if not running:
            self.next_s = math.inf
            return
        self._rate = self._speed
        if running > workers:
            self._rate *= workers / (running * (1.0 + self._thrash * (running / workers - 1.0)))
        self.next_s = self._at_s + max(0.0, self._heap[0][0] - self._each_s) / self._rate
