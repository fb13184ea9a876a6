"""Inputs that grew, or whose mix changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis.lifecycle import Latch, Verdict
from otel_inference.finding import FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.diagnosis.mix import MixComparison
    from otel_inference.diagnosis.observation import ModelObservation
    from otel_inference.diagnosis.work import Work

_GREW: Final = 1.2
_SURE: Final = 5.0
"""Standard errors; many, as it is looked at all day."""
_FEWEST_CALLS: Final = 100
_AS_FAST: Final = (
    "Inputs became larger and calls of one size take as long as before: plan for the larger ones, or bound their size."
)
_SLOWED: Final = "Inputs became larger, and calls of one size take longer too: bound their size, and see what the slowness is explained by."


class InputRule:
    """Finds that the sizes of the inputs alone make at least 20 % more work than usual.

    Args:
        model: The model's name.
        work: What is known of its calls.
    """

    def __init__(self, model: str, work: Work) -> None:
        self._model = model
        self._work = work
        self._latch = _latch()
        self._verdicts: Sequence[Verdict] = ()

    def judge(self, _: ModelObservation, at_s: float) -> Sequence[Verdict]:
        """What holds now; `work` has been given the stretches, and is made to compare."""
        if not self._work.recent:  # nobody has called for long
            self._latch, self._verdicts = _latch(), ()
        if not self._work.compare():
            return self._verdicts
        comparison = self._work.comparison
        if comparison is None or comparison.now_calls < _FEWEST_CALLS:
            return self._verdicts
        level = comparison.input_ratio / _GREW
        if not self._latch.is_on and comparison.input_z < _SURE:
            level = min(level, 0.9)
        on = self._latch.update(level, self._work.recent[0].started_s)
        self._verdicts = (self._verdict(comparison, at_s),) if on else ()
        return self._verdicts

    def _verdict(self, comparison: MixComparison, at_s: float) -> Verdict:
        evidence: dict[str, float | int | str] = {
            "input_ratio": round(comparison.input_ratio, 3),
            "service_ratio": round(comparison.slow_ratio, 3),
            "calls": comparison.now_calls,
            "window_s": round(at_s - self._work.recent[0].started_s, 1),
        }
        growing = comparison.growing
        if growing is not None:
            evidence |= {
                "growing_size_at_least": growing.at_least,
                "growing_size_below": growing.below,
                "growing_size_time_ratio": round(growing.now_share, 3),
                "growing_size_usual_time_ratio": round(growing.base_share, 3),
            }
        return Verdict(
            kind=FindingKind.INPUT_SHIFT,
            subject="sizes",
            severity=Severity.INFO,
            model=self._model,
            since_s=self._latch.since_s,
            evidence=evidence,
            advice=_SLOWED if comparison.slowed else _AS_FAST,
            exemplar=self._work.slowest(),
        )


def _latch() -> Latch:
    return Latch(on_ticks=1, off_ticks=2)  # every third stretch is a tick
