"""Far fewer calls than usual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis.lifecycle import Verdict
from otel_inference.diagnosis.rate import RateDetector
from otel_inference.finding import FindingKind, Severity
from otel_inference.health.stretch import STRETCH_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.diagnosis.observation import ModelObservation

_FEWEST_USUAL_PER_S: Final = 0.3


class ThroughputRule:
    """Finds that fewer than half as many calls end as usual, where usually at least three end in ten seconds.

    With calls still in flight it is a warning: they do not come back. With hardly any, nobody calls, which is
    for the callers to explain.

    Args:
        model: The model's name.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._detector = RateDetector(direction=-1)

    def judge(self, seen: ModelObservation, at_s: float) -> Sequence[Verdict]:
        """What holds now."""
        detector = self._detector
        for stretch in seen.stretches:
            detector.update(stretch.calls, stretch.ended_s - stretch.started_s, stretch.ended_s)
        usual_per_s = detector.baseline
        if not detector.shifted or usual_per_s is None or usual_per_s < _FEWEST_USUAL_PER_S:
            return ()
        return (self._verdict(seen, usual_per_s, at_s),)

    def _verdict(self, seen: ModelObservation, usual_per_s: float, at_s: float) -> Verdict:
        since_s = at_s if self._detector.since_s is None else self._detector.since_s
        stuck = seen.health.active_calls > 0 and seen.health.oldest_active_s > STRETCH_S
        return Verdict(
            kind=FindingKind.THROUGHPUT_DROP,
            severity=Severity.WARNING if stuck else Severity.INFO,
            model=self._model,
            since_s=since_s,
            evidence={
                "calls_per_s": round(self._detector.rate, 3),
                "usual_calls_per_s": round(usual_per_s, 3),
                "active_calls": seen.health.active_calls,
                "window_s": round(at_s - since_s, 1),
            },
            advice=(
                "Calls begin and do not end: look at the oldest one's trace; restart the process if it hangs."
                if stuck
                else "Fewer calls arrive: look at the callers and at what routes to this process."
            ),
        )
