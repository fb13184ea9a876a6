"""How many calls should run at once, found by trying: a hill climb on the work done per second."""

from __future__ import annotations

import math
from typing import Final

_STEPS: Final = (1.0, 0.2)
"""Steps up as shares of the limit, and their inverses down: first double and half, then a fifth."""
_TIE: Final = 0.03
"""Difference in throughput that is not worth another running call."""
_SURE: Final = 3.0
"""Standard errors by which a limit has to be better: it is looked at many times."""
_UNLIKELY: Final = 2.0
"""Standard errors by which it has to be worse to be given up."""
_MOST_CALLS: Final = 300
"""Calls under one limit after which a comparison that is still open is given up."""
_BLOCK: Final = 10
"""Calls of a block; with more places as many as those."""
_PATIENCE: Final = 2
"""Later calls that may end, as a multiple of the block's, before those of the block that still run are given up."""
_LEAST: Final = 5
"""Calls of a block that have to say something."""
_BUSY: Final = 0.9
_BUSY_REFUSING: Final = 0.7
"""Share of the places that have to be taken on average for a block to tell something.

Fewer where calls are turned away meanwhile: a deadline that leaves no time to wait leaves places empty between calls.
"""
_SHORT_HOLD_S: Final = 10.0
_LONG_HOLD_S: Final = 120.0
_SHIFT: Final = math.log(1.22)
"""Change of the slowness, as a logarithm, by which machine or model are not what they were."""


class _Sample:
    """Calls under one limit: how long they took for how much work, and how many of them ran at once."""

    __slots__ = ("calls", "in_time", "limit", "running", "time_s", "time_square", "time_work", "work", "work_square")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.calls = 0
        self.running = 0.0
        """How many ran at once on average."""
        self.time_s = self.work = 0.0
        self.time_square = self.time_work = self.work_square = 0.0
        self.in_time = 0.0
        """Work of those that did not take longer than the deadline."""

    def add(self, service_s: float, work: float, in_time: float) -> None:
        """Count a call."""
        self.calls += 1
        self.time_s += service_s
        self.work += work
        self.time_square += service_s * service_s
        self.time_work += service_s * work
        self.work_square += work * work
        self.in_time += in_time

    def merge(self, other: _Sample) -> None:
        """Count the calls of another sample too."""
        self.running += (other.running - self.running) * other.calls / (self.calls + other.calls)
        self.calls += other.calls
        self.time_s += other.time_s
        self.work += other.work
        self.time_square += other.time_square
        self.time_work += other.time_work
        self.work_square += other.work_square
        self.in_time += other.in_time

    def slowness(self) -> float:
        """Seconds per unit of work: of all the calls together, for those of little work say the least of it."""
        return self.time_s / self.work

    def variance(self) -> float:
        """Variance of the logarithm of the slowness, which is a ratio (Cochran, 1977, "Sampling Techniques", 6.4)."""
        ratio = self.slowness()
        square = self.time_square - 2.0 * ratio * self.time_work + ratio * ratio * self.work_square
        return max(0.0, square) / (self.time_s * self.time_s) * self.calls / (self.calls - 1)

    def log_rate(self) -> float:
        """Logarithm of the work done in time per second; half a call is added on either side, so that it is finite."""
        half = 0.5 * self.work / self.calls
        share = (self.in_time + half) / (self.work + 2.0 * half)
        return math.log(self.running / self.slowness() * share)

    def log_rate_variance(self) -> float:
        """Variance of `log_rate`: with that of the slowness those of how many ran and were in time, if not all were.

        A place is taken or empty for about as long as a call takes, so that n calls are worth n / 2 looks.
        """
        empty = max(0.0, self.limit / self.running - 1.0)
        late = 1.0 - self.in_time / self.work
        return self.variance() + 2.0 * (empty + late) / self.calls


class Climb:
    """Finds how many running calls do the most work in time, and of those that do about as much the fewest.

    The work done per second is X = N / slowness, N being the mean number of running calls and slowness the time that
    they take over their work (Little, 1961, "A proof for the queuing formula L = lambda W"), times the share of it that
    took no longer than the deadline: with more calls at once each takes longer. Two limits take turns in short blocks,
    so that a drift of the machine meets both; a step of it, seen as two blocks of one limit that disagree, begins the
    comparison anew. A block is made of calls that start one after the other while as many run as may, and lasts until
    most of them have ended: the first to end would be the short ones. d = ln X' - ln X and its standard error say which
    limit is kept: a larger one has to be better by 3 %, a smaller one may be worse by that much. Steps double and halve
    first, then change a fifth. When no step helps, the limit is held for 10 s, then for 20 s, up to 120 s, or until the
    slowness has changed by 22 %.

    One thread at a time.

    Args:
        limit: Where to start.
    """

    __slots__ = (
        "_block", "_busy_s", "_changed_s", "_ends", "_failed", "_hold_s", "_hold_until_s", "_kept", "_patience", "_refused",
        "_running", "_starts", "_step", "_tried", "_until_s", "_up", "limit", "since_s",
    )  # fmt: skip

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        """How many calls may run now; while two limits are compared it is one of them."""
        self._kept = self._tried = self._block = _Sample(self.limit)
        self._running = 0
        self._busy_s = self._changed_s = 0.0
        """Call-seconds since the block began, and until when they are counted."""
        self.since_s = self._until_s = math.inf
        """When the first and the last call of the block started; infinite while that has not happened.

        Before the first has, only that as many run as may is of interest.
        """
        self._starts = self._ends = self._patience = 0
        """Calls that are yet to start and to end until the block is complete."""
        self._step = 0
        self._up = False
        self._failed = 0
        self._hold_s = _SHORT_HOLD_S
        self._hold_until_s: float | None = None
        self._compare(0.0, self._kept)

    @property
    def fresh(self) -> bool:
        """Whether no call has been counted in the comparison that goes on."""
        return not self._kept.calls and not self._block.calls

    def counts(self, started: float) -> bool:
        """Whether a call that started then is one of those compared."""
        return self.since_s < started <= self._until_s

    def refused(self) -> None:
        """Say that a call was turned away."""
        self._refused = True

    def again(self, now: float) -> None:
        """Begin the comparison that goes on anew: what was counted is no measure of the same thing.

        Args:
            now: Seconds on the caller's clock.
        """
        if self._hold_until_s is None:
            self._compare(now, self._kept)

    def began(self, now: float, running: int) -> None:
        """Say that a call started.

        Args:
            now: Seconds on the caller's clock.
            running: How many run now.
        """
        self._count(now, running)
        if self.since_s < now and self._starts:
            self._starts -= 1
            if not self._starts:
                self._until_s = now

    def ended(
        self, now: float, running: int, started: float, service_s: float = 0.0, work: float = 0.0, in_time: float = 0.0
    ) -> None:
        """Say that a call ended, and change `limit` if that is due.

        Args:
            now: Seconds on the caller's clock.
            running: How many run now.
            started: When it started.
            service_s: Seconds that it was worked on.
            work: What it was of work, in any unit; 0 where its time says nothing.
            in_time: The same if it took no longer than the deadline, else 0.
        """
        self._count(now, running)
        if started > self._until_s:
            self._patience -= 1
        elif started > self.since_s:
            self._ends -= 1
            if work:
                self._block.add(service_s, work, in_time)
        if not self._ends or not self._patience:
            self._close(now)

    def _count(self, now: float, running: int) -> None:
        if self.since_s <= now:
            self._busy_s += self._running * max(0.0, now - self._changed_s)
        elif running == self.limit:
            # For the first time since the limit changed, or since the clock went back.
            self._begin(self.limit)
            self.since_s = now
        self._changed_s = now
        self._running = running

    def _begin(self, limit: int) -> None:
        """Begin a block."""
        self.limit = limit
        self._block = _Sample(limit)
        self._busy_s = 0.0
        self._refused = False
        self.since_s = self._until_s = math.inf
        self._starts = max(_BLOCK, limit)
        self._ends = self._starts
        self._patience = _PATIENCE * self._starts

    def _close(self, now: float) -> None:
        """Make use of a block, if as many calls ran as might and enough of them say something."""
        block = self._block
        block.running = self._busy_s / max(now - self.since_s, 1e-9)
        busy = _BUSY_REFUSING if self._refused else _BUSY
        if block.running < busy * block.limit or block.calls < _LEAST:
            self._begin(block.limit)
        elif self._hold_until_s is None:
            self._take(now, block)
        else:
            self._watch(now, block)

    def _take(self, now: float, block: _Sample) -> None:
        """Add a block to the comparison; decide after each block of the limit that was kept so far, but the first."""
        kept, tried = self._kept, self._tried
        of = kept if block.limit == kept.limit else tried
        if of.calls and _shifted(of, block):
            self._compare(now, kept)
            return
        of.merge(block)
        better = self._better() if of is kept and tried.calls else None
        if better is None:
            self._begin(tried.limit if of is kept else kept.limit)
        elif better:
            self._failed = 0
            self._compare(now, tried)
        else:
            self._turn(now)

    def _better(self) -> bool | None:
        """Whether the limit that is tried is better; `None` while that is open."""
        kept, tried = self._kept, self._tried
        gain = tried.log_rate() - kept.log_rate() + (-_TIE if self._up else _TIE)
        error = math.sqrt(kept.log_rate_variance() + tried.log_rate_variance())
        if gain > _SURE * error:
            return True
        if gain < -_UNLIKELY * error:
            return False
        return False if min(kept.calls, tried.calls) >= _MOST_CALLS else None

    def _compare(self, now: float, kept: _Sample) -> None:
        """Begin to compare a limit with the next one on the side looked at."""
        self._kept = kept
        limit, factor = kept.limit, 1.0 + _STEPS[self._step]
        if limit == 1 and not self._up:
            self._turn(now)
            return
        other = max(limit + 1, round(limit * factor)) if self._up else min(limit - 1, round(limit / factor))
        self._kept, self._tried = _Sample(limit), _Sample(other)
        self._begin(limit)

    def _turn(self, now: float) -> None:
        """Look the other way; after both ways with shorter steps; after the shortest not at all for a while."""
        self._up = not self._up
        self._failed += 1
        if self._failed > 1:
            self._failed = 0
            self._step += 1
        if self._step < len(_STEPS):
            self._compare(now, self._kept)
        else:
            self._hold_until_s = now + self._hold_s
            self._begin(self._kept.limit)

    def _watch(self, now: float, block: _Sample) -> None:
        """End a hold when it is over, or when machine or model are not what they were."""
        shifted = bool(self._kept.calls) and _shifted(self._kept, block)
        over = self._hold_until_s is not None and not 0.0 < self._hold_until_s - now <= self._hold_s
        if not shifted and not over:
            self._begin(block.limit)
            return
        self._hold_s = _SHORT_HOLD_S if shifted else min(2.0 * self._hold_s, _LONG_HOLD_S)
        self._step = 0 if shifted else len(_STEPS) - 1
        self._hold_until_s = None
        self._compare(now, self._kept)


def _shifted(before: _Sample, now: _Sample) -> bool:
    """Whether calls under the same limit became slower or faster by more than chance and 22 %."""
    change = abs(math.log(now.slowness() / before.slowness()))
    return change > _SHIFT and change > 3.0 * math.sqrt(before.variance() + now.variance())
