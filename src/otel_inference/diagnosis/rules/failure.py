"""Calls that fail more often than they did, or plainly too often."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference.diagnosis.lifecycle import Latch, Verdict
from otel_inference.diagnosis.rate import RateDetector
from otel_inference.finding import FindingKind, Severity
from otel_inference.health.judging import CRITICAL_ERROR_RATIO, DEGRADED_ERROR_RATIO
from otel_inference.health.window import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.diagnosis.observation import ModelObservation
    from otel_inference.health.stretch import Exemplar, Stretch

_LEAST_EXCESS: Final = 0.01
_RECENT: Final = 6
_OLDEST_S: Final = 7200.0
_IDLE_S: Final = 1800.0
"""After so long without a call, and as long as the latest ones were spread over, it is not known to fail any more."""
_FEWEST_ERRORS: Final = 3
_SURE: Final = 3.5
"""Standard deviations: the bound is looked at all day."""


class _Counted(NamedTuple):
    """Calls that were not turned away, and those of them that failed."""

    started_s: float
    calls: int
    errors: int


class FailureRule:
    """Finds bursts of errors, and that surely 5 % of the calls fail, however usual that may be.

    The latter needs three errors and looks at the latest six stretches with calls, so that three calls an hour of
    which all fail are found too, in a process that has just begun as well. Calls that a limiter turned away are none of
    the model's: they count as overload.

    Args:
        model: The model's name.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._detector = RateDetector(min_ratio=2.0, min_excess=_LEAST_EXCESS)
        self._plainly = _latch()
        self._recent: deque[_Counted] = deque(maxlen=_RECENT)
        self._failed: Exemplar | None = None

    def judge(self, seen: ModelObservation, at_s: float) -> Sequence[Verdict]:
        """What holds now."""
        for stretch in seen.stretches:
            self._add(stretch)
        return (self._verdict(at_s),) if self._detector.shifted or self._plainly.is_on else ()

    def _add(self, stretch: Stretch) -> None:
        while self._recent and stretch.ended_s - self._recent[0].started_s > _OLDEST_S:
            self._recent.popleft()
        counted = _Counted(stretch.started_s, stretch.calls - stretch.rejected, stretch.errors - stretch.rejected)
        if counted.calls:
            self._detector.update(counted.errors, counted.calls, stretch.ended_s)
            self._recent.append(counted)
            if counted.errors:
                self._failed = stretch.failed
            begun_s = next((each.started_s for each in self._recent if each.errors), stretch.started_s)
            self._plainly.update(self._surely_failing() / DEGRADED_ERROR_RATIO, begun_s)
        else:
            self._idle(stretch.ended_s)

    def _idle(self, at_s: float) -> None:
        """Note that nobody calls."""
        self._detector.idle(at_s)
        if self._detector.shifted:
            return
        spread_s = self._recent[-1].started_s - self._recent[0].started_s if self._recent else 0.0
        if not self._recent or at_s - self._recent[-1].started_s > max(_IDLE_S, spread_s):
            self._recent.clear()
            self._plainly = _latch()

    def _surely_failing(self) -> float:
        """Lower bound of the recent error ratio; 0 for few errors."""
        return wilson_interval(self._errors, self._calls, _SURE)[0] if self._errors >= _FEWEST_ERRORS else 0.0

    @property
    def _calls(self) -> int:
        return sum(counted.calls for counted in self._recent)

    @property
    def _errors(self) -> int:
        return sum(counted.errors for counted in self._recent)

    def _verdict(self, at_s: float) -> Verdict:
        surely, _ = wilson_interval(self._errors, self._calls)
        started_s = self._recent[0].started_s if self._recent else at_s
        usual = self._detector.baseline
        return Verdict(
            kind=FindingKind.ERROR_BURST,
            severity=Severity.CRITICAL if surely >= CRITICAL_ERROR_RATIO else Severity.WARNING,
            model=self._model,
            since_s=self._plainly.since_s if self._detector.since_s is None else self._detector.since_s,
            evidence={
                "error_ratio": round(self._errors / max(self._calls, 1), 4),
                "calls": self._calls,
                "errors": self._errors,
                "window_s": round(at_s - started_s, 1),
                **({} if usual is None else {"usual_error_ratio": round(usual, 4)}),
            },
            advice="Calls fail: look at the error types on their spans; restart the process if it is broken itself.",
            exemplar=self._failed,
        )


def _latch() -> Latch:
    return Latch(on_ticks=1, off_ticks=3)
