"""The exporters a user has configured, and a span as they want it: with the sampled flag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import SpanContext, TraceFlags

from otel_inference.sampling.tracestate import with_threshold

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.trace import SpanProcessor


def exporting(processor: Any) -> Iterator[SpanProcessor]:
    """The SDK's own processors that hand spans to an exporter, of a provider's processor.

    Others are left out: they have seen the span, and may count it a second time.
    """
    if isinstance(processor, (BatchSpanProcessor, SimpleSpanProcessor)):
        yield processor
    # The SDK offers no way to ask a multi processor for its parts.
    for part in getattr(processor, "_span_processors", ()):
        yield from exporting(part)


def as_sampled(span: ReadableSpan, more: Mapping[str, Any]) -> ReadableSpan:
    """A copy of an ended span that exporters take, with more attributes and without a `th` it was not kept by."""
    context = span.get_span_context()
    assert context is not None
    sampled = SpanContext(
        context.trace_id,
        context.span_id,
        context.is_remote,
        TraceFlags(context.trace_flags | TraceFlags.SAMPLED),
        with_threshold(context.trace_state, None),
    )
    return ReadableSpan(
        span.name,
        sampled,
        span.parent,
        span.resource,
        {**(span.attributes or {}), **more},
        span.events,
        span.links,
        span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
