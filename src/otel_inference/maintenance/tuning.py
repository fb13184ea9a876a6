"""The terms of tuning: what a tuner sees of a model, the rules it keeps to, and what it says it did."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MIN_CALLS: Final = 20
"""Calls that a window needs before anything is concluded from it; smaller ones are put together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningWindow:
    """What ended in some seconds under one setting. Ten seconds is usual."""

    at_s: float
    """When it ended, on any clock that does not go back."""
    duration_s: float
    """How long it was."""
    calls: int
    """Calls that succeeded; first calls and those that a limiter turned away are not in it."""
    work: float
    """What they did, in a unit that a setting does not change: items, tokens, seconds at some reference speed."""
    mean_service_s: float
    """Mean time that a call was worked on, waiting left out."""
    p95_s: float
    """95th percentile of the calls' durations, waiting included: what the objective is about."""
    errors: int = 0
    """Calls that failed, those that a limiter turned away left out."""

    @property
    def speed(self) -> float:
        """Work done in a second of service: what is maximised unless the user says otherwise.

        It does not depend on how many calls there were, so that a server may be tuned at any load.
        """
        return self.work / (self.calls * self.mean_service_s)

    @property
    def usable(self) -> bool:
        """Whether there were calls, and the figures are positive numbers."""
        figures = (self.duration_s, self.calls, self.work, self.mean_service_s, self.p95_s)
        return all(figure > 0 and math.isfinite(figure) for figure in figures)

    def merged(self, other: TuningWindow) -> TuningWindow:
        """Both as one window, `other` the later one; p95 is the mean by calls, where only one has calls that one's."""
        calls = self.calls + other.calls
        shares = [(window, window.calls / calls) for window in (self, other) if window.calls]
        return TuningWindow(
            at_s=other.at_s,
            duration_s=self.duration_s + other.duration_s,
            calls=calls,
            work=self.work + other.work,
            mean_service_s=sum(share * window.mean_service_s for window, share in shares),
            p95_s=sum(share * window.p95_s for window, share in shares),
            errors=self.errors + other.errors,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningRules:
    """What a tuner concludes from how much. Lengths are in windows; the defaults suit windows of ten seconds."""

    min_gain: float = 0.03
    """A change is kept if it is better by more than this; as a difference of logarithms."""
    z: float = 1.7
    """Standard errors by which a difference must be sure."""
    z_early: float = 2.5
    """The same before `min_pairs`, where the standard error is that of windows so far."""
    min_pairs: int = 4
    """Pairs of windows, one under each setting, that a close decision takes at least."""
    max_pairs: int = 10
    """A change that has not shown to be better by then is not kept."""
    guard_ratio: float = 0.9
    """A change is kept only if its 95th percentile is below this share of the objective; less where windows scatter."""
    max_stride: int = 3
    """Levels by which a knob may be moved at a time after a move that was kept; else one."""
    hold: int = 8
    """Pause after no direction was better, doubled each time up to `max_hold`."""
    max_hold: int = 64
    block: int = 128
    """How long a level that broke the objective is left alone, doubled each time up to `max_block`."""
    max_block: int = 512
    drift: float = math.log(1.22)
    """A change of the speed under one setting that makes what was learned worthless; of its logarithm."""


class TuningOutcome(StrEnum):
    """What became of a change."""

    ACCEPTED = "accepted"
    """It was better and is kept."""
    REJECTED = "rejected"
    """It was not better, or too close to the objective; the earlier value is in force again."""
    ABORTED = "aborted"
    """It broke the objective or made calls fail; the earlier value was put back at once."""
    RELIEVED = "relieved"
    """The objective was broken, and the value was lowered at once."""
    RESTORED = "restored"
    """That did not help, and what was before is in force again."""
    REOPENED = "reopened"
    """Speed shifted under one setting: what had been learned is forgotten."""
    FAILED = "failed"
    """The knob could not be read or set; `reason` says what is in force."""
    YIELDED = "yielded"
    """Somebody else set the knob; their value is taken as it is."""
    UNDONE = "undone"
    """An earlier value was put back because the tuner was told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningRecord:
    """One thing that a tuner did, or found that it cannot do."""

    at_s: float
    """End of the window that it was concluded from."""
    knob: str
    before: float
    """Value that was in force when it began."""
    after: float
    """The value tried; for the outcomes that try nothing, the one in force from now on."""
    outcome: TuningOutcome
    reason: str
    """One sentence, with the numbers it rests on."""
    gain: float | None = None
    """By how much the score was better under `after`, as a share; `None` where it was not compared."""
    p95_s: float | None = None
    """Geometric mean of the 95th percentiles seen under `after`."""
    pairs: int = 0
    """Pairs of windows compared."""
