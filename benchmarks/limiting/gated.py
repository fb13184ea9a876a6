"""The package's gate before the simulated server, enforced as the limiter enforces it: one queue, oldest first."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.limiting.workload import Workload
    from otel_inference.maintenance.gate import Gate


class Gated:
    """A door that asks a gate."""

    def __init__(self, gate: Gate, workload: Workload, *, sized: bool) -> None:
        self._gate = gate
        self._arrivals_s = workload.arrivals_s
        self._sizes: list[float] | list[None] = workload.sizes if sized else [None] * len(workload.sizes)
        self._running = 0
        self._queue: deque[int] = deque()
        self._started_s: dict[int, float] = {}

    def arrive(self, now_s: float, call: int) -> bool:
        gate, queue = self._gate, self._queue
        if not gate.admit(now_s, self._running, len(queue), self._sizes[call]):
            return False
        if queue or self._running >= gate.run_limit(now_s):
            queue.append(call)
            return False
        self._start(now_s, call)
        return True

    def leave(self, now_s: float, call: int) -> list[int]:
        gate, queue = self._gate, self._queue
        self._running -= 1
        started_s = self._started_s.pop(call)
        gate.finished(now_s, started_s, now_s - started_s, self._sizes[call])
        ready = []
        while queue and self._running < gate.run_limit(now_s):
            first = queue.popleft()
            if gate.may_start(now_s, now_s - self._arrivals_s[first], self._sizes[first]):
                self._start(now_s, first)
                ready.append(first)
        return ready

    def _start(self, now_s: float, call: int) -> None:
        self._running += 1
        self._started_s[call] = now_s
