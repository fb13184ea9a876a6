"""Paired timing: every round times every variant once, in random order, on the calling thread's CPU clock.

The difference of two variants is taken within a round, milliseconds apart, so that a machine that
gets slower for a while slows both. CPU time of the thread leaves out what other processes and the
exporter's thread do, but not what they do to caches and clock rates. That only ever adds time, hence
a block of calls stands for its 10th percentile, and of all rounds the quieter half counts, by the
time that the whole round took, so that no variant is favoured. What calls leave to a thread of ours is
done and timed after each block, and reported beside. The garbage collector is off inside
a timed block, for all variants alike.
"""

from __future__ import annotations

import gc
import random
from dataclasses import dataclass
from itertools import repeat
from time import monotonic, thread_time_ns
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_CALLS = 50
"""Calls in a block: with their warm-up fewer than wake the batch processor's thread (512)."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to make the same call."""

    name: str
    call: Callable[[], Any]
    enter: Callable[[], None]
    """Switches the process to this variant."""
    settle: Callable[[], None]
    """Does what the block's calls have left to a thread of ours; timed apart from them."""
    leave: Callable[[], None]
    """Puts away what the block left behind (spans in a queue)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with the range that says how sure it is."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(value=self.value * factor, low=self.low * factor, high=self.high * factor)


def median_of(values: Any) -> Estimate:
    """The median, with its 90 % bootstrap interval."""
    values = np.asarray(values)
    low, high = np.percentile(np.median(values[_picks(len(values))], axis=1), (5, 95)).tolist()
    return Estimate(value=float(np.median(values)), low=low, high=high)


def ratio_of(ours: Any, theirs: Any) -> Estimate:
    """The ratio of two medians over the same rounds, with its 90 % bootstrap interval."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    picks = _picks(len(ours))
    low, high = np.percentile(np.median(ours[picks], axis=1) / np.median(theirs[picks], axis=1), (5, 95)).tolist()
    return Estimate(value=float(np.median(ours) / np.median(theirs)), low=low, high=high)


def _picks(rounds: int) -> Any:
    """Rounds drawn anew 2000 times: the same ones for both sides of a ratio, as they were measured."""
    return np.random.default_rng(0).integers(0, rounds, size=(2000, rounds))


class Timings:
    """Nanoseconds per call: a row for each variant, with a number for each round."""

    def __init__(self, rows: dict[str, list[float]], settled: dict[str, list[float]]) -> None:
        whole = np.sum([np.array(row) / np.median(row) for row in rows.values()], axis=0)
        quiet = whole <= np.median(whole)
        self._rows = {name: np.array(row)[quiet] for name, row in rows.items()}
        self._settled = {name: np.array(row)[quiet] for name, row in settled.items()}
        self.rounds = int(quiet.sum())

    def bare_us(self) -> float:
        """The call without anything around it."""
        return float(np.median(self._rows["bare"])) / 1000

    def added_us(self, name: str) -> Estimate:
        """What `name` adds to the bare call: median over rounds, 10th and 90th percentile."""
        low, value, high = (np.percentile(self._added(name), (10, 50, 90)) / 1000).tolist()
        return Estimate(value=value, low=low, high=high)

    def median_us(self, name: str) -> Estimate:
        """What `name` adds to the bare call: median over rounds, with the interval of the median."""
        return median_of(self._added(name) / 1000)

    def ratio(self, name: str, baseline: str) -> Estimate:
        """Added cost of `name` in units of that of `baseline`."""
        return ratio_of(self._added(name), self._added(baseline))

    def total_ratio(self, name: str, baseline: str) -> Estimate:
        """The same with all that the calls leave to a thread of ours."""
        ours, theirs = (self._added(each) + self._settled[each] for each in (name, baseline))
        return ratio_of(ours, theirs)

    def _added(self, name: str) -> Any:
        return self._rows[name] - self._rows["bare"]


def measure(variants: Sequence[Variant], *, budget_s: float, block_s: float = 0.005) -> Timings:
    """Time `variants`, one of which is called `bare`, round after round until `budget_s` is spent."""
    calls = _calls_per_block(variants, block_s)
    rows: dict[str, list[float]] = {variant.name: [] for variant in variants}
    settled: dict[str, list[float]] = {variant.name: [] for variant in variants}
    order = list(variants)
    deadline_s = monotonic() + budget_s
    while monotonic() < deadline_s or len(rows["bare"]) < 3:
        random.shuffle(order)
        for variant in order:
            call_ns, settle_ns = _block_ns(variant, calls)
            rows[variant.name].append(call_ns)
            settled[variant.name].append(settle_ns)
        gc.collect(0)
    return Timings(rows, settled)


def _block_ns(variant: Variant, calls: int) -> tuple[float, float]:
    """Nanoseconds of a call, and of what a call leaves to be done."""
    call = variant.call
    variant.enter()
    gc.disable()
    try:
        # Switching a method drops the interpreter's inline caches: warm them, or they are what is measured.
        for _ in repeat(None, max(1, calls // 2)):
            call()
        spent_ns = []
        for _ in repeat(None, calls):
            started_ns = thread_time_ns()
            call()
            spent_ns.append(thread_time_ns() - started_ns)
        started_ns = thread_time_ns()
        variant.settle()
        settle_ns = (thread_time_ns() - started_ns) / (calls + max(1, calls // 2))
        return float(np.percentile(spent_ns, 10)), settle_ns
    finally:
        gc.enable()
        variant.leave()


def _calls_per_block(variants: Sequence[Variant], block_s: float) -> int:
    for variant in variants:
        _block_ns(variant, 20)
    bare = next(variant for variant in variants if variant.name == "bare")
    return max(1, min(MAX_CALLS, round(block_s * 1e9 / _block_ns(bare, 5)[0])))
