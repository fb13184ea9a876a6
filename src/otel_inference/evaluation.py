"""One look at every model and the machine: what is found goes to events, alerts, maintenance and sampling."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final

from otel_inference import guard
from otel_inference.diagnosis.observation import ModelObservation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_inference.diagnosis.diagnosis import Diagnosis
    from otel_inference.finding import Finding, FindingChange
    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.health.stretch import Exemplar, Stretch
    from otel_inference.resources.reading import Reading
    from otel_inference.telemetry.registry import HealthRegistry, ModelStatistics
    from otel_inference.telemetry.view import HealthView

EVERY_S: Final = 1.0
_PATIENCE_S: Final = 2.0
_MAX_WAITING: Final = 4
_MAX_CHANGES: Final = 1000
OVERDUE_S: Final = 3.0
"""After this long without an evaluation the thread that evaluates is taken to be gone or starved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one evaluation found."""

    at_s: float
    """When, on the registry's clock."""
    changes: tuple[FindingChange, ...]
    open: tuple[Finding, ...]
    health: Mapping[str, ModelHealth]
    """Every model's, with its findings."""
    stretches: Mapping[str, Sequence[Stretch]]
    """What each model completed since the evaluation before."""


class Evaluation:
    """Evaluates at most once a second, from whichever thread of ours comes first, and hands out what changed.

    Args:
        registry: The models' statistics.
        view: Their health.
        stalled: The span of the oldest running call of a model.
        reading: The machine, as read last.
        diagnosis: Makes who judges.
        takers: Called with each outcome, in order, and never with a lock held. What they raise is counted.
    """

    def __init__(
        self,
        registry: HealthRegistry,
        view: HealthView,
        *,
        stalled: Callable[[str], Exemplar | None],
        reading: Callable[[], Reading | None],
        diagnosis: Callable[[], Diagnosis],
        takers: Sequence[Callable[[Outcome], None]],
    ) -> None:
        self._registry = registry
        self._view = view
        self._stalled = stalled
        self._reading = reading
        self._new_diagnosis = diagnosis
        self._takers = takers
        self._outcomes: deque[Outcome] = deque()
        self._at_s = monotonic()
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Begin anew: what is wrong with the parent is the parent's to find, and its locks may be held for ever."""
        self._diagnosis = self._new_diagnosis()
        self._judging = Lock()
        self._delivering = Lock()
        self._outcomes.clear()

    def findings(self, model: str | None = None) -> tuple[Finding, ...]:
        """What was open at the last evaluation: of `model` and of the whole process, or all."""
        return self._diagnosis.open(model)

    def is_overdue(self) -> bool:
        """Whether the thread that evaluates seems not to run."""
        return monotonic() - self._at_s > OVERDUE_S

    def tick(self) -> None:
        """Evaluate if it is time to; for threads of ours that come by often."""
        if monotonic() - self._at_s >= EVERY_S * 0.9 and self._judging.acquire(blocking=False):
            try:
                self._judge()
            finally:
                self._judging.release()
            self._deliver()

    def now(self) -> tuple[Finding, ...]:
        """Evaluate now; returns what is open."""
        # Not for ever: a signal handler may ask on top of an evaluation, which then cannot end.
        if self._judging.acquire(timeout=_PATIENCE_S):
            try:
                self._judge()
            finally:
                self._judging.release()
            self._deliver()
        return self.findings()

    def _judge(self) -> None:
        self._at_s = monotonic()
        statistics = self._registry.models()
        health = self._view.health()
        models = {name: self._observation(statistics[name], health[name]) for name in health if name in statistics}
        at_s = self._registry.now_s()
        changes = self._diagnosis.evaluate(at_s, datetime.now(UTC), models, self._reading())
        outcome = Outcome(
            at_s=at_s,
            changes=changes,
            open=self.findings(),
            health=self._view.renewed(health),
            stretches={name: seen.stretches for name, seen in models.items()},
        )
        if len(self._outcomes) >= _MAX_WAITING:  # a taker hangs: keep what changed, and of the rest what is newest
            guard.dropped("findings")
            with suppress(IndexError):
                earlier = self._outcomes.pop().changes[-_MAX_CHANGES:]
                outcome = replace(outcome, changes=(*earlier, *changes))
        self._outcomes.append(outcome)

    def _observation(self, statistics: ModelStatistics, health: ModelHealth) -> ModelObservation:
        return ModelObservation(
            health=health,
            stretches=statistics.take_stretches(),
            errors=statistics.counts,
            slow=statistics.slow_counts if statistics.has_objective else None,
            age_s=self._registry.now_s() - statistics.born_s,
            stalled=self._stalled(health.model) if health.active_calls else None,
        )

    def _deliver(self) -> None:
        """Hand out results in their order; who comes while another thread does it leaves them to that."""
        while self._outcomes and self._delivering.acquire(blocking=False):
            try:
                while self._outcomes:
                    outcome = self._outcomes.popleft()
                    for taker in self._takers:
                        with guard.guarded("findings"):
                            taker(outcome)
            finally:
                self._delivering.release()
