"""`HealthSpanProcessor`: judges the spans of other instrumentations that name a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import StatusCode

from otel_inference import guard, semconv
from otel_inference.telemetry.registry import HealthRegistry, registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan


class HealthSpanProcessor(SpanProcessor):
    """Adds every ended span that carries `gen_ai.request.model` or `inference.model` to its model's health.

    Calls that this package measures itself reach the same statistics directly, whether or not their
    span is recorded, and their spans are passed over here: each call counts once, with any sampler
    and with any number of these processors. `instrument()` attaches one; it can also be used alone:

        provider.add_span_processor(HealthSpanProcessor())

    It never raises and never waits for anything but a lock that is held for microseconds.

    Args:
        health: Where the statistics are kept; default: those of the process, which `health()` shows.
        active: Whether to judge at the moment; default: always.
    """

    def __init__(self, health: HealthRegistry = registry, *, active: Callable[[], bool] = lambda: True) -> None:
        self._health = health
        self._active = active

    def on_end(self, span: ReadableSpan) -> None:
        """Judge one ended span."""
        try:
            scope = span.instrumentation_scope
            if scope is not None and scope.name == semconv.SCOPE:
                return
            attributes = span.attributes
            if not attributes or not self._active():
                return
            model = attributes.get(semconv.GEN_AI_MODEL) or attributes.get(semconv.MODEL)
            if model is not None and (span.context is None or self._health.is_first_look(span.context.span_id)):
                self._judge(span, str(model))
        except Exception:  # noqa: BLE001 - it would reach the program that ended the span
            guard.failed("processor")

    def _judge(self, span: ReadableSpan, model: str) -> None:
        if span.start_time is None or span.end_time is None:
            return
        attributes = span.attributes or {}
        duration_s = max(0, span.end_time - span.start_time) / 1e9
        size = attributes.get(semconv.INPUT_SIZE, attributes.get(semconv.GEN_AI_INPUT_TOKENS))
        self._health.of(model, age_s=duration_s).ended(
            self._health.now_s(),
            duration_s,
            failed=span.status.status_code is StatusCode.ERROR or semconv.ERROR_TYPE in attributes,
            cold=attributes.get(semconv.COLD) is True,
            size=size if isinstance(size, int) else None,
        )
        self._health.names.warn_once()
