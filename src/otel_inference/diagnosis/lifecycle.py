"""From what the rules see at each evaluation to findings that open once, change seldom, and close."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis.explanation import explanations
from otel_inference.finding import Finding, FindingChange, FindingEvent, FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from otel_inference.health.stretch import Exemplar

RELEASE: Final = 0.8
"""A finding stays open down to this share of the threshold that opened it."""
UPDATE_EVERY_S: Final = 60.0
MATERIAL_CHANGE: Final = 0.25
_HOW_LONG: Final = frozenset({"window_s", "calls", "also_seen"})
"""Evidence that changes while the finding stays the same."""
_RANK: Final = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a rule holds to be wrong now."""

    kind: FindingKind
    severity: Severity
    since_s: float
    """When it began, on the clock of the evaluation."""
    evidence: Mapping[str, float | int | str]
    advice: str
    model: str | None = None
    subject: str | None = None
    exemplar: Exemplar | None = None

    @property
    def key(self) -> str:
        """As `Finding.key`."""
        return ":".join((self.kind.value, self.subject or "", self.model or ""))


class Latch:
    """Remembers whether something is wrong, and does not change its mind for nothing.

    On once the level has been at least 1 for `on_ticks` updates in a row; off once it has been below 0.8 for
    `off_ticks` in a row. A tick is fresh data: whoever owns a latch updates it only when there are some.

    >>> latch = Latch(on_ticks=2, off_ticks=2)
    >>> [latch.update(level, at_s) for at_s, level in enumerate((1.0, 0.9, 1.2, 1.2, 0.9, 0.7, 0.9, 0.7, 0.7))]
    [False, False, False, True, True, True, True, True, False]
    """

    __slots__ = ("_off_ticks", "_on_ticks", "_ticks", "is_on", "since_s")

    def __init__(self, *, on_ticks: int = 2, off_ticks: int = 6) -> None:
        self._on_ticks = on_ticks
        self._off_ticks = off_ticks
        self._ticks = 0
        self.is_on = False
        self.since_s = 0.0
        """First of the updates that turned it on."""

    def update(self, level: float, at_s: float) -> bool:
        """Take the value as a share of its threshold; returns whether it is on."""
        turning = level < RELEASE if self.is_on else level >= 1.0
        if turning and not self.is_on and self._ticks == 0:
            self.since_s = at_s
        self._ticks = self._ticks + 1 if turning else 0
        if self._ticks >= (self._off_ticks if self.is_on else self._on_ticks):
            self.is_on = not self.is_on
            self._ticks = 0
        return self.is_on


class Ledger:
    """The findings that are open.

    An open finding is told of again only if its severity rose, if another finding now explains it, or, at most
    once a minute, if a number of its evidence changed by more than a quarter.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Entry] = {}
        self._explained: dict[str, str | None] = {}
        """Key of what explains each open finding."""
        self._by_model: Mapping[str | None, tuple[Finding, ...]] = {}
        """Replaced as a whole, so that any thread may read it."""

    def settle(self, verdicts: Iterable[Verdict], at_s: float, now: datetime) -> tuple[FindingChange, ...]:
        """Make the open findings those of `verdicts`; returns what changed, closings first.

        Args:
            verdicts: Everything that is wrong now; of two about one thing the worse is kept.
            at_s: When, on the clock of the verdicts.
            now: The same in UTC.
        """
        current = _worst_by_key(verdicts)
        if current.keys() != self._explained.keys():
            explained_by = explanations(current.values())
            self._explained = {key: explained_by.get(key) for key in current}
        changes = [
            FindingChange(event=FindingEvent.CLOSED, finding=self._open.pop(key).finding, at=now)
            for key in [*self._open]
            if key not in current
        ]
        for key, verdict in current.items():
            explained_by_key = self._explained[key]
            entry = self._open.get(key)
            if entry is None:
                entry = self._open[key] = _Entry(verdict, _finding(verdict, explained_by_key, at_s, now), at_s)
                changes.append(FindingChange(event=FindingEvent.OPENED, finding=entry.finding, at=now))
            elif not entry.is_as_before(verdict, explained_by_key) and entry.take(
                verdict, _finding(verdict, explained_by_key, at_s, now), at_s
            ):
                changes.append(FindingChange(event=FindingEvent.UPDATED, finding=entry.finding, at=now))
        self._by_model = _by_model(entry.finding for entry in self._open.values())
        return tuple(changes)

    def open(self, model: str | None = None) -> tuple[Finding, ...]:
        """The open findings of `model` and of the whole process; of all models for `None`. From any thread."""
        by_model = self._by_model
        if model is None:
            return tuple(finding for findings in by_model.values() for finding in findings)
        return (*by_model.get(model, ()), *by_model.get(None, ()))


class _Entry:
    """An open finding: as it is now, and as it was last told of."""

    __slots__ = ("_told", "_told_at_s", "_verdict", "finding")

    def __init__(self, verdict: Verdict, finding: Finding, at_s: float) -> None:
        self._verdict = verdict
        self.finding = self._told = finding
        self._told_at_s = at_s

    def is_as_before(self, verdict: Verdict, explained_by: str | None) -> bool:
        """Whether nobody looked again since this was taken, so that there is nothing to bring up to date."""
        return verdict is self._verdict and explained_by == self.finding.explained_by

    def take(self, verdict: Verdict, seen: Finding, at_s: float) -> bool:
        """Bring the finding up to date; returns whether that is worth telling."""
        self._verdict = verdict
        told = self._told
        # Told severities fall only with the next paced update, so that one on the edge does not flap.
        severity = max(seen.severity, told.severity, key=_RANK.__getitem__)
        paced = at_s - self._told_at_s >= UPDATE_EVERY_S
        self.finding = replace(
            seen,
            severity=seen.severity if paced else severity,
            since=min(seen.since, told.since),
            trace_id=seen.trace_id or told.trace_id,
            span_id=seen.span_id or told.span_id,
        )
        if (
            _RANK[severity] > _RANK[told.severity]
            or seen.explained_by != told.explained_by
            or (paced and (seen.severity != told.severity or _changed(told.evidence, seen.evidence)))
        ):
            self._told, self._told_at_s = self.finding, at_s
            return True
        return False


def _worst_by_key(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    worst: dict[str, Verdict] = {}
    for verdict in verdicts:
        known = worst.get(verdict.key)
        if known is None or _RANK[verdict.severity] > _RANK[known.severity]:
            worst[verdict.key] = verdict
    return worst


def _by_model(findings: Iterable[Finding]) -> dict[str | None, tuple[Finding, ...]]:
    found: dict[str | None, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.model, []).append(finding)
    return {model: tuple(of_model) for model, of_model in found.items()}


def _finding(verdict: Verdict, explained_by: str | None, at_s: float, now: datetime) -> Finding:
    exemplar = verdict.exemplar
    return Finding(
        verdict.kind,
        verdict.severity,
        verdict.model,
        now - timedelta(seconds=max(0.0, at_s - verdict.since_s)),
        verdict.evidence,
        verdict.advice,
        subject=verdict.subject,
        explained_by=explained_by,
        trace_id=None if exemplar is None else f"{exemplar.trace_id:032x}",
        span_id=None if exemplar is None else f"{exemplar.span_id:016x}",
    )


def _changed(told: Mapping[str, float | int | str], seen: Mapping[str, float | int | str]) -> bool:
    """Whether a number differs by more than a quarter of what was told, or a word at all."""
    if (told.keys() ^ seen.keys()) - _HOW_LONG:
        return True
    for name in seen.keys() - _HOW_LONG:
        before, value = told[name], seen[name]
        if isinstance(value, str) or isinstance(before, str):
            if value != before:
                return True
        elif abs(value - before) > MATERIAL_CHANGE * abs(before):
            return True
    return False
