"""Where to look for a better setting and when to stop: a hill climb, one knob at a time, that respects an objective."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from otel_inference.maintenance.axis import UP, Axis, Place
from otel_inference.maintenance.trial import Limits, Scatter, Trial, Verdict
from otel_inference.maintenance.tuning import TuningOutcome, TuningRecord, TuningRules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.maintenance.tuning import TuningWindow

_RECENT: Final = 3
"""Windows of the base whose median tells whether it keeps to the objective."""
_REFERENCE: Final = 4
"""Windows of the base whose mean speed is what drift is measured from."""
_SMOOTHING: Final = 0.3
"""Weight of the newest window in the speed that drift is seen in."""
_SLOW_SMOOTHING: Final = 0.1
"""The same in the 95th percentile of the base that others are expected from."""
_DRIFT_ERROR: Final = math.sqrt(_SMOOTHING / (2 - _SMOOTHING) + 1 / _REFERENCE)
"""Standard error of the drift, in deviations of one window."""
_NORMAL_97: Final = 1.96
"""97.5 % quantile of the normal distribution: at most one window in forty is to be over the objective by chance."""
_USUAL_DEVIATION: Final = 0.06
_MOST_DEVIATION: Final = 0.3
_WORSE: Final = 1.1
"""One step down that made the 95th percentile larger than this times what it was is taken back."""
_HELPED: Final = 0.95
"""Several steps down must bring it below this times what it was."""

_OUTCOMES: Final = {
    Verdict.BETTER: TuningOutcome.ACCEPTED,
    Verdict.NOT_BETTER: TuningOutcome.REJECTED,
    Verdict.TOO_SLOW: TuningOutcome.REJECTED,
    Verdict.OVER: TuningOutcome.ABORTED,
    Verdict.FAILING: TuningOutcome.ABORTED,
}


@dataclass(slots=True)
class _Attempt:
    """A trial, and what is tried."""

    trial: Trial
    axis: Axis
    place: Place


@dataclass(slots=True)
class _Descent:
    """Steps down since the objective was broken."""

    axis: Axis
    start: Place
    p95_s: float
    """Median before the first of them."""
    steps: int = 0


class Search:
    """Decides after each window which setting to run next; touches nothing itself.

    Each step is a `Trial` of one level beside the present one. Both directions of all axes rejected: it rests for
    `hold` windows, doubled each time. Median of three windows of the base over the objective: the first axis that
    makes calls lighter is lowered at once, without a trial, and put back if that did not help. Speed drifts under one
    setting: everything learned is forgotten.

    Args:
        axes: What may be changed, in the order it is tried in; where they stand is the setting in force.
        slo_p95_s: 95th percentile to keep below, in seconds.
        rules: What is concluded from how much.
    """

    def __init__(self, axes: Sequence[Axis], *, slo_p95_s: float = math.inf, rules: TuningRules | None = None) -> None:
        self.axes = tuple(axes)
        self.rules = rules or TuningRules()
        self._slo_p95_s = slo_p95_s
        self._windows = 0
        self._wait = 0
        self._hold = self.rules.hold
        self._turn = 0
        self._attempt: _Attempt | None = None
        self._descent: _Descent | None = None
        self._scores, self._p95s, self._slownesses = Scatter(), Scatter(), Scatter()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._reference: list[float] = []
        """Slowness of the first windows of the base: logarithm of the seconds that a unit of work takes."""
        self._slowness: float | None = None
        self._p95_s: float | None = None

    @property
    def base(self) -> tuple[float, ...]:
        """The best setting known: a level for each axis."""
        return tuple(axis.level for axis in self.axes)

    @property
    def wanted(self) -> tuple[float, ...]:
        """The setting to run now: the base, or the candidate of a trial."""
        attempt = self._attempt
        if attempt is None or not attempt.trial.wants_candidate:
            return self.base
        return tuple(axis.levels[attempt.place] if axis is attempt.axis else axis.level for axis in self.axes)

    def see(self, window: TuningWindow, score: float | None) -> TuningRecord | None:
        """Take in a window of the setting that was wanted; `wanted` may be another one afterwards.

        Args:
            window: At least `MIN_CALLS` calls.
            score: Positive, the larger the better; `None` where every call failed.

        Returns:
            What was concluded; `None` mostly.
        """
        self._windows += 1
        is_base = self.wanted == self.base
        if score is not None:
            self._learn(window, score)
            if is_base and (record := self._watch(window)) is not None:
                return record
        return self._try(window, score)

    def abandon(self, at_s: float, reason: str) -> TuningRecord | None:
        """Give up a trial that cannot be finished; `wanted` is the base again."""
        attempt = self._attempt
        if attempt is None:
            return None
        self._end_attempt(attempt)
        axis = attempt.axis
        after, outcome = axis.levels[attempt.place], TuningOutcome.REJECTED
        return TuningRecord(at_s=at_s, knob=axis.name, before=axis.level, after=after, outcome=outcome, reason=reason)

    def moved(self) -> None:
        """Take where the axes stand as the base: somebody else has set them there."""
        self._attempt = self._descent = None
        self._settle([])
        self._forget()

    def _learn(self, window: TuningWindow, score: float) -> None:
        self._scores.add(self.wanted, score)
        self._p95s.add(self.wanted, window.p95_s)
        self._slownesses.add(self.wanted, window.speed)
        attempt = self._attempt
        for axis in self.axes:
            if attempt is None or not attempt.trial.wants_candidate:
                axis.line.add(axis.level, window.p95_s)
            elif axis is attempt.axis:
                axis.line.add(axis.levels[attempt.place], window.p95_s)

    # What is done about the base.

    def _watch(self, window: TuningWindow) -> TuningRecord | None:
        """Look whether the base keeps to the objective, and is as fast as it was."""
        self._recent.append(window.p95_s)
        self._p95_s = _smoothed(self._p95_s, window.p95_s, _SLOW_SMOOTHING)
        if self._over():
            record = self._relieve(window)
            if record is not None:
                return record
        elif len(self._recent) == _RECENT:
            self._descent = None
        return self._follow(window)

    def _follow(self, window: TuningWindow) -> TuningRecord | None:
        """Look whether the base is as fast as it was."""
        slowness = -math.log(window.speed)
        self._slowness = _smoothed(self._slowness, slowness, _SMOOTHING)
        if len(self._reference) < _REFERENCE:
            self._reference.append(slowness)
            return None
        drift = self._slowness - fmean(self._reference)
        by_chance = 3 * (self._slownesses.deviation or 0.0) * _DRIFT_ERROR
        return self._reopen(window, drift) if abs(drift) > max(self.rules.drift, by_chance) else None

    def _over(self) -> bool:
        """Whether the median of the last three windows is over the objective, as soon as that is sure."""
        return sum(p95_s > self._slo_p95_s for p95_s in self._recent) > _RECENT // 2

    def _relieve(self, window: TuningWindow) -> TuningRecord | None:
        p95_s = median(self._recent)
        descent = self._descent
        if descent is not None and p95_s > descent.p95_s * (_WORSE if descent.steps == 1 else _HELPED):
            return self._restore(window, descent, p95_s)
        axis = descent.axis if descent is not None and descent.axis.can_relieve(self._windows) else None
        if axis is None:
            axis = next((axis for axis in self._by_cost() if axis.can_relieve(self._windows)), None)
        if axis is None:
            return None
        if descent is None or descent.axis is not axis:
            descent = self._descent = _Descent(axis, axis.place, p95_s)
        descent.steps += 1
        before = axis.level
        self._attempt = None
        axis.block(axis.place, self._windows, self.rules)
        axis.lower()
        self._settle([])
        self._restart()
        reason = f"the median of the last windows' p95, {p95_s:.3g} s, is over the objective of {self._slo_p95_s:.3g} s"
        return _record(window, axis, before, TuningOutcome.RELIEVED, reason)

    def _by_cost(self) -> list[Axis]:
        """Axes in the order in which they are lowered: what gives up quality last."""
        return sorted(self.axes, key=lambda axis: axis.brown_out)

    def _restore(self, window: TuningWindow, descent: _Descent, p95_s: float) -> TuningRecord:
        axis, before = descent.axis, descent.axis.level
        self._attempt = self._descent = None
        axis.put_back(descent.start, self._windows + self.rules.max_hold)
        self._settle([])
        self._restart()
        reason = f"p95 was {descent.p95_s:.3g} s before it was lowered and {p95_s:.3g} s after"
        return _record(window, axis, before, TuningOutcome.RESTORED, reason)

    def _reopen(self, window: TuningWindow, drift: float) -> TuningRecord:
        self._forget(math.exp(drift), UP if drift < 0 else -UP)
        self._attempt = None
        self._reference = []
        axis = self.axes[0]
        reason = f"the time per unit of work is {math.exp(drift):.2f} times what it was under this setting"
        return _record(window, axis, axis.level, TuningOutcome.REOPENED, reason)

    # What is tried.

    def _try(self, window: TuningWindow, score: float | None) -> TuningRecord | None:
        if self._attempt is None:
            if self._wait > 0:
                self._wait -= 1
                return None
            self._attempt = self._next()
            if self._attempt is None:
                return None
        verdict = self._attempt.trial.add(window, score)
        return None if verdict is None else self._conclude(self._attempt, verdict, window)

    def _next(self) -> _Attempt | None:
        """The next trial; `None` when nothing is left to try, and a pause begins."""
        for offset in range(len(self.axes)):
            turn = (self._turn + offset) % len(self.axes)
            axis = self.axes[turn]
            place = axis.proposal(
                self._windows, self._p95_s, slo_p95_s=self._slo_p95_s, guard_p95_s=self._guard_p95_s()
            )
            if place is not None:
                self._turn = turn
                return _Attempt(Trial(self.rules, self._limits(), seeks_gain=not axis.brown_out), axis, place)
        for axis in self.axes:
            axis.restart()
        self._wait, self._hold = self._hold - 1, min(2 * self._hold, self.rules.max_hold)
        return None

    def _guard_p95_s(self) -> float:
        """Mean 95th percentile at which chance brings at most one window in forty over the objective."""
        deviation = self._p95s.deviation
        deviation = _USUAL_DEVIATION if deviation is None else min(deviation, _MOST_DEVIATION)
        return self._slo_p95_s * min(self.rules.guard_ratio, math.exp(-_NORMAL_97 * deviation))

    def _limits(self) -> Limits:
        """What a candidate may take; where the base itself breaks the objective, about what the base takes."""
        base_s = median(self._recent) if self._over() else 0.0
        deviation = self._p95s.deviation
        return Limits(
            p95_s=max(self._guard_p95_s(), base_s),
            window_p95_s=max(self._slo_p95_s, base_s * _WORSE),
            p95_deviation=deviation or _USUAL_DEVIATION,
            score_deviation=self._scores.deviation,
        )

    def _conclude(self, attempt: _Attempt, verdict: Verdict, window: TuningWindow) -> TuningRecord:
        axis, trial, before = attempt.axis, attempt.trial, attempt.axis.level
        record = TuningRecord(
            at_s=window.at_s,
            knob=axis.name,
            before=before,
            after=axis.levels[attempt.place],
            outcome=_OUTCOMES[verdict],
            reason=_reason(verdict, trial),
            gain=trial.gain,
            p95_s=trial.p95_s,
            pairs=trial.pairs,
        )
        if verdict is Verdict.BETTER:
            self._accept(attempt)
        else:
            if verdict is Verdict.FAILING:
                axis.bar(attempt.place, self._windows + self.rules.max_block)
            elif verdict is not Verdict.NOT_BETTER:
                axis.block(attempt.place, self._windows, self.rules)
            self._end_attempt(attempt)
        return record

    def _accept(self, attempt: _Attempt) -> None:
        axis, p95s = attempt.axis, attempt.trial.last_p95s
        slower = fmean(p95s) / fmean(self._recent) if self._recent else 1.0
        axis.move(attempt.place, self.rules.max_stride)
        for other in self.axes:
            if other is not axis:
                other.line.scale(slower)
                other.restart()
        self._attempt = self._descent = None
        self._hold = self.rules.hold
        self._settle(p95s)

    def _end_attempt(self, attempt: _Attempt) -> None:
        attempt.axis.rejected(attempt.place)
        self._attempt = None

    # What is forgotten.

    def _settle(self, p95s: Sequence[float]) -> None:
        """Begin to watch another base."""
        self._recent.clear()
        self._recent.extend(p95s)
        self._reference = []
        self._slowness = self._p95_s = None

    def _restart(self) -> None:
        """Look in every direction again, after a look at the new base."""
        self._hold = self.rules.hold
        self._wait = _RECENT
        for axis in self.axes:
            axis.restart()

    def _forget(self, slower: float = 1.0, direction: int = UP) -> None:
        self._wait, self._hold = 0, self.rules.hold
        for axis in self.axes:
            axis.forget(slower, direction)


def _smoothed(mean: float | None, value: float, weight: float) -> float:
    return value if mean is None else mean + weight * (value - mean)


def _record(window: TuningWindow, axis: Axis, before: float, outcome: TuningOutcome, reason: str) -> TuningRecord:
    return TuningRecord(
        at_s=window.at_s, knob=axis.name, before=before, after=axis.level, outcome=outcome, reason=reason
    )


def _reason(verdict: Verdict, trial: Trial) -> str:
    gain, p95_s, limit_s = trial.gain, trial.p95_s, trial.limits.p95_s
    parts = []
    if verdict is Verdict.FAILING:
        parts.append(f"{trial.failures[0]} of {trial.failures[1]} calls failed")
    if gain is not None:
        parts.append(f"score {100 * gain:+.1f} % over {trial.pairs} pairs of windows")
    if p95_s is not None:
        parts.append(f"p95 {p95_s:.3g} s" + (f" against a limit of {limit_s:.3g} s" if limit_s < math.inf else ""))
    return f"{verdict.value}: {', '.join(parts)}"
