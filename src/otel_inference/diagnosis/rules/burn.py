"""Error budgets that are used up too fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_inference.diagnosis.lifecycle import Verdict
from otel_inference.diagnosis.slo import BurnWatch
from otel_inference.finding import FindingKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.diagnosis.observation import ModelObservation
    from otel_inference.diagnosis.slo import Burn
    from otel_inference.health.stretch import Exemplar
    from otel_inference.objective import ErrorObjective, LatencyObjective


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What was promised for a model; `None` for nothing."""

    latency: LatencyObjective | None = None
    errors: ErrorObjective | None = None


class BurnRule:
    """Finds that an objective's budget burns, by multi-window multi-burn-rate rules.

    Args:
        model: The model's name.
        objectives: What was promised.
    """

    def __init__(self, model: str, objectives: Objectives) -> None:
        self._model = model
        self._objectives = objectives
        self._latency = None if objectives.latency is None else BurnWatch(objectives.latency.ratio)
        self._errors = None if objectives.errors is None else BurnWatch(objectives.errors.ratio)
        self._burns: dict[str, tuple[Burn, float]] = {}
        """What burns by objective, and since when."""
        self._slowest: Exemplar | None = None
        self._failed: Exemplar | None = None

    def judge(self, seen: ModelObservation, at_s: float) -> Sequence[Verdict]:
        """What holds now."""
        for stretch in seen.stretches:
            self._slowest = stretch.slowest or self._slowest
            self._failed = stretch.failed or self._failed
        if self._latency is not None and seen.slow is not None:
            self._note("latency", self._latency.update(seen.slow, seen.age_s), at_s)
        if self._errors is not None:
            self._note("errors", self._errors.update(seen.errors, seen.age_s), at_s)
        return [self._verdict(subject, burn, since_s) for subject, (burn, since_s) in self._burns.items()]

    def _note(self, subject: str, burn: Burn | None, at_s: float) -> None:
        if burn is None:
            self._burns.pop(subject, None)
        else:
            _, since_s = self._burns.get(subject, (burn, at_s - burn.short_s))
            self._burns[subject] = (burn, since_s)

    def _verdict(self, subject: str, burn: Burn, since_s: float) -> Verdict:
        latency = self._objectives.latency
        evidence: dict[str, float | int | str] = {
            "burn_long": round(burn.burn_long, 2),
            "burn_short": round(burn.burn_short, 2),
            "factor": burn.factor,
            "tier": burn.tier.value,
            "calls": burn.calls,
            "bad_calls": burn.bad,
            "window_s": burn.covered_s,
            "short_window_s": burn.short_s,
        }
        if subject == "latency" and latency is not None:
            evidence["threshold_s"] = latency.threshold_s
        return Verdict(
            kind=FindingKind.SLO_BURN,
            subject=subject,
            severity=burn.severity,
            model=self._model,
            since_s=since_s,
            evidence=evidence,
            advice=(
                "Too many calls are slower than promised: bound what runs at once (AdaptiveLimiter) or let a Tuner find the batch size."
                if subject == "latency"
                else "Too many calls fail or are turned away: look at their error types, or add replicas."
            ),
            exemplar=self._slowest if subject == "latency" else self._failed,
        )
