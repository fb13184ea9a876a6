"""The watch over models and machine: probes and evaluations once a second, and all who are told of findings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_inference import semconv
from otel_inference.alerting.delivery import Alerts
from otel_inference.diagnosis.diagnosis import Diagnosis
from otel_inference.diagnosis.rules.burn import Objectives
from otel_inference.evaluation import Evaluation
from otel_inference.finding import FindingEvent
from otel_inference.maintenance.builtin_knobs import adopt_torch_threads
from otel_inference.maintenance.maintainer import maintainer
from otel_inference.maintenance.policy import Mode
from otel_inference.maintenance.tuning_feed import TuningFeed
from otel_inference.maintenance.unheard import Unheard
from otel_inference.resources.call_wait import CallWaitProbe
from otel_inference.resources.sampler import ResourceSampler
from otel_inference.resources.standard import standard_probes
from otel_inference.sampling.attention import attention
from otel_inference.telemetry.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.trace import Tracer

    from otel_inference.alerting.sink import AlertSink
    from otel_inference.config import Config
    from otel_inference.evaluation import Outcome
    from otel_inference.finding import FindingChange
    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.maintenance.action import Action
    from otel_inference.maintenance.journal import JournalEntry
    from otel_inference.maintenance.limiter import AdaptiveLimiter
    from otel_inference.maintenance.tuner import Tuner
    from otel_inference.maintenance.tuning import TuningRecord
    from otel_inference.resources.reading import Reading
    from otel_inference.telemetry.events import Events
    from otel_inference.telemetry.instruments import Instruments
    from otel_inference.telemetry.recorder import Recorder
    from otel_inference.telemetry.view import HealthView

_ANY: Final = ""
"""No model's name, to ask for what holds for every model."""
_ENOUGH_FOR_P99: Final = 299
"""Calls below which the 99th percentile has no upper bound (ln 0.05 / ln 0.99)."""


def _with_objectives(config: Config) -> set[str]:
    """Models that an objective of their own was given."""
    return {
        model for option in (config.slo_latency, config.slo_errors) if isinstance(option, Mapping) for model in option
    }


def _diagnosis(config: Config) -> Diagnosis:
    """One with the objectives that the options name."""
    return Diagnosis(
        latency_objective=config.latency_objective(_ANY),
        error_objective=config.error_objective(_ANY),
        objectives_by_model={
            model: Objectives(latency=config.latency_objective(model), errors=config.error_objective(model))
            for model in _with_objectives(config)
        },
    )


class _EventSink:
    """Writes findings as OpenTelemetry events."""

    name = "events"

    def __init__(self, events: Events) -> None:
        self._events = events

    def send(self, changes: Sequence[FindingChange]) -> None:
        for change in changes:
            self._events.finding(change)


class Watch:
    """Looks once a second, on the thread that reads the probes, and otherwise whenever traffic comes by.

    Args:
        config: The options in force.
        view: Health of the models.
        recorder: Knows what runs.
        instruments: Count findings and actions.
        tracer: Makes the spans of actions.
        events: Write them.
        sinks: Who is told of findings.
        actions: Built-in maintenance actions that are enabled.
        limiters: By model, as the user put them.
        tuners: Likewise.
    """

    def __init__(
        self,
        config: Config,
        view: HealthView,
        recorder: Recorder,
        instruments: Instruments,
        *,
        tracer: Tracer,
        events: Events,
        sinks: Sequence[AlertSink],
        actions: Sequence[Action],
        limiters: Mapping[str, AdaptiveLimiter],
        tuners: Mapping[str, Tuner],
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._tracer = tracer
        self._health = view
        self._instruments = instruments
        self._events = events
        self._actions = actions
        self._limiters = limiters
        self._tuners = tuners
        self._unheard = Unheard()
        # Events are told as alerts are, for a log exporter may hang too.
        self._alerts = Alerts((*sinks, _EventSink(events)))
        self._tuning = TuningFeed(tuners, self._note_tuning)
        self._begun = False
        self._p99_s: dict[str, float] = {}
        self.sampler = self._sampler(recorder) if config.resources else ResourceSampler((), on_tick=self._tick)
        self.evaluation = Evaluation(
            registry,
            view,
            stalled=recorder.running.oldest,
            reading=self.sampler.latest,
            diagnosis=partial(_diagnosis, config),
            takers=(self._report, self._note_health, self._alert, self._maintain, self._tune, self._look_for_unheard),
        )

    def _sampler(self, recorder: Recorder) -> ResourceSampler:
        waits = CallWaitProbe(recorder.running.threads)
        return ResourceSampler((*standard_probes(os.environ), waits), on_tick=self._tick, glance=waits.glance)

    def start(self) -> None:
        """Begin to look; idempotent."""
        if self._begun:
            self.sampler.start()  # its thread is another one after a fork
            return
        self._begun = True
        for action in self._actions:
            maintainer.add(action)
        maintainer.start(
            self._config.maintenance,
            health=self._health_of,
            tracer=self._tracer,
            report=self._note_action,
            reading=self.sampler.latest,
            window_s=self._config.window_s,
            journal_path=self._config.journal,
        )
        self._recorder.before_call = adopt_torch_threads
        self.sampler.start()
        attention.on_decision = self._on_decision

    def stop(self) -> None:
        """End every thread; findings that are open are forgotten."""
        if not self._begun:
            return
        attention.reset()
        self.sampler.stop()
        maintainer.stop()
        self._tuning.stop()
        for action in self._actions:
            maintainer.remove(action.name)
        self._alerts.stop()

    def flush_alerts(self, timeout_s: float) -> bool:
        """Wait until what was found has been told; returns whether it was in time."""
        return self._alerts.flush(timeout_s)

    def reset_after_fork(self) -> None:
        """Go on in a forked child, where the threads do not exist; the next call brings them."""
        self.evaluation.reset_after_fork()
        self.sampler.reset_after_fork()
        self._alerts.reset_after_fork()
        self._p99_s = {}
        attention.set({})
        maintainer.reset_after_fork()
        self._tuning.reset_after_fork()

    def catch_up(self) -> None:
        """Evaluate if nobody else does; for a thread that traffic keeps awake."""
        if self.evaluation.is_overdue():
            self.evaluation.tick()

    def p99_s(self, model: str) -> float | None:
        """99th percentile of a model's calls at the last evaluation; `None` where there were too few."""
        return self._p99_s.get(model)

    def _health_of(self, model: str | None) -> ModelHealth | Mapping[str, ModelHealth] | None:
        found = self._health.health()
        return found if model is None else found.get(model)

    def _on_decision(self) -> None:
        """Have an overdue evaluation done on our thread: this one is the host's."""
        if self.evaluation.is_overdue():
            self._recorder.writer.wake()

    def _tick(self, _: Reading) -> None:
        self.evaluation.tick()

    def _report(self, outcome: Outcome) -> None:
        for change in outcome.changes:
            if change.event is FindingEvent.OPENED:
                self._instruments.record_finding(change.finding)

    def _note_health(self, outcome: Outcome) -> None:
        """Keep what sampling asks for at each call."""
        self._p99_s = {
            name: model.latency.p99
            for name, model in outcome.health.items()
            if model.window.warm_calls >= _ENOUGH_FOR_P99
        }
        attention.set({name: model.state for name, model in outcome.health.items()})

    def _alert(self, outcome: Outcome) -> None:
        self._alerts.publish(outcome.changes)

    def _maintain(self, outcome: Outcome) -> None:
        receiver = sys.modules.get("otel_inference.maintenance.receiver")  # the user's to start
        maintainer.notice(outcome.open if receiver is None else receiver.with_fleet(outcome.open))

    def _tune(self, outcome: Outcome) -> None:
        if maintainer.mode is Mode.ACT:  # there is no dry run of a comparison
            self._tuning.feed(outcome.stretches, outcome.at_s)

    def _look_for_unheard(self, _: Outcome) -> None:
        self._unheard.notice(self._asked(), {name: model.calls for name, model in registry.models().items()})

    def _asked(self) -> Iterator[tuple[str, str]]:
        """What was asked for, and for which model."""
        yield from (("limit()", model) for model in list(self._limiters))
        yield from (("tune()", model) for model in list(self._tuners))
        yield from (("on()", action.model) for action in maintainer.actions() if action.model is not None)
        paths = sys.modules.get("otel_inference.maintenance.paths")  # of the middleware, which is the user's to add
        yield from (("models= of OverloadMiddleware", model) for model in sorted(paths.asked if paths else ()))
        yield from (("an objective", model) for model in _with_objectives(self._config))

    def _note_tuning(self, model: str, record: TuningRecord) -> None:
        action = f"tune {record.knob}"
        self._instruments.record_action(action, record.outcome.value)
        attributes = {
            semconv.ACTION_NAME: action,
            semconv.ACTION_OUTCOME: record.outcome.value,
            semconv.ACTION_DETAIL: record.reason,
            semconv.MODEL: model,
            semconv.KNOB_BEFORE: record.before,
            semconv.KNOB_AFTER: record.after,
        }
        self._events.emit(semconv.MAINTENANCE_EVENT, attributes)

    def _note_action(self, entry: JournalEntry) -> None:
        if entry.verdict is None:  # told a second time when it was judged
            self._instruments.record_action(entry.action, entry.outcome.value)
        self._events.emit(semconv.MAINTENANCE_EVENT, entry.attributes)
