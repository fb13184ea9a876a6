"""What the probes saw over the last half hour, as means over slots of ten seconds."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from otel_inference.resources.reading import CPU, GPU, GPU_MEMORY, MEMORY

if TYPE_CHECKING:
    from otel_inference.resources.reading import Pressure, Reading

SLOT_S: Final = 10.0
_SLOTS: Final = 180

# Names of signals.
CPU_RATIO: Final = "cpu_ratio"
CPU_USED_CORES: Final = "cpu_used_cores"
CPU_BUSY_RATIO: Final = "cpu_busy_ratio"
"""Share of time in which the processors were not idle, whoever used them."""
CPU_WAIT_RATIO: Final = "cpu_wait_ratio"
"""Share of time in which a task waited for a processor."""
THROTTLED_RATIO: Final = "cpu_throttled_ratio"
MEMORY_RATIO: Final = "memory_ratio"
MEMORY_WAIT_RATIO: Final = "memory_wait_ratio"
"""Share of time in which a task waited for memory."""
MEMORY_LIMIT_HITS: Final = "memory_limit_hits"
GC_PAUSE_RATIO: Final = "gc_pause_ratio"
INTERPRETER_DELAY_S: Final = "interpreter_delay_s"
CALL_LOCK_RATIO: Final = "call_lock_ratio"
"""Share of the calls' time in which they waited for another thread."""
CALL_PAUSE_RATIO: Final = "call_pause_ratio"
"""Share of it in which they waited for input, output or a time."""
GPU_RATIO: Final = "gpu_ratio"
GPU_MEMORY_RATIO: Final = "gpu_memory_ratio"
GPU_CLOCKS_HELD: Final = "gpu_clocks_held"
"""1 while heat or a fault holds the clocks of an accelerator down."""
GPU_ALLOC_RETRIES: Final = "gpu_alloc_retries"
GPU_OOMS: Final = "gpu_ooms"

_HELD_BY: Final = frozenset({"thermal", "hardware", "power_brake"})  # a power cap is how a busy device runs


class Signals:
    """Running sums, noted at the begin of each slot, so that a mean over any stretch of time costs the same.

    The clock is passed in and never goes back.
    """

    def __init__(self) -> None:
        self.latest: Reading | None = None
        self._sums: dict[str, tuple[float, int]] = {}
        """Of all readings, by signal: their sum, and how many there were."""
        self._begins: deque[dict[str, tuple[float, int]]] = deque(maxlen=_SLOTS)
        """The sums as they were when each slot began, the latest last."""
        self._index = 0
        """Number of the latest slot; slot i begins at i times ten seconds."""
        self._torch_before: tuple[int, int] | None = None

    def note(self, reading: Reading, at_s: float) -> bool:
        """Take what was seen at `at_s`; returns whether it is a new reading."""
        if self.latest is not None and reading.at_s == self.latest.at_s:
            return False
        self._advance(math.floor(at_s / SLOT_S))
        for name, value in (_values(reading) | self._torch_values(reading)).items():
            if value is not None:
                total, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (total + value, count + 1)
        self.latest = reading
        return True

    def mean(self, name: str, from_s: float, to_s: float) -> float | None:
        """Mean of a signal over the slots that begin from `from_s` on and before `to_s`; `None` where it was not read."""
        total, count = self._before(math.ceil(to_s / SLOT_S)).get(name, (0.0, 0))
        total_before, count_before = self._before(math.ceil(from_s / SLOT_S)).get(name, (0.0, 0))
        return (total - total_before) / (count - count_before) if count > count_before else None

    def course(self, name: str, from_s: float, to_s: float) -> list[tuple[float, float]]:
        """When each of these slots began, and its mean, oldest first; slots in which it was not read are left out."""
        begins, oldest = [*self._begins, self._sums], self._index - len(self._begins) + 1
        found = []
        for index in range(max(math.ceil(from_s / SLOT_S), oldest), min(math.ceil(to_s / SLOT_S), self._index + 1)):
            total_before, count_before = begins[index - oldest].get(name, (0.0, 0))
            total, count = begins[index - oldest + 1].get(name, (0.0, 0))
            if count > count_before:
                found.append((index * SLOT_S, (total - total_before) / (count - count_before)))
        return found

    def _before(self, index: int) -> dict[str, tuple[float, int]]:
        """The sums when slot `index` began; of the oldest known slot if that was longer ago."""
        back = self._index - index
        if back < 0 or not self._begins:
            return self._sums
        return self._begins[max(0, len(self._begins) - 1 - back)]

    def _advance(self, index: int) -> None:
        if not self._begins:
            self._index = index - 1
        for _ in range(min(index - self._index, _SLOTS)):
            self._begins.append(dict(self._sums))
        self._index = max(self._index, index)

    def _torch_values(self, reading: Reading) -> dict[str, float | None]:
        """What torch's allocator counted since the reading before."""
        if not reading.torch_memory:
            return {}
        counts = (
            sum(memory.alloc_retries for memory in reading.torch_memory),
            sum(memory.ooms for memory in reading.torch_memory),
        )
        before, self._torch_before = self._torch_before or counts, counts
        allocated_ratio = max(memory.allocated_bytes / max(memory.total_bytes, 1) for memory in reading.torch_memory)
        return {
            GPU_ALLOC_RETRIES: max(0, counts[0] - before[0]),
            GPU_OOMS: max(0, counts[1] - before[1]),
            GPU_MEMORY_RATIO: allocated_ratio,
        }


def _values(reading: Reading) -> dict[str, float | None]:
    ours = [each for each in reading.accelerators if each.is_ours] or reading.accelerators
    limits = [each.clocks_limited_by for each in ours if each.clocks_limited_by is not None]
    return {
        CPU_RATIO: reading.utilization.get(CPU),
        CPU_USED_CORES: reading.cpu_used_cores,
        CPU_BUSY_RATIO: reading.cpu_busy_ratio,
        CPU_WAIT_RATIO: _some(reading.cpu_pressure),
        THROTTLED_RATIO: _throttled_ratio(reading),
        MEMORY_RATIO: reading.utilization.get(MEMORY),
        MEMORY_WAIT_RATIO: _some(reading.memory_pressure),
        MEMORY_LIMIT_HITS: reading.memory_limit_hits,
        GC_PAUSE_RATIO: reading.gc_pause_ratio,
        INTERPRETER_DELAY_S: reading.interpreter_delay_s,
        CALL_LOCK_RATIO: reading.call_lock_ratio,
        CALL_PAUSE_RATIO: reading.call_pause_ratio,
        GPU_RATIO: reading.utilization.get(GPU),
        # Where torch tells what it holds in use, that counts: it keeps the rest in reserve.
        GPU_MEMORY_RATIO: reading.utilization.get(GPU_MEMORY),
        GPU_CLOCKS_HELD: max((float(not _HELD_BY.isdisjoint(held)) for held in limits), default=None),
    }


def _throttled_ratio(reading: Reading) -> float | None:
    """Nothing stops a process that has no quota, and it may be given one."""
    if reading.cpu_throttled_ratio is None and reading.cpu_used_cores is not None:
        return 0.0
    return reading.cpu_throttled_ratio


def _some(pressure: Pressure | None) -> float | None:
    return None if pressure is None else pressure.some_avg10_ratio
