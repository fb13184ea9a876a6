"""What a recorded call is made of: what all calls of a model share, and its own span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_inference import semconv
from otel_inference.call import OpenCall

if TYPE_CHECKING:
    from opentelemetry import context as otel_context
    from opentelemetry.trace import Span

    from otel_inference.protocols import Limiter
    from otel_inference.telemetry.registry import ModelStatistics


class Series:
    """What all calls of one engine, operation and model share, built once."""

    __slots__ = ("attributes", "limiter", "metric_attributes", "model", "running", "span_name", "statistics")

    def __init__(
        self, engine: str, operation: str, model: str, *, version: str | None, statistics: ModelStatistics | None
    ) -> None:
        self.model = model
        self.limiter: Limiter | None = None
        self.statistics = statistics
        """The model's health; `None` for loads, which are no calls."""
        self.span_name = f"{operation} {model}"
        self.metric_attributes = {semconv.ENGINE: engine, semconv.OPERATION: operation, semconv.MODEL: model}
        self.attributes: dict[str, Any] = dict(self.metric_attributes)
        if version is not None:
            self.attributes[semconv.ENGINE_VERSION] = version
        self.running: set[RecordedCall] = set()
        """Adding and removing are atomic, so that who removes a call is the one that ends it."""


class RecordedCall(OpenCall):
    """An open call with its span."""

    __slots__ = ("before", "begun_as", "context", "series", "span", "thread", "token")

    series: Series
    span: Span
    context: otel_context.Context
    token: Any
    before: OpenCall | None
    begun_as: tuple[Any, ...]
    thread: int | None
    """The kernel's id of the thread that it is current in; `None` between two steps of a stream."""
