"""Calls that take longer than they did, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis.attribution import causes
from otel_inference.diagnosis.lifecycle import Verdict
from otel_inference.finding import FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.diagnosis.observation import ModelObservation
    from otel_inference.diagnosis.scan import Cause, Slowdown
    from otel_inference.diagnosis.signals import Signals
    from otel_inference.diagnosis.work import Work

_PATIENCE_S: Final = 15.0
"""Time after which what is left when no resource is short is believed."""
_LONG_PATIENCE_S: Final = 75.0
"""The same where nothing points to it: most slowdowns that are chance are over by then."""
_LOOKED_FOR_S: Final = 1200.0
"""Then it is settled, and what things were like before is soon forgotten."""
_OTHER_FOR: Final = 3
"""Stretches that another cause has to lead before it takes the place of one that is no longer seen; twice as many
for one that is a last resort."""


class LatencyRule:
    """Finds that calls of one size take longer than usual, and the bottleneck behind it.

    Args:
        model: The model's name.
        work: What is known of its calls.
        signals: What the probes saw.
    """

    def __init__(self, model: str, work: Work, signals: Signals) -> None:
        self._model = model
        self._work = work
        self._signals = signals
        self._believed = _Belief()
        self._is_open = False
        self._verdicts: Sequence[Verdict] = ()

    def judge(self, seen: ModelObservation, at_s: float) -> Sequence[Verdict]:
        """What holds now; `work` has been given the stretches."""
        if not self._is_slower():
            self._verdicts = ()
        elif not self._verdicts or any(stretch.calls for stretch in seen.stretches):
            self._verdicts = self._look(seen, at_s)
        return self._verdicts

    def _look(self, seen: ModelObservation, at_s: float) -> Sequence[Verdict]:
        slowdown = self._work.slowdown(at_s)
        if at_s - slowdown.since_s < _LOOKED_FOR_S:
            self._believed.update(causes(slowdown, self._signals), at_s)
        cause = self._believed.cause
        shift = self._shift(slowdown, seen)
        return (shift,) if cause is None else (shift, self._bottleneck(slowdown, cause))

    def _is_slower(self) -> bool:
        """Whether calls are slow, and not only larger than any there have been, which is hard to tell apart."""
        if not self._work.is_slow:
            self._believed, self._is_open = _Belief(), False
        elif not self._is_open:
            self._work.compare(at_once=True)
            comparison = self._work.comparison
            self._is_open = comparison is None or comparison.slowed or not comparison.inputs_grew
        return self._is_open

    def _shift(self, slowdown: Slowdown, seen: ModelObservation) -> Verdict:
        comparison = self._work.comparison
        worst = None if comparison is None else comparison.slow_range
        evidence: dict[str, float | int | str] = {
            "service_ratio": round(slowdown.ratio, 3),
            "service_per_call_s": round(slowdown.after.service_per_call_s, 4),
            "usual_service_per_call_s": round(slowdown.before.service_per_call_s, 4),
            "input_ratio": round(slowdown.input_ratio, 3),
            "calls": round(slowdown.after.calls),
            "window_s": _window_s(slowdown),
        }
        if seen.health.window.warm_calls:
            evidence["p99_s"] = round(seen.health.latency.p99, 4)
        advice = "Calls take longer for inputs of the same size: see what it is explained by."
        if worst is not None:
            evidence |= {"slow_input_size_at_least": worst.at_least, "slow_input_size_below": worst.below}
            evidence |= {"slow_input_size_ratio": round(worst.ratio, 3)}
            advice = (
                "Only inputs of some sizes take longer: pad them to sizes that are fast, or look at what they hold."
            )
        return Verdict(
            kind=FindingKind.LATENCY_SHIFT,
            severity=Severity.WARNING,
            model=self._model,
            since_s=slowdown.since_s,
            evidence=evidence,
            advice=advice,
            exemplar=self._work.slowest(),
        )

    def _bottleneck(self, slowdown: Slowdown, cause: Cause) -> Verdict:
        return Verdict(
            kind=FindingKind.BOTTLENECK,
            subject=cause.subject,
            severity=Severity.WARNING,
            model=self._model,
            since_s=slowdown.since_s,
            evidence={
                **cause.evidence,
                "service_ratio": round(slowdown.ratio, 3),
                "window_s": _window_s(slowdown),
                **self._believed.others(),
            },
            advice=cause.advice,
            exemplar=self._work.slowest(),
        )


class _Belief:
    """The cause that is held to be the right one; it is not changed for one stretch that looks different."""

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self._seen: tuple[Cause, ...] = ()
        self._begun_s: float | None = None
        self._challenger = ""
        self._challenges = 0

    def update(self, seen: tuple[Cause, ...], at_s: float) -> None:
        """Take what may be the cause at `at_s`, likeliest first."""
        self._seen = seen
        if self._begun_s is None:
            self._begun_s = at_s
        if not seen:
            return
        current = self.cause
        same = None if current is None else next((each for each in seen if each.subject == current.subject), None)
        if same is not None and (not same.is_last_resort or seen[0].is_last_resort):
            self.cause, self._challenges = same, 0
        elif current is None:
            first = seen[0]
            patience_s = _PATIENCE_S if first.is_seen else _LONG_PATIENCE_S
            if not first.is_last_resort or at_s - self._begun_s >= patience_s:
                self.cause = first
        elif self._challenged_by(seen[0]):
            self.cause, self._challenges = seen[0], 0

    def others(self) -> dict[str, str]:
        """What else was seen, as evidence."""
        names = [each.subject for each in self._seen if self.cause is None or each.subject != self.cause.subject]
        return {"also_seen": ",".join(names)} if names else {}

    def _challenged_by(self, other: Cause) -> bool:
        self._challenges = self._challenges + 1 if other.subject == self._challenger else 1
        self._challenger = other.subject
        return self._challenges >= (2 * _OTHER_FOR if other.is_last_resort else _OTHER_FOR)


def _window_s(slowdown: Slowdown) -> float:
    return round(slowdown.at_s - slowdown.since_s, 1)
