"""One look at everything: what is wrong now, why, and what changed since the look before."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from otel_inference import guard
from otel_inference.diagnosis.lifecycle import Ledger
from otel_inference.diagnosis.rules.burn import BurnRule, Objectives
from otel_inference.diagnosis.rules.failure import FailureRule
from otel_inference.diagnosis.rules.growth import MemoryGrowthRule
from otel_inference.diagnosis.rules.inputs import InputRule
from otel_inference.diagnosis.rules.latency import LatencyRule
from otel_inference.diagnosis.rules.queueing import QueueRule
from otel_inference.diagnosis.rules.saturation import SaturationRule
from otel_inference.diagnosis.rules.share import ShareRule
from otel_inference.diagnosis.rules.stall import StallRule
from otel_inference.diagnosis.rules.throughput import ThroughputRule
from otel_inference.diagnosis.signals import Signals
from otel_inference.diagnosis.work import Work
from otel_inference.health.judging import state_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from otel_inference.diagnosis.lifecycle import Verdict
    from otel_inference.diagnosis.observation import ModelObservation
    from otel_inference.finding import Finding, FindingChange
    from otel_inference.health.snapshot import HealthState
    from otel_inference.health.stretch import Stretch
    from otel_inference.objective import ErrorObjective, LatencyObjective
    from otel_inference.resources.reading import Reading

_AT_ONCE: Final = 8
_ALL_WITHIN_S: Final = 10.0
"""Of many models, a part is looked into at each evaluation, and all within so long."""
_VANISHED_S: Final = 60.0


class Diagnosis:
    """Keeps what is known of each model and of the process, and the findings that are open.

    A call that hangs is found at once. Stretches of more than eight models that were completed at one time are looked
    into over several evaluations, within ten seconds.

    `evaluate` and `forget` are for one thread at a time; `open` and `state` are for any. Evaluations come about once a second; data
    that come late (stretches of a minute at once) are taken in their order.

    Args:
        latency_objective: Of every model that has none of its own; its slow calls are counted by whoever observes.
        error_objective: Of every model that has none of its own.
        objectives_by_model: Instead of these two, for the models named.
    """

    def __init__(
        self,
        *,
        latency_objective: LatencyObjective | None = None,
        error_objective: ErrorObjective | None = None,
        objectives_by_model: Mapping[str, Objectives] | None = None,
    ) -> None:
        self._objectives = Objectives(latency=latency_objective, errors=error_objective)
        self._objectives_by_model = objectives_by_model or {}
        self._signals = Signals()
        self._saturation = SaturationRule(self._signals)
        self._growth = MemoryGrowthRule()
        self._share = ShareRule()
        self._models: dict[str, _ModelDiagnosis] = {}
        self._ledger = Ledger()
        self._evaluated_s = 0.0

    def evaluate(
        self, at_s: float, now: datetime, models: Mapping[str, ModelObservation], reading: Reading | None
    ) -> tuple[FindingChange, ...]:
        """Judge what is seen now; returns the findings that opened, changed or closed.

        A model that has not been among `models` for a minute is forgotten, and its findings close.

        Args:
            at_s: Now, on the clock of the stretches; it never goes back.
            now: The same in UTC.
            models: Every model that is known.
            reading: The latest of the probes; the same one again counts once.
        """
        fresh = reading is not None and self._signals.note(reading, at_s)
        for model, seen in models.items():
            self._diagnosis_of(model).notice(seen, at_s)
        self._take_turns(at_s)
        self._forget_vanished(at_s)
        suffers = any(diagnosis.suffers for diagnosis in self._models.values())
        verdicts = chain(
            chain.from_iterable(diagnosis.verdicts for diagnosis in self._models.values()),
            self._saturation.judge(at_s, fresh=fresh, suffers=suffers),
            self._growth.judge(reading, at_s),
            self._share.judge(models, at_s),
        )
        return self._ledger.settle(verdicts, at_s, now)

    def open(self, model: str | None = None) -> tuple[Finding, ...]:
        """The open findings of `model` and of the whole process; of all models for `None`."""
        return self._ledger.open(model)

    def state(self, model: str) -> HealthState:
        """What the open findings make of a model: the worst of them decides."""
        return state_by(self._ledger.open(model))

    def forget(self, model: str) -> None:
        """Forget all about a model; its findings close with the next evaluation."""
        self._models.pop(model, None)

    def _diagnosis_of(self, model: str) -> _ModelDiagnosis:
        diagnosis = self._models.get(model)
        if diagnosis is None:
            objectives = self._objectives_by_model.get(model, self._objectives)
            diagnosis = _ModelDiagnosis(model, objectives, self._signals, phase=len(self._models))
            self._models[model] = diagnosis
        return diagnosis

    def _take_turns(self, at_s: float) -> None:
        """Look into the models whose stretches were completed; into a part of them where there are many."""
        waiting = [diagnosis for diagnosis in self._models.values() if diagnosis.waits_since_s is not None]
        waiting.sort(key=lambda diagnosis: diagnosis.waits_since_s or 0.0)
        elapsed_s, self._evaluated_s = at_s - self._evaluated_s, at_s
        for diagnosis in waiting[: max(_AT_ONCE, math.ceil(len(self._models) * elapsed_s / _ALL_WITHIN_S))]:
            with guard.guarded("diagnosis"):  # one model's odd figures are no reason to judge none
                diagnosis.review(at_s)

    def _forget_vanished(self, at_s: float) -> None:
        for model in [model for model, diagnosis in self._models.items() if at_s - diagnosis.seen_s > _VANISHED_S]:
            del self._models[model]


class _ModelDiagnosis:
    """The rules of one model.

    Attributes:
        seen_s: When it was last among the models.
        waits_since_s: Since when completed stretches wait to be looked into; `None` if there are none.
    """

    def __init__(self, model: str, objectives: Objectives, signals: Signals, *, phase: int) -> None:
        self.seen_s = 0.0
        self.waits_since_s: float | None = None
        self._seen: ModelObservation | None = None
        self._stretches: list[Stretch] = []
        self._stalled: Sequence[Verdict] = ()
        self._found: Sequence[Verdict] = ()
        self._work = Work(phase)
        self._queue = QueueRule(model, self._work)
        self._stall = StallRule(model)
        self._rules = (
            FailureRule(model),
            LatencyRule(model, self._work, signals),
            InputRule(model, self._work),
            self._queue,
            ThroughputRule(model),
            BurnRule(model, objectives),
        )

    @property
    def suffers(self) -> bool:
        """Whether calls are slow or wait."""
        return self._work.is_slow or self._queue.waits

    @property
    def verdicts(self) -> Iterable[Verdict]:
        """All that is wrong with the model, as far as was looked."""
        return chain(self._stalled, self._found)

    def notice(self, seen: ModelObservation, at_s: float) -> None:
        """Take an observation. Only what cannot wait is judged."""
        self.seen_s = at_s
        self._seen = seen
        self._stalled = self._stall.judge(seen, at_s)
        if seen.stretches:
            self._stretches += seen.stretches
            if self.waits_since_s is None:
                self.waits_since_s = at_s

    def review(self, at_s: float) -> None:
        """Look into the stretches that were completed."""
        if self._seen is None:
            return
        seen = replace(self._seen, stretches=self._stretches)
        self._stretches, self.waits_since_s = [], None
        for stretch in seen.stretches:
            self._work.add(stretch, waits=self._queue.waits)
        found: list[Verdict] = []
        for rule in self._rules:
            with guard.guarded("diagnosis"):  # one rule that fails keeps no other from being followed
                found += rule.judge(seen, at_s)
        self._found = found
