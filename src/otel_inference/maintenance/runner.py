"""Runs what is due, one at a time, judges it once it has settled, and takes back what hurt.

Everything here happens on the one thread of the maintainer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry.trace import set_span_in_context

from otel_inference import guard
from otel_inference.finding import Severity
from otel_inference.maintenance.action import MaintenanceEvent
from otel_inference.maintenance.execution import Execution
from otel_inference.maintenance.figures import Figures, figures_of
from otel_inference.maintenance.journal import JournalEntry, Outcome
from otel_inference.maintenance.policy import History, Mode, Ruling, RunCount, decide
from otel_inference.maintenance.span import begin_span, end_span, trace_id_of
from otel_inference.maintenance.verdict import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.trace import Span, Tracer

    from otel_inference.finding import Finding
    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.maintenance.action import Action
    from otel_inference.maintenance.execution import Ending
    from otel_inference.maintenance.journal import Journal
    from otel_inference.resources.reading import Reading

_log = logging.getLogger("otel_inference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the runtime lends to maintenance."""

    health: Callable[[str | None], ModelHealth | Mapping[str, ModelHealth] | None]
    """Health of the model of that name, or with `None` of every model."""
    tracer: Tracer
    report: Callable[[JournalEntry], None]
    """Told of every entry, and once more of one that was judged: its `verdict` is no longer `None` then."""
    readings: Callable[[], Sequence[Reading]]
    """The machine's last readings, oldest first."""
    window_s: float
    """Width of the health window."""
    clock: Callable[[], float]


class _State:
    """What is known of the actions of one name."""

    __slots__ = ("execution", "history")

    def __init__(self) -> None:
        self.history = History()
        self.execution: Execution | None = None

    def hangs(self) -> bool:
        """Whether a call of it has not returned yet."""
        return self.execution is not None and self.execution.is_alive()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """A run whose effect is being watched."""

    action: Action
    event: MaintenanceEvent
    entry: JournalEntry
    before: Figures
    due_s: float


class Histories:
    """What became of all actions so far; outlives a stop and a start."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}
        self.runs = RunCount()
        self.numbers = count(1)

    def of(self, name: str) -> _State:
        """The state of the actions of one name."""
        return self._states.setdefault(name, _State())

    def reset_after_fork(self) -> None:
        """Begin anew: no run of the parent's goes on here."""
        self._states.clear()
        self.runs = RunCount()
        self.numbers = count(1)


class Runner:
    """Decides and runs.

    Args:
        surroundings: Health, telemetry and the clock.
        journal: Where it is written down.
        histories: What became of the actions so far.
        mode: What may be done, asked before every action.
    """

    def __init__(
        self, surroundings: Surroundings, journal: Journal, histories: Histories, mode: Callable[[], Mode]
    ) -> None:
        self._outside = surroundings
        self._journal = journal
        self._histories = histories
        self._mode = mode
        self._trials: list[_Trial] = []

    def step(self, actions: Callable[[], Sequence[Action]], findings: Callable[[], Sequence[Finding]]) -> None:
        """Judge what has settled, then run what is due, until nothing is.

        Args:
            actions: What is registered; asked anew after each run, which may register or remove.
            findings: What is open; asked anew too, for a finding may close while another one is worked on.
        """
        self._judge_settled()
        tried: set[tuple[object, str]] = set()
        while self._mode() is not Mode.OFF:
            chosen = self._next(actions(), findings(), tried)
            if chosen is None:
                return
            tried.add((chosen[0].trigger, chosen[1].key))
            self._perform(*chosen)

    def wait_s(self) -> float | None:
        """How long until something has settled; `None` while nothing is being watched."""
        due_s = min((trial.due_s for trial in self._trials), default=None)
        return None if due_s is None else max(0.0, due_s - self._outside.clock())

    def reset_after_fork(self) -> None:
        """Forget what the parent watches; its effect here cannot be told from that of the fork."""
        self._trials.clear()

    def _next(
        self, actions: Sequence[Action], findings: Sequence[Finding], tried: set[tuple[object, str]]
    ) -> tuple[Action, Finding] | None:
        open_keys = {finding.key for finding in findings}
        longest_s = max((action.cooldown_s for action in actions), default=0.0)
        for action in actions:
            self._histories.of(action.name).history.forget(self._outside.clock(), longest_s, open_keys)
        for finding in sorted(findings, key=lambda each: each.severity is not Severity.CRITICAL):
            for action in actions:
                pair = (action.trigger, finding.key)
                if action.matches(finding) and pair not in tried and self._may_run(action, finding):
                    return action, finding
        return None

    def _may_run(self, action: Action, finding: Finding) -> bool:
        state, now_s = self._histories.of(action.name), self._outside.clock()
        decision = decide(
            action,
            state.history,
            finding=finding.key,
            now_s=now_s,
            runs_in_all=self._histories.runs.last_hour(now_s),
            hangs=state.hangs(),
            unjudged=self._unjudged(finding),
        )
        if decision.ruling is Ruling.REFUSE and state.history.is_news(decision.reason):
            self._enter(self._entry(action, finding, Outcome.REFUSED, decision.reason))
        return decision.ruling is Ruling.GO

    def _unjudged(self, finding: Finding) -> str | None:
        """The action that can be undone and is being watched on what the finding is about."""
        for trial in self._trials:
            if trial.action.undo is not None and (
                finding.model is None or trial.event.finding.model in {None, finding.model}
            ):
                return trial.action.name
        return None

    def _perform(self, action: Action, finding: Finding) -> None:
        state, began_s = self._histories.of(action.name), self._outside.clock()
        event = self._event(finding)
        why_not = self._why_not(action, event, state)
        state.history.begin(finding.key, began_s, counts=why_not is None)
        if why_not is not None:
            if state.history.is_news(why_not):
                self._enter(self._entry(action, finding, Outcome.REFUSED, why_not))
            return
        self._histories.runs.add(began_s)
        if self._mode() is Mode.OBSERVE:
            self._enter(self._entry(action, finding, Outcome.WOULD_RUN))
        elif self._mode() is Mode.ACT:
            self._run(action, event, state)

    def _why_not(self, action: Action, event: MaintenanceEvent, state: _State) -> str | None:
        """Why its precondition forbids it; `None` if it does not."""
        if action.precondition is None:
            return None
        ending = self._call(action.precondition, event, state, action.timeout_s)
        if ending.outcome is not Outcome.DONE:
            self._tell_of_failure(action, "its precondition", ending)
            state.history.fail()
            return f"its precondition {ending.outcome.value}: {ending.detail}"
        if isinstance(ending.value, str):
            return ending.value or "its precondition does not hold"
        return None if ending.value else "its precondition does not hold"

    def _run(self, action: Action, event: MaintenanceEvent, state: _State) -> None:
        before = self._figures(event.finding)
        began_s = self._outside.clock()
        span = begin_span(self._outside.tracer, action.name, event.finding)
        ending = self._call(action.run, event, state, action.timeout_s, span)
        end_span(span, ending)
        ended_s = self._outside.clock()
        if ending.outcome is Outcome.DONE:
            state.history.succeed()
        else:
            state.history.fail()
            self._tell_of_failure(action, "it", ending)
        entry = self._entry(
            action,
            event.finding,
            ending.outcome,
            ending.detail,
            duration_s=ended_s - began_s,
            before=before.summary(),
            trace_id=trace_id_of(span),
        )
        self._enter(entry)
        settle_s = self._outside.window_s if action.settle_s is None else action.settle_s
        self._trials.append(_Trial(action=action, event=event, entry=entry, before=before, due_s=ended_s + settle_s))

    def _judge_settled(self) -> None:
        now_s = self._outside.clock()
        for trial in [trial for trial in self._trials if trial.due_s <= now_s]:
            self._trials.remove(trial)
            self._judge(trial)

    def _judge(self, trial: _Trial) -> None:
        finding, after = trial.event.finding, self._figures(trial.event.finding)
        judgement = judge(finding.kind, finding.subject, trial.before, after)
        detail = "; ".join(part for part in (trial.entry.detail, judgement.reason) if part)
        self._report(self._journal.judge(trial.entry, verdict=judgement.verdict, reason=detail, after=after.summary()))
        if judgement.verdict is Verdict.WORSE and trial.action.undo is not None:
            self._undo(trial)

    def _undo(self, trial: _Trial) -> None:
        action, finding, state = trial.action, trial.event.finding, self._histories.of(trial.action.name)
        why_not = _why_no_undo(self._mode(), hangs=state.hangs())
        if why_not is not None or action.undo is None:
            self._enter(self._entry(action, finding, Outcome.REFUSED, f"not undone: {why_not}", run=trial.entry.run))
            return
        began_s = self._outside.clock()
        span = begin_span(self._outside.tracer, action.name, finding)
        ending = self._call(action.undo, trial.event, state, action.timeout_s, span)
        undone = ending.outcome is Outcome.DONE
        outcome = Outcome.UNDONE if undone else Outcome.UNDO_FAILED
        end_span(span, ending, outcome)
        if undone:
            state.history.roll_back(began_s)
        else:
            state.history.disabled = "it made things worse and could not be undone"
            self._tell_of_failure(action, "its undo", ending)
        duration_s = self._outside.clock() - began_s
        detail = ending.detail or "it made things worse"
        self._enter(
            self._entry(
                action, finding, outcome, detail, run=trial.entry.run, duration_s=duration_s, trace_id=trace_id_of(span)
            )
        )

    def _call(
        self,
        function: Callable[[MaintenanceEvent], Any],
        event: MaintenanceEvent,
        state: _State,
        timeout_s: float,
        span: Span | None = None,
    ) -> Ending:
        context = otel_context.Context()
        execution = Execution(function, event, context if span is None else set_span_in_context(span, context))
        state.execution = execution
        ending = execution.ending(timeout_s)
        if not execution.is_alive():
            state.execution = None  # which holds the frames of what it raised
        return ending

    def _event(self, finding: Finding) -> MaintenanceEvent:
        return MaintenanceEvent(finding=finding, health=self._health(finding.model), journal=self._journal.entries())

    def _health(self, model: str | None) -> ModelHealth | Mapping[str, ModelHealth] | None:
        with guard.guarded("maintenance.health"):
            return self._outside.health(model)
        return None

    def _figures(self, finding: Finding) -> Figures:
        return figures_of(_models_in(self._health(finding.model)), self._outside.readings())

    def _entry(
        self, action: Action, finding: Finding, outcome: Outcome, detail: str = "", **known: Any
    ) -> JournalEntry:
        known.setdefault("run", next(self._histories.numbers))
        return JournalEntry(
            at=datetime.now(UTC),
            action=action.name,
            finding=finding.key,
            kind=finding.kind,
            subject=finding.subject,
            model=finding.model,
            mode=self._mode(),
            outcome=outcome,
            detail=detail,
            **known,
        )

    def _enter(self, entry: JournalEntry) -> None:
        self._journal.append(entry)
        self._report(entry)

    def _report(self, entry: JournalEntry) -> None:
        with guard.guarded("maintenance.report"):
            self._outside.report(entry)

    def _tell_of_failure(self, action: Action, what: str, ending: Ending) -> None:
        _log.warning(
            "maintenance action %s: %s %s (%s); your program's calls are not affected",
            action.name,
            what,
            ending.outcome.value.replace("_", " "),
            ending.detail,
            exc_info=ending.error,
        )


def _why_no_undo(mode: Mode, *, hangs: bool) -> str | None:
    """Why what was done cannot be taken back now; `None` if it can."""
    if mode is not Mode.ACT:
        return f"maintenance is set to {mode.value}"
    return "the run has not returned" if hangs else None


def _models_in(health: ModelHealth | Mapping[str, ModelHealth] | None) -> tuple[ModelHealth, ...]:
    if isinstance(health, Mapping):
        return tuple(health.values())
    return () if health is None else (health,)
