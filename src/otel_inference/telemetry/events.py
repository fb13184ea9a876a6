"""OpenTelemetry log events: what was found, and what was done about it.

The only user of the logs API, whose module name still says that it may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from otel_inference import semconv
from otel_inference.finding import FindingEvent, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry._logs import LoggerProvider

    from otel_inference.finding import Finding, FindingChange

_SEVERITIES: Final = {
    Severity.INFO: SeverityNumber.INFO,
    Severity.WARNING: SeverityNumber.WARN,
    Severity.CRITICAL: SeverityNumber.ERROR,
}
_NAMES: Final = {
    FindingEvent.OPENED: semconv.FINDING_OPENED,
    FindingEvent.CLOSED: semconv.FINDING_CLOSED,
}


class Events:
    """Writes events.

    Args:
        provider: Where they go; `None` for the global provider, also one that is set later.
        version: Of this package.
    """

    def __init__(self, provider: LoggerProvider | None, version: str) -> None:
        self._logger = _logs.get_logger(semconv.SCOPE, version, provider, semconv.SCHEMA_URL)

    def finding(self, change: FindingChange) -> None:
        """Write that a finding opened or closed; other changes are no events."""
        name = _NAMES.get(change.event)
        if name is None:
            return
        finding = change.finding
        self._logger.emit(
            event_name=name,
            timestamp=round(change.at.timestamp() * 1e9),
            severity_number=SeverityNumber.INFO
            if change.event is FindingEvent.CLOSED
            else _SEVERITIES[finding.severity],
            body=finding.advice,
            attributes=finding_attributes(finding),
            context=_context_of(finding),
        )

    def emit(self, name: str, attributes: Mapping[str, Any], body: str | None = None) -> None:
        """Write another event, in the current context."""
        self._logger.emit(event_name=name, severity_number=SeverityNumber.INFO, attributes=attributes, body=body)


def finding_attributes(finding: Finding) -> dict[str, Any]:
    """A finding as attributes; what it does not have is left out."""
    attributes = {
        semconv.FINDING_EVENT_KIND: finding.kind.value,
        semconv.FINDING_EVENT_SEVERITY: finding.severity.value,
        semconv.MODEL: finding.model,
        semconv.FINDING_SUBJECT: finding.subject,
        semconv.FINDING_SINCE: finding.since.isoformat(),
        semconv.FINDING_ADVICE: finding.advice,
        semconv.FINDING_EXPLAINED_BY: finding.explained_by,
        **{f"{semconv.FINDING_EVIDENCE}.{name}": value for name, value in finding.evidence.items()},
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _context_of(finding: Finding) -> Context | None:
    """The context of the span that shows the finding, so that backends lead from one to the other."""
    if finding.trace_id is None or finding.span_id is None:
        return None
    span = SpanContext(
        trace_id=int(finding.trace_id, 16),
        span_id=int(finding.span_id, 16),
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(span), Context())
