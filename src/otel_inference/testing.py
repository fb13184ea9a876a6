"""For tests of programs that use this package: record in memory, then look.

>>> from otel_inference import observe
>>> with recorded() as telemetry:
...     with observe("ranker"):
...         pass
>>> [span.name for span in telemetry.spans()]
['call ranker']
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_inference import runtime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler

    from otel_inference.config import Config


class Telemetry:
    """What was recorded, through SDK providers of its own."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def spans(self) -> list[ReadableSpan]:
        """The spans that ended, in that order."""
        runtime.flush()
        return list(self._exporter.get_finished_spans())

    def points(self, metric: str) -> list[Any]:
        """The data points of a metric now, each with `attributes` and `value` or `count`."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric
            for point in found.data.data_points
        ]

    def count(self, metric: str, **attributes: str) -> int:
        """Measurements of a histogram whose points carry `attributes` (dots written as `__`)."""
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        return sum(point.count for point in self.points(metric) if wanted.items() <= dict(point.attributes).items())


@contextmanager
def recorded(
    engines: Iterable[str] | None = None, *, config: Config | None = None, sampler: Sampler | None = None
) -> Iterator[Telemetry]:
    """Instrument for the time of a block, with telemetry kept in memory.

    Args:
        engines: Names of engines; default: all.
        config: Options; default: the environment's.
        sampler: The SDK's sampler; default: its own default, which keeps every root span.
    """
    telemetry = Telemetry(sampler)
    runtime.instrument(
        engines,
        tracer_provider=telemetry.tracer_provider,
        meter_provider=telemetry.meter_provider,
        config=config,
    )
    try:
        yield telemetry
    finally:
        runtime.uninstrument()
