"""A slowdown, and the signals around the time when it began."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis.signals import SLOT_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_inference.diagnosis.profile import Profile
    from otel_inference.diagnosis.signals import Signals

RECENT_S: Final = 60.0
_BEFORE_S: Final = 600.0
_AFTER_S: Final = 30.0
_SLOTS_AROUND: Final = 9
_APART_S: Final = 30.0
"""A signal that rose by more than this earlier or later than the calls slowed is not their cause."""
_DOSE: Final = 0.25
"""Least share of the lost time that a signal has to account for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What calls lose their time to."""

    subject: str
    """Of the bottleneck: `cpu`, `gc`, `decode`, ..., and `model` where only the model's own code is left."""
    evidence: Mapping[str, float]
    advice: str
    is_last_resort: bool = False
    """Whether it is what remains when no resource is short, so that it is wise to look once more."""
    is_seen: bool = True
    """Whether anything points to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowdown:
    """Calls of one size that take longer than they did."""

    since_s: float
    at_s: float
    ratio: float
    """Work on a call of one size, now over then."""
    input_ratio: float = 1.0
    """How much more work the sizes of the inputs make, now over then."""
    before: Profile
    after: Profile
    course: Sequence[tuple[float, float]] = field(default=())
    """When stretches ended, and the mean logarithm of service over its usual value in each, oldest first."""

    @property
    def lost_ratio(self) -> float:
        """Share of the calls' time that was not needed before."""
        return max(0.0, 1.0 - 1.0 / self.ratio)


@dataclass(frozen=True, slots=True)
class Change:
    """A signal before and after the calls slowed."""

    name: str
    before: float
    after: float

    @property
    def rise(self) -> float:
        """By how much it rose."""
        return self.after - self.before

    @property
    def evidence(self) -> dict[str, float]:
        """Both values by name."""
        return {self.name: round(self.after, 4), f"{self.name}_before": round(self.before, 4)}


class Scan:
    """Looks at signals around the time when calls slowed."""

    def __init__(self, slowdown: Slowdown, signals: Signals) -> None:
        self.slowdown = slowdown
        self._signals = signals
        self._changes: dict[str, Change | None] = {}
        self._slowed_s = [slowdown.since_s, *_slowed_s(slowdown)]

    def change(self, name: str) -> Change | None:
        """The signal before and after; `None` where it was not read on both sides."""
        if name not in self._changes:
            since_s, at_s = self.slowdown.since_s, self.slowdown.at_s
            before = self._signals.course(name, since_s - _BEFORE_S, since_s - 2 * SLOT_S)
            after = self._signals.mean(name, max(since_s, at_s - _AFTER_S), at_s + SLOT_S)
            self._changes[name] = None
            if before and after is not None:
                # The median, for the signal may have been high a few minutes ago and slowed the calls then too.
                self._changes[name] = Change(name, median(mean for _, mean in before), after)
        return self._changes[name]

    def risen(self, name: str, *, to: float, by: float = 0.0) -> Change | None:
        """The signal, if it rose to at least `to`, by at least `by`, and when the calls slowed."""
        change = self.change(name)
        if change is None or change.after < to or change.rise <= 0 or change.rise < by:
            return None
        return change if self._rose_together(change) else None

    def now(self, name: str) -> float | None:
        """The signal's recent mean."""
        return self._signals.mean(name, self.slowdown.at_s - _AFTER_S, self.slowdown.at_s + SLOT_S)

    @property
    def dose(self) -> float:
        """By how much a signal that is a share of time has to rise to matter."""
        return _DOSE * self.slowdown.lost_ratio

    def _rose_together(self, change: Change) -> bool:
        """Whether the signal crossed the middle between then and now when the calls' time did, if that can be told."""
        since_s, around_s = self.slowdown.since_s, _SLOTS_AROUND * SLOT_S
        course = self._signals.course(change.name, since_s - around_s, since_s + around_s)
        rises_s = _rises_s(course, (change.before + change.after) / 2)
        if not rises_s:
            return len(self._slowed_s) == 1
        # With few calls both times are estimates: the change point, and when the middle was crossed.
        return any(abs(rose_s - slowed_s) <= _APART_S for rose_s in rises_s for slowed_s in self._slowed_s)


def _slowed_s(slowdown: Slowdown) -> list[float]:
    """When the time of calls crossed the middle between then and now; empty if that cannot be told."""
    around_s = _SLOTS_AROUND * SLOT_S
    course = [
        (ended_s - SLOT_S, value)
        for ended_s, value in slowdown.course
        if abs(ended_s - SLOT_S - slowdown.since_s) <= around_s
    ]
    return _rises_s(course, math.log(slowdown.ratio) / 2)


def _rises_s(course: Sequence[tuple[float, float]], middle: float) -> list[float]:
    """Each time when a course rose above `middle` to stay there; -inf among them if it was there from the start.

    >>> _rises_s([(0.0, 1.0), (10.0, 3.0), (20.0, 1.0), (30.0, 3.0), (40.0, 3.0)], 2.0)
    [30.0]
    """
    found = []
    for index, (begin_s, value) in enumerate(course):
        stays = value > middle and all(later > middle for _, later in course[index + 1 : index + 3])
        if stays and not (index and course[index - 1][1] > middle):
            found.append(begin_s if index else -math.inf)
    return found
