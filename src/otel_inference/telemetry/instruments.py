"""The metric instruments, and what of a call goes into which."""

from __future__ import annotations

import weakref
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from otel_inference import guard, semconv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter, MeterProvider

    from otel_inference.call import Call, Usage
    from otel_inference.finding import Finding
    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.resources.reading import AcceleratorReading


class Observed(Protocol):
    """Where the observable instruments read from."""

    def flush(self) -> None:
        """Write all calls that have ended to the other instruments."""
        ...

    def health(self) -> Mapping[str, ModelHealth]:
        """Every model's health, at most a second old."""
        ...

    def accelerators(self) -> Iterable[AcceleratorReading]:
        """The accelerators that the process may use, as read last."""
        ...

    def limiters(self) -> Iterable[tuple[str, int, int, int]]:
        """Model, limit, calls running and calls turned away, for each limiter."""
        ...

    def active_calls(self) -> Iterable[tuple[str, str, int]]:
        """Engine, model and number of calls running now."""
        ...


class Instruments:
    """Every instrument of one meter, made once."""

    def __init__(self, meter: Meter) -> None:
        self.source: Observed | None = None
        """What the observable instruments read; `None` while nothing is instrumented."""

        def seconds(name: str, description: str, buckets: tuple[float, ...]) -> metrics.Histogram:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=buckets)

        self._duration = seconds(semconv.CALL_DURATION, "Duration of calls of a model.", semconv.CALL_SECONDS)
        self._load = seconds(semconv.LOAD_DURATION, "Time to load a model.", semconv.LOAD_SECONDS)
        self._queue = seconds(
            semconv.QUEUE_DURATION, "Time that calls waited before they were served.", semconv.CALL_SECONDS
        )
        self._batch = meter.create_histogram(
            semconv.BATCH_SIZE_METRIC,
            "{item}",
            "Items in one call of a model.",
            explicit_bucket_boundaries_advisory=semconv.BATCH_ITEMS,
        )
        self._request = seconds(
            semconv.GEN_AI_REQUEST_DURATION,
            "Generative AI request duration, to the last output token.",
            semconv.GEN_AI_DURATION_SECONDS,
        )
        self._first_token = seconds(
            semconv.GEN_AI_TIME_TO_FIRST_TOKEN,
            "Time to generate the first token, for successful responses.",
            semconv.GEN_AI_FIRST_TOKEN_SECONDS,
        )
        self._per_token = seconds(
            semconv.GEN_AI_TIME_PER_OUTPUT_TOKEN,
            "Time per output token after the first, for successful responses.",
            semconv.GEN_AI_PER_TOKEN_SECONDS,
        )
        self._tokens = meter.create_histogram(
            semconv.GEN_AI_TOKEN_USAGE,
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=semconv.GEN_AI_TOKENS,
        )
        self._findings = meter.create_counter(semconv.FINDINGS, "{finding}", "Findings that opened.")
        self._actions = meter.create_counter(semconv.MAINTENANCE_ACTIONS, "{action}", "Maintenance actions.")
        self._observe_ourselves(meter)
        self._observe_health(meter)
        self._observe_machine(meter)

    def _observe_ourselves(self, meter: Meter) -> None:
        # Observed rather than added to: a call in flight then costs nothing here.
        meter.create_observable_up_down_counter(
            semconv.ACTIVE_CALLS, [self._observe_active], "{call}", "Calls of a model that are running."
        )
        for name, counts, what in (
            (semconv.SELF_ERRORS, guard.error_counts, "Failures of the instrumentation itself."),
            (semconv.SELF_DROPPED, guard.drop_counts, "Telemetry that the instrumentation had to give up."),
        ):
            unit = "{error}" if name == semconv.SELF_ERRORS else "{item}"
            meter.create_observable_counter(name, [_observing(self, counts)], unit, what)

    def _observe_health(self, meter: Meter) -> None:
        for name, unit, what, read in _HEALTH_GAUGES:
            meter.create_observable_gauge(name, [_observing_health(self, read)], unit, what)
        for name, make, what, position in (
            (semconv.LIMITER_LIMIT, meter.create_observable_gauge, "How many calls may run at once.", 0),
            (semconv.LIMITER_IN_USE, meter.create_observable_gauge, "Calls that a limiter has let run.", 1),
            (semconv.LIMITER_REJECTED, meter.create_observable_counter, "Calls that a limiter turned away.", 2),
        ):
            make(name, [_observing_limiters(self, position)], "{call}", what)

    def _observe_machine(self, meter: Meter) -> None:
        meter.create_observable_gauge(
            semconv.HEALTH_UTILIZATION, [self._observe_utilization], "1", "Used over available, by resource."
        )
        for name, create, unit, what, quantity in (
            (semconv.HW_GPU_UTILIZATION, meter.create_observable_gauge, "1", "Share of time a kernel ran.", _busy),
            (semconv.HW_GPU_MEMORY_USAGE, meter.create_observable_up_down_counter, "By", "GPU memory used.", _used),
            (semconv.HW_GPU_MEMORY_LIMIT, meter.create_observable_up_down_counter, "By", "Size of GPU memory.", _limit),
            (semconv.HW_GPU_MEMORY_UTILIZATION, meter.create_observable_gauge, "1", "GPU memory used of all.", _filled),
        ):
            create(name, [_observing_accelerators(self, quantity)], unit, what)

    def record(self, call: Call, attributes: Mapping[str, Any], context: Context) -> None:
        """Record one ended call.

        Args:
            call: The call.
            attributes: Engine, operation and model.
            context: The context with the call's span, for exemplars.
        """
        duration_s = call.duration_s
        if call.operation == semconv.LOAD:
            if not call.failed:
                self._load.record(duration_s, _without_operation(attributes), context)
            return
        if call.error_type is not None:
            attributes = {**attributes, semconv.ERROR_TYPE: call.error_type}
        self._duration.record(duration_s, attributes, context)
        if call.batch_size is not None:
            self._batch.record(call.batch_size, _without_operation(attributes), context)
        if call.queue_ns is not None:
            self._queue.record(call.queue_ns / 1e9, {semconv.MODEL: attributes[semconv.MODEL]}, context)
        if call.usage is not None:
            self._record_usage(call, call.usage, context)

    def record_finding(self, finding: Finding) -> None:
        """Count a finding that opened."""
        attributes = {semconv.FINDING_KIND: finding.kind.value, semconv.FINDING_SEVERITY: finding.severity.value}
        if finding.model is not None:
            attributes[semconv.MODEL] = finding.model
        self._findings.add(1, attributes)

    def record_action(self, action: str, outcome: str) -> None:
        """Count a maintenance action that ended."""
        self._actions.add(1, {semconv.MAINTENANCE_ACTION: action, semconv.MAINTENANCE_OUTCOME: outcome})

    def _record_usage(self, call: Call, usage: Usage, context: Context) -> None:
        attributes = {
            semconv.GEN_AI_OPERATION: usage.operation,
            semconv.GEN_AI_PROVIDER: call.engine,
            semconv.GEN_AI_MODEL: call.model,
        }
        for token_type, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens is not None:
                self._tokens.record(tokens, {**attributes, semconv.GEN_AI_TOKEN_TYPE: token_type}, context)
        if call.error_type is not None:
            self._request.record(call.duration_s, {**attributes, semconv.ERROR_TYPE: call.error_type}, context)
            return
        self._request.record(call.duration_s, attributes, context)
        if usage.time_to_first_token_s is not None:
            self._first_token.record(usage.time_to_first_token_s, attributes, context)
        if usage.time_per_output_token_s is not None:
            self._per_token.record(usage.time_per_output_token_s, attributes, context)

    def _observe_utilization(self, _options: CallbackOptions) -> Iterator[Observation]:
        """The machine's resources once, and each model's own share of what can run at once."""
        if self.source is None:
            return
        models = self.source.health()
        shared = next(iter(models.values())).utilization if models else {}
        for resource, ratio in shared.items():
            if resource != semconv.RESOURCE_CONCURRENCY:
                yield Observation(ratio, {semconv.RESOURCE: resource})
        for model in models.values():
            ratio = model.utilization[semconv.RESOURCE_CONCURRENCY]
            yield Observation(ratio, {semconv.RESOURCE: semconv.RESOURCE_CONCURRENCY, semconv.MODEL: model.model})

    def _observe_active(self, _options: CallbackOptions) -> Iterator[Observation]:
        # The SDK asks observable instruments before it reads the others: what has ended is in them then.
        if self.source is not None:
            self.source.flush()
            for engine, model, count in self.source.active_calls():
                yield Observation(count, {semconv.ENGINE: engine, semconv.MODEL: model})


def _throughput(model: ModelHealth) -> Iterator[tuple[float, dict[str, Any]]]:
    yield model.throughput, {}


def _latency(model: ModelHealth) -> Iterator[tuple[float, dict[str, Any]]]:
    if model.window.warm_calls:
        for quantile, value in ((0.5, model.latency.p50), (0.9, model.latency.p90), (0.99, model.latency.p99)):
            yield value, {semconv.QUANTILE: quantile}


def _error_ratio(model: ModelHealth) -> Iterator[tuple[float, dict[str, Any]]]:
    if model.calls:
        yield model.error_ratio, {}


def _state(model: ModelHealth) -> Iterator[tuple[float, dict[str, Any]]]:
    yield int(model.state), {}


_HEALTH_GAUGES: Final = (
    (semconv.HEALTH_THROUGHPUT, "{call}/s", "Calls ended per second, over the window.", _throughput),
    (semconv.HEALTH_LATENCY, "s", "Quantiles of the duration of calls, over the window.", _latency),
    (semconv.HEALTH_ERROR_RATIO, "1", "Failed over all calls, over the window.", _error_ratio),
    (semconv.HEALTH_STATE, "1", "0 ok, 1 degraded, 2 critical.", _state),
)


def _observing_health(
    instruments: Instruments, read: Callable[[ModelHealth], Iterator[tuple[float, dict[str, Any]]]]
) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_options: CallbackOptions) -> Iterator[Observation]:
        if instruments.source is not None:
            for model in instruments.source.health().values():
                for value, attributes in read(model):
                    yield Observation(value, {semconv.MODEL: model.model, **attributes})

    return observe


def _busy(device: AcceleratorReading) -> float | None:
    return device.utilization_ratio


def _used(device: AcceleratorReading) -> float | None:
    return device.memory_used_bytes


def _limit(device: AcceleratorReading) -> float | None:
    return device.memory_limit_bytes


def _filled(device: AcceleratorReading) -> float | None:
    return device.memory_utilization_ratio


def _observing_accelerators(
    instruments: Instruments, quantity: Callable[[AcceleratorReading], float | None]
) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_options: CallbackOptions) -> Iterator[Observation]:
        for device in instruments.source.accelerators() if instruments.source is not None else ():
            value = quantity(device)
            if value is not None:  # what could not be read is absent, never 0
                attributes = {
                    semconv.HW_ID: device.uuid,
                    semconv.HW_NAME: device.name,
                    semconv.HW_VENDOR: device.vendor,
                }
                yield Observation(value, attributes)

    return observe


def _observing_limiters(instruments: Instruments, position: int) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_options: CallbackOptions) -> Iterator[Observation]:
        for model, *figures in instruments.source.limiters() if instruments.source is not None else ():
            yield Observation(figures[position], {semconv.MODEL: model})

    return observe


def _without_operation(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {semconv.ENGINE: attributes[semconv.ENGINE], semconv.MODEL: attributes[semconv.MODEL]}


def _observing(
    instruments: Instruments, counts: Callable[[], Mapping[str, int]]
) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(_options: CallbackOptions) -> Iterator[Observation]:
        if instruments.source is not None:
            for where, count in counts().items():
                yield Observation(count, {semconv.WHERE: where})

    return observe


_lock = Lock()
_made: weakref.WeakKeyDictionary[MeterProvider, Instruments] = weakref.WeakKeyDictionary()


def instruments_for(provider: MeterProvider | None, version: str) -> Instruments:
    """The instruments of `provider` (`None`: the global one), the same each time.

    An observable instrument cannot be taken back, and a second one of the same name would never be
    asked: so that instrumenting again after uninstrumenting still reports, they are kept.
    """
    resolved = provider if provider is not None else metrics.get_meter_provider()
    with _lock:
        if provider is None and not _is_proxy(resolved):
            _adopt_early_instruments(resolved)
        found = _made.get(resolved)
        if found is None:
            found = Instruments(metrics.get_meter(semconv.SCOPE, version, resolved, semconv.SCHEMA_URL))
            _made[resolved] = found
        return found


def _adopt_early_instruments(resolved: MeterProvider) -> None:
    """Instruments made before the SDK was set have become the SDK's own: keep them under it."""
    for early in [provider for provider in _made if _is_proxy(provider)]:
        _made.setdefault(resolved, _made.pop(early))


def _is_proxy(provider: MeterProvider) -> bool:
    return type(provider).__name__ == "_ProxyMeterProvider"


def reset_after_fork() -> None:
    """Make the lock usable in a forked child, whose parent may have held it."""
    global _lock  # noqa: PLW0603 - a lock held by a thread that does not exist here can only be replaced
    _lock = Lock()
