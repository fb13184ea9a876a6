"""What is wrong with a model or with the process: the record that alerts and maintenance are set off by."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class FindingKind(StrEnum):
    """What may be found."""

    SLO_BURN = "slo_burn"
    """The error budget of an objective is being used up too fast."""
    LATENCY_SHIFT = "latency_shift"
    """Calls take longer than they did, for inputs of the same size."""
    ERROR_BURST = "error_burst"
    """Calls fail more often than they did."""
    THROUGHPUT_DROP = "throughput_drop"
    """Far fewer calls end than did."""
    SATURATION = "saturation"
    """A resource is used up; `subject` says which."""
    BOTTLENECK = "bottleneck"
    """What calls spend their time on; `subject` says what."""
    INPUT_SHIFT = "input_shift"
    """Inputs grew or their mix changed; the system did not slow."""
    STALL = "stall"
    """A call has been running for far too long."""
    MEMORY_GROWTH = "memory_growth"
    """The process's memory grows steadily towards its limit."""


class Severity(StrEnum):
    """How bad a finding is."""

    INFO = "info"
    """Nothing is to be done; it explains what is seen."""
    WARNING = "warning"
    """The model is degraded, or soon will be."""
    CRITICAL = "critical"
    """Users are being failed now."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, as it is known now."""

    kind: FindingKind
    severity: Severity
    model: str | None
    """The model concerned; `None` where it is the whole process."""
    since: datetime
    """When it began, as far as can be told, in UTC; not later than when it was opened."""
    evidence: Mapping[str, float | int | str]
    """The numbers it rests on, units in their names, and the window they come from (`window_s`)."""
    advice: str
    """What would help, in one sentence, naming the maintenance action that fits where there is one."""
    _: KW_ONLY
    subject: str | None = None
    """The saturated resource, the bottleneck, or the objective, where the kind has one."""
    explained_by: str | None = None
    """`key` of the open finding that this one follows from, such as a saturated processor."""
    trace_id: str | None = None
    """32 hexadecimal digits: a trace that shows it."""
    span_id: str | None = None
    """16 hexadecimal digits: the span of that trace."""

    @property
    def key(self) -> str:
        """What makes it the same finding when it is seen again: kind, subject and model."""
        return ":".join((self.kind.value, self.subject or "", self.model or ""))


class FindingEvent(StrEnum):
    """What became of a finding."""

    OPENED = "opened"
    UPDATED = "updated"
    """Still open, with other evidence; worth no alert of its own unless its severity rose."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingChange:
    """A finding that opened, changed or closed at one evaluation."""

    event: FindingEvent
    finding: Finding
    at: datetime = field(compare=False)
    """When, in UTC."""
