"""The ways to make a call: bare, with a span written by hand, and instrumented by this package."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased

from benchmarks.timing import Variant
from otel_inference import engines, instrument, observe, observing, protocols, semconv, uninstrument
from otel_inference.telemetry.recorder import Recorder
from otel_inference.telemetry.writer import CallWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.sampling import Sampler

    from benchmarks.subjects import Subject

BARE: Final = "bare"
BY_HAND: Final = "by hand, sampled"
BY_HAND_UNSAMPLED: Final = "by hand, 1 %"
SAMPLED: Final = "ours, sampled"
UNSAMPLED: Final = "ours, 1 %"
METRICS_ONLY: Final = "ours, metrics only"
NO_SDK: Final = "ours, no SDK"
NESTED: Final = "inside a call"


class Discard(SpanExporter):
    """Takes spans and keeps the last, to look at."""

    last: ReadableSpan | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Nothing that costs time on another thread."""
        self.last = spans[-1]
        return SpanExportResult.SUCCESS


class Sdk:
    """Providers of one variant: spans to a batch processor, metrics aggregated in memory."""

    def __init__(self, sampler: Sampler) -> None:
        self.exporter = Discard()
        self.tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer.add_span_processor(BatchSpanProcessor(self.exporter, schedule_delay_millis=60_000))
        self.meter = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


def one_percent() -> Sampler:
    """What a busy service runs with."""
    return ParentBased(TraceIdRatioBased(0.01))


@dataclass(frozen=True, slots=True)
class _Place:
    """A method that instrumentation replaces, before and after."""

    owner: Any
    attribute: str
    before: Any
    after: Any


class Switch:
    """Turns the instrumentation of this process off, or on with one of several sinks, in microseconds."""

    def __init__(self) -> None:
        self._outlets = [observing.OUTLET, *(protocols.outlet_of(name) for name in engines.names())]
        owners = _owners()
        before = [vars(owner).get(attribute) for owner, attribute in owners]
        instrument()
        self._places = [
            _Place(owner, attribute, was, vars(owner)[attribute])
            for (owner, attribute), was in zip(owners, before, strict=True)
            if was is not None
        ]
        uninstrument()
        self._is_on = False

    def sink(self, sdk: Sdk | None) -> Recorder:
        """Where calls go with the providers of `sdk`, or with OpenTelemetry's API alone."""
        if sdk is None:
            instrument()
        else:
            instrument(tracer_provider=sdk.tracer, meter_provider=sdk.meter)
        sink = observing.OUTLET.sink
        uninstrument()
        assert isinstance(sink, Recorder)
        sink.writer = CallWriter(sink._write)  # the one it had has been stopped
        return sink

    def turn(self, sink: protocols.CallSink | None) -> None:
        """Report to `sink`; with `None` the libraries are as they were."""
        for outlet in self._outlets:
            outlet.sink = sink
        if self._is_on is (sink is not None):
            return
        self._is_on = sink is not None
        for place in self._places:
            setattr(place.owner, place.attribute, place.after if self._is_on else place.before)


def _owners() -> list[tuple[Any, str]]:
    """Class and attribute of everything that the engines would replace in the modules loaded by now."""
    found = {}
    for name in engines.names():
        for target in engines.load(name).targets(protocols.outlet_of(name)):
            *parents, attribute = target.path.split(".")
            if target.module in sys.modules:
                found[target.key] = (functools.reduce(getattr, parents, sys.modules[target.module]), attribute)
    return list(found.values())


def variants_of(subject: Subject, switch: Switch) -> tuple[list[Variant], list[str]]:
    """Every way to make the subject's call, each with providers of its own; and what only our span says."""
    made = [_variant(BARE, subject.call, switch, None, None)]
    exporters = []
    for name, sampler in ((BY_HAND, ALWAYS_ON), (BY_HAND_UNSAMPLED, one_percent())):
        sdk = Sdk(sampler)
        made.append(_variant(name, written_by_hand(subject, sdk), switch, None, sdk))
        exporters.append(sdk.exporter)
    for name, sampler in ((SAMPLED, ALWAYS_ON), (UNSAMPLED, one_percent()), (METRICS_ONLY, ALWAYS_OFF)):
        sdk = Sdk(sampler)
        made.append(_variant(name, subject.call, switch, switch.sink(sdk), sdk))
        exporters.append(sdk.exporter)
    made.append(_variant(NO_SDK, subject.call, switch, switch.sink(None), None))
    by_name = {variant.name: variant for variant in made}
    return made, surplus(by_name[BY_HAND], exporters[0], by_name[SAMPLED], exporters[2])


def nested_variants(subject: Subject, switch: Switch) -> list[Variant]:
    """Bare, and inside a call that is counted already, so that only the submodules' wrappers are left."""
    outer = observe("outer")

    def enter() -> None:
        switch.turn(sink)
        outer.__enter__()

    sink = switch.sink(None)
    inside = Variant(
        name=NESTED, call=subject.call, enter=enter, settle=_nothing, leave=lambda: outer.__exit__(None, None, None)
    )
    return [_variant(BARE, subject.call, switch, None, None), inside]


def written_by_hand(subject: Subject, sdk: Sdk) -> Callable[[], Any]:
    """The subject's call with a span and a histogram, as the manual says."""
    tracer = sdk.tracer.get_tracer("service")
    histogram = sdk.meter.get_meter("service").create_histogram(
        semconv.CALL_DURATION, "s", explicit_bucket_boundaries_advisory=semconv.CALL_SECONDS
    )
    name = f"{subject.operation} {subject.model}"
    engine, operation, model = subject.engine, subject.operation, subject.model
    function, describe, describe_result = subject.call, subject.describe, subject.describe_result

    def call() -> Any:
        identity = {semconv.ENGINE: engine, semconv.OPERATION: operation, semconv.MODEL: model}
        with tracer.start_as_current_span(name, attributes={**identity, **describe()}) as span:
            started_s = perf_counter()
            result = function()
            histogram.record(perf_counter() - started_s, identity)
            if describe_result is not None:
                span.set_attributes(describe_result(result))
        return result

    return call


def surplus(by_hand: Variant, exporter: Discard, ours: Variant, our_exporter: Discard) -> list[str]:
    """Attributes that only our span has, such as times that code around a call cannot know.

    Raises:
        RuntimeError: If ours says less, or something else: the two could not be compared.
    """
    for variant in (by_hand, ours, by_hand, ours):  # the first call is marked cold
        variant.enter()
        variant.call()
        variant.leave()
    assert exporter.last is not None
    assert our_exporter.last is not None
    expected = {"name": exporter.last.name, **(exporter.last.attributes or {})}
    found = {"name": our_exporter.last.name, **(our_exporter.last.attributes or {})}
    different = {name: (value, found.get(name)) for name, value in expected.items() if found.get(name) != value}
    if different:
        msg = f"by hand and ours cannot be compared, they differ in {different}"
        raise RuntimeError(msg)
    return sorted(found.keys() - expected.keys())


def _variant(name: str, call: Callable[[], Any], switch: Switch, sink: Recorder | None, sdk: Sdk | None) -> Variant:
    def leave() -> None:
        if sdk is not None:
            sdk.tracer.force_flush()

    settle = _nothing if sink is None else sink.writer.drain
    return Variant(name=name, call=call, enter=lambda: switch.turn(sink), settle=settle, leave=leave)


def _nothing() -> None:
    """What a call by hand leaves to be done."""
