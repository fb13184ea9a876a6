"""The span of one run of an action, linked to a span that shows what it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    format_trace_id,
)

from otel_inference import guard, semconv
from otel_inference.maintenance.journal import Outcome

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from otel_inference.finding import Finding
    from otel_inference.maintenance.execution import Ending


def begin_span(tracer: Tracer, action: str, finding: Finding) -> Span:
    """Begin the span `maintenance {action}`, in a trace of its own; what processors raise stays inside."""
    attributes = {
        semconv.ACTION_NAME: action,
        semconv.FINDING_EVENT_KIND: finding.kind.value,
        semconv.FINDING_EVENT_SEVERITY: finding.severity.value,
    }
    if finding.subject is not None:
        attributes[semconv.FINDING_SUBJECT] = finding.subject
    if finding.model is not None:
        attributes[semconv.MODEL] = finding.model
    with guard.guarded("maintenance.span"):
        return tracer.start_span(
            f"maintenance {action}", Context(), SpanKind.INTERNAL, attributes, links=_evidence(finding)
        )
    return INVALID_SPAN


def end_span(span: Span, ending: Ending, outcome: Outcome | None = None) -> None:
    """Say how it ended, and end it.

    Args:
        span: What `begin_span` gave.
        ending: How the call ended.
        outcome: What that is called; default: as the call itself.
    """
    with guard.guarded("maintenance.span"):
        span.set_attribute(semconv.ACTION_OUTCOME, (outcome or ending.outcome).value)
        if ending.outcome is not Outcome.DONE:
            span.set_status(Status(StatusCode.ERROR, ending.detail))
            span.set_attribute(semconv.ERROR_TYPE, _error_type(ending))
        if ending.error is not None:
            with guard.guarded("exception"):  # an exception may fail to say what it is
                span.record_exception(ending.error, escaped=False)
        span.end()


def trace_id_of(span: Span) -> str | None:
    """32 hexadecimal digits; `None` where nothing is traced."""
    context = span.get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None


def _error_type(ending: Ending) -> str:
    return ending.outcome.value if ending.error is None else type(ending.error).__qualname__


def _evidence(finding: Finding) -> tuple[Link, ...]:
    if finding.trace_id is None or finding.span_id is None:
        return ()
    try:
        trace_id, span_id = int(finding.trace_id, 16), int(finding.span_id, 16)
    except ValueError:  # not hexadecimal: whoever made the finding has ids of its own
        return ()
    return (Link(SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))),)
