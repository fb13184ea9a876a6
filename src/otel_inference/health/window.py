"""What happened in the last W seconds, as a ring of sub-windows that calls leave smoothly.

Sub-window i holds the calls that ended from i w to (i + 1) w seconds. A call is counted in the
latest one only. When that is over its counts join the totals, and when it expires they are
subtracted again, so that asking costs the same however many calls there were.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from math import log2
from typing import Final

from otel_inference.health.sketch import QuantileSketch

Z_95: Final = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


SIZE_CLASSES: Final = 64
"""Classes of input size, each 1.41 times as large as the one before: up to 4 billion elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeClass:
    """Warm calls whose inputs were about as large as one another."""

    at_least: float
    """Smallest input of the class, in tokens or elements; the largest is 1.41 times that."""
    calls: int
    total_s: float

    @property
    def mean_s(self) -> float:
        """Mean duration of the class's calls."""
        return self.total_s / self.calls

    def merged(self, other: SizeClass) -> SizeClass:
        """Both together."""
        return SizeClass(at_least=self.at_least, calls=self.calls + other.calls, total_s=self.total_s + other.total_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSnapshot:
    """The contents of a window at one time; snapshots of several processes merge."""

    covered_s: float
    """Seconds that the counts are of: the window's width, or its age while it is younger."""
    calls: int
    errors: int
    warm_calls: int
    """Calls that the latency statistics are of: all but cold ones."""
    warm_total_s: float
    max_s: float
    sketch: QuantileSketch
    rejected: int = 0
    """Errors that are calls which a limiter turned away."""
    by_size: tuple[SizeClass, ...] = ()
    """Warm calls by the size of their input, smallest first; calls of unknown size are in none."""

    @property
    def throughput(self) -> float:
        """Calls ended per second, N / W."""
        return self.calls / self.covered_s if self.covered_s > 0 else 0.0

    @property
    def error_ratio(self) -> float:
        """Failed over all calls; 0 when there were none."""
        return self.errors / self.calls if self.calls else 0.0

    @property
    def error_ratio_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the error ratio."""
        return wilson_interval(self.errors, self.calls)

    @property
    def mean_s(self) -> float:
        """Mean duration of warm calls; NaN when there were none."""
        return self.warm_total_s / self.warm_calls if self.warm_calls else math.nan

    def merged(self, other: WindowSnapshot) -> WindowSnapshot:
        """Both together, as if one window had seen all calls of both."""
        sketch = self.sketch.copy()
        sketch.merge(other.sketch)
        return WindowSnapshot(
            covered_s=max(self.covered_s, other.covered_s),
            calls=self.calls + other.calls,
            errors=self.errors + other.errors,
            rejected=self.rejected + other.rejected,
            warm_calls=self.warm_calls + other.warm_calls,
            warm_total_s=self.warm_total_s + other.warm_total_s,
            max_s=max(self.max_s, other.max_s),
            sketch=sketch,
            by_size=_merged_sizes(self.by_size, other.by_size),
        )


def _merged_sizes(ones: tuple[SizeClass, ...], others: tuple[SizeClass, ...]) -> tuple[SizeClass, ...]:
    merged = {one.at_least: one for one in ones}
    for other in others:
        one = merged.get(other.at_least)
        merged[other.at_least] = other if one is None else one.merged(other)
    return tuple(merged[size] for size in sorted(merged))


class _Slot:
    """One sub-window."""

    __slots__ = (
        "calls",
        "errors",
        "max_s",
        "rejected",
        "size_calls",
        "size_ns",
        "sketch",
        "warm_calls",
        "warm_total_ns",
    )

    def __init__(self) -> None:
        self.sketch = QuantileSketch()
        self.size_calls = array("Q", bytes(8 * SIZE_CLASSES))
        self.size_ns = array("Q", bytes(8 * SIZE_CLASSES))
        self.calls = self.errors = self.rejected = self.warm_calls = self.warm_total_ns = 0
        self.max_s = 0.0

    def clear(self) -> None:
        if self.warm_calls:
            self.sketch.clear()
            self.size_calls = array("Q", bytes(8 * SIZE_CLASSES))
            self.size_ns = array("Q", bytes(8 * SIZE_CLASSES))
        self.calls = self.errors = self.rejected = self.warm_calls = self.warm_total_ns = 0
        self.max_s = 0.0

    def merge(self, other: _Slot) -> None:
        self.calls += other.calls
        self.errors += other.errors
        self.rejected += other.rejected
        if other.warm_calls:
            self.warm_calls += other.warm_calls
            self.warm_total_ns += other.warm_total_ns
            self.sketch.merge(other.sketch)
            for size_class, calls in enumerate(other.size_calls):
                if calls:
                    self.size_calls[size_class] += calls
                    self.size_ns[size_class] += other.size_ns[size_class]

    def subtract(self, other: _Slot) -> None:
        self.calls -= other.calls
        self.errors -= other.errors
        self.rejected -= other.rejected
        if other.warm_calls:
            self.warm_calls -= other.warm_calls
            self.warm_total_ns -= other.warm_total_ns
            self.sketch.subtract(other.sketch)
            for size_class, calls in enumerate(other.size_calls):
                if calls:
                    self.size_calls[size_class] -= calls
                    self.size_ns[size_class] -= other.size_ns[size_class]

    def copy(self) -> _Slot:
        other = _Slot()
        other.merge(self)
        return other


class SlidingWindow:
    """Counts and durations of the last `width_s` seconds.

    The clock is passed in. A time before the latest one seen (a clock stepped back, a call that
    was handed in late) counts as the latest.

    Args:
        width_s: Seconds that the window looks back.
        slots: Sub-windows it is made of; a call leaves it at most `width_s / slots` early.
        born_s: When the window began to see calls; a younger window divides by its age.

    Raises:
        ValueError: If the width or the number of sub-windows is not positive.
    """

    def __init__(self, *, width_s: float = 60.0, slots: int = 6, born_s: float = 0.0) -> None:
        if width_s <= 0 or slots < 1:
            msg = f"width_s={width_s!r}, slots={slots!r}; expected a positive width and at least one sub-window"
            raise ValueError(msg)
        self._slot_s = width_s / slots
        self._slots = [_Slot() for _ in range(slots)]
        self._born_s = born_s
        self._latest_s = born_s
        self._turn_to(math.floor(born_s / self._slot_s))
        self._completed = _Slot()
        """All sub-windows but the latest."""

    def add(
        self,
        at_s: float,
        duration_s: float,
        *,
        failed: bool = False,
        cold: bool = False,
        rejected: bool = False,
        size: int | None = None,
    ) -> None:
        """Count one call that ended at `at_s`.

        Args:
            at_s: When it ended, on the window's clock.
            duration_s: How long it took.
            failed: Whether it failed.
            cold: Whether it was a first call; it counts as a call, and its duration is kept apart.
            rejected: Whether a limiter turned it away; it then counts as failed, and has no duration.
            size: Tokens or elements of its input, if known.
        """
        if at_s > self._latest_s:
            if at_s < self._slot_ends_s:
                self._latest_s = at_s
            else:
                self._advance(at_s)
        slot = self._latest
        slot.calls += 1
        if failed:
            slot.errors += 1
        if rejected:
            slot.rejected += 1
        if cold or rejected:
            return
        slot.warm_calls += 1
        slot.sketch.add(duration_s)
        # Whole nanoseconds, so that adding and subtracting for days leaves no rounding behind.
        duration_ns = int(duration_s * 1e9)
        slot.warm_total_ns += duration_ns
        slot.max_s = max(slot.max_s, duration_s)
        if size is not None:
            index = _size_class(size)
            slot.size_calls[index] += 1
            slot.size_ns[index] += duration_ns

    def snapshot(self, at_s: float) -> WindowSnapshot:
        """What the window holds at `at_s`; the snapshot goes its own way."""
        self._advance(at_s)
        total = self._completed.copy()
        total.merge(self._latest)
        return WindowSnapshot(
            covered_s=self._covered_s(),
            calls=total.calls,
            errors=total.errors,
            rejected=total.rejected,
            warm_calls=total.warm_calls,
            warm_total_s=total.warm_total_ns / 1e9,
            max_s=max(slot.max_s for slot in self._slots),
            sketch=total.sketch,
            by_size=tuple(
                SizeClass(at_least=2 ** (index / 2) if index else 0, calls=calls, total_s=total.size_ns[index] / 1e9)
                for index, calls in enumerate(total.size_calls)
                if calls
            ),
        )

    def _covered_s(self) -> float:
        """From the start of the oldest sub-window, or from birth, until the latest time."""
        oldest_s = (self._index - len(self._slots) + 1) * self._slot_s
        return self._latest_s - max(oldest_s, self._born_s)

    def _advance(self, at_s: float) -> None:
        """Complete the latest sub-window and expire those that `at_s` has left behind."""
        if at_s <= self._latest_s:
            return
        self._latest_s = at_s
        if at_s < self._slot_ends_s:
            return
        self._completed.merge(self._latest)
        index = math.floor(at_s / self._slot_s)
        for step in range(1, min(index - self._index, len(self._slots)) + 1):
            expired = self._slots[(self._index + step) % len(self._slots)]
            self._completed.subtract(expired)
            expired.clear()
        self._turn_to(index)

    def _turn_to(self, index: int) -> None:
        self._index = index
        self._latest = self._slots[index % len(self._slots)]
        self._slot_ends_s = (index + 1) * self._slot_s


def _size_class(size: int) -> int:
    """Index of the class of an input: floor(2 log2 size)."""
    return min(int(2 * log2(size)), SIZE_CLASSES - 1) if size >= 1 else 0


def wilson_interval(failures: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Interval of a ratio that is honest about few trials (Wilson, JASA 1927).

    Args:
        failures: Trials that failed.
        trials: All of them; with none the interval is from 0 to 1.
        z: Quantile of the normal distribution; default: 95 %, two-sided.

    >>> [round(bound, 3) for bound in wilson_interval(1, 3)]
    [0.061, 0.792]
    """
    if trials == 0:
        return (0.0, 1.0)
    ratio, square = failures / trials, z * z / trials
    centre = ratio + square / 2
    half = z * math.sqrt(ratio * (1 - ratio) / trials + square / (4 * trials))
    low, high = (centre - half) / (1 + square), (centre + half) / (1 + square)
    return (0.0 if failures == 0 else max(0.0, low), 1.0 if failures == trials else min(1.0, high))
