"""What exists while at least one engine is instrumented, built from a configuration."""

from __future__ import annotations

import importlib.metadata
import math
import sys
import weakref
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from otel_inference import guard, semconv
from otel_inference.engines import load, names
from otel_inference.loading import loading
from otel_inference.maintenance import kill_switch
from otel_inference.resources import processors
from otel_inference.telemetry import instruments
from otel_inference.telemetry.events import Events
from otel_inference.telemetry.recorder import Recorder
from otel_inference.telemetry.registry import registry
from otel_inference.telemetry.view import HealthView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_inference.alerting.sink import AlertSink
    from otel_inference.config import Config
    from otel_inference.finding import Finding
    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.maintenance.action import Action
    from otel_inference.maintenance.limiter import AdaptiveLimiter
    from otel_inference.maintenance.maintainer import Maintainer
    from otel_inference.maintenance.tuner import Tuner
    from otel_inference.resources.reading import AcceleratorReading
    from otel_inference.sampling.termination import Termination
    from otel_inference.watch import Watch

DISTRIBUTION: Final = "otel-inference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Providers:
    """Where telemetry goes; `None` is the global provider, also one that is set later."""

    tracer: TracerProvider | None = None
    meter: MeterProvider | None = None
    logger: LoggerProvider | None = None


class Installation:
    """Recorder, instruments, health and the watch over them, for one configuration.

    Args:
        config: The options in force.
        providers: Where telemetry goes.
        limiters: By model, as the user put them; they outlive an installation.
        tuners: Likewise.
    """

    def __init__(
        self,
        config: Config,
        providers: Providers,
        *,
        limiters: Mapping[str, AdaptiveLimiter],
        tuners: Mapping[str, Tuner],
    ) -> None:
        version = importlib.metadata.version(DISTRIBUTION)
        self.config = config
        self._sinks = _sinks_of(config, self._service_name)
        self._actions = _actions_of(config)
        self.providers = providers
        self.engines: set[str] = set()
        self._limiters = limiters
        self._tuners = tuners
        self._lock = Lock()
        self._watch: Watch | None = None
        self._termination: Termination | None = None
        self._stopped = False
        self._begin_counting()
        self.instruments = instruments.instruments_for(providers.meter, version)
        self._tracer = trace.get_tracer(semconv.SCOPE, version, providers.tracer, semconv.SCHEMA_URL)
        self.recorder = Recorder(
            self._tracer,
            self.instruments,
            health=registry,
            max_models=config.max_models,
            stage_spans=config.spans_detail == "stages",
            version_of=_version_of,
            on_first_call=self._begin_watch,
            each_round=self._catch_up,
            limiters=limiters,
        )
        self.view = HealthView(
            registry,
            running=self.recorder.running.begun_s,
            resources=self._utilization,
            capacity=self._capacity,
            findings=self.findings,
        )
        self.instruments.source = self
        self.attach_processors()

    def _begin_counting(self) -> None:
        registry.reset(width_s=self.config.window_s, max_models=self.config.max_models)
        registry.slow_after = self._slow_after_s
        registry.is_fed = True
        for model in (*self._limiters, *self._tuners):
            registry.names.admit(model)  # a model that is limited is never one of `other`

    def stop(self) -> None:
        """Write what has been recorded, and end every thread of ours."""
        with self._lock:  # a watch that is just being made is not to begin after this
            self._stopped = True
        if self._termination is not None:
            self._termination.remove()
        registry.is_fed = False
        self.recorder.stop()
        self.instruments.source = None
        kill_switch.arm(armed=False)
        if self._watch is not None:
            self._watch.stop()
        elif (known := _known_maintainer()) is not None:
            known.stop()  # it may have the signal without a single call
        if self._tail_kept is not None:
            self._end_tail_keep(self._tail_kept)

    def _slow_after_s(self, model: str) -> float:
        objective = self.config.latency_objective(model)
        return math.inf if objective is None else objective.threshold_s

    def end_with_a_flush(self, flush: Callable[[float], object]) -> None:
        """Have SIGTERM send what is kept first, where nobody else handles it."""
        from otel_inference.sampling.termination import FLUSH_S, Termination  # noqa: PLC0415 - for tail keep only

        self._termination = Termination(lambda: flush(FLUSH_S))
        self._termination.install()

    def flush_alerts(self, timeout_s: float) -> bool:
        """Wait until the alert sinks have been told; returns whether they were in time."""
        return self._watch is None or self._watch.flush_alerts(timeout_s)

    def install_kill_switch(self) -> None:
        """Have SIGUSR2 switch maintenance off where there is any, or as soon as there is; only the main thread can."""
        if self.config.maintenance == "off":
            return
        kill_switch.arm(armed=True)
        known = _known_maintainer()
        if self._actions or (known is not None and known.actions()):
            from otel_inference.maintenance.maintainer import maintainer  # noqa: PLC0415 - for those who use it

            maintainer.install_kill_switch()

    def watch(self) -> Watch | None:
        """The watch over the models, begun when it is first needed; `None` once this has been stopped."""
        with loading.held():
            from otel_inference.watch import Watch  # noqa: PLC0415 - what judges and acts is loaded off the first call

        with self._lock:
            if self._stopped:
                return None
            if self._watch is None:
                self._watch = Watch(
                    self.config,
                    self.view,
                    self.recorder,
                    self.instruments,
                    tracer=self._tracer,
                    events=Events(self.providers.logger, importlib.metadata.version(DISTRIBUTION)),
                    sinks=self._sinks,
                    actions=self._actions,
                    limiters=self._limiters,
                    tuners=self._tuners,
                )
            self._watch.start()
            return self._watch

    def _begin_watch(self) -> None:
        """Begin to look; on our thread, for the first call is not to wait for what is imported here."""
        self.watch()

    def _catch_up(self) -> None:
        if self._watch is not None:
            self._watch.catch_up()

    def findings(self, model: str | None = None) -> tuple[Finding, ...]:
        """What was open at the last evaluation: of `model` and of the whole process, or all."""
        return () if self._watch is None else self._watch.evaluation.findings(model)

    def _utilization(self) -> Mapping[str, float]:
        reading = None if self._watch is None else self._watch.sampler.latest()
        return {} if reading is None else reading.utilization

    def _capacity(self, model: str) -> float:
        """How many calls can run at once: what a limiter lets run, else one a core."""
        limiter = self._limiters.get(model)
        return usable_cores(model) if limiter is None else max(1.0, float(limiter.limit))

    def accelerators(self) -> Iterable[AcceleratorReading]:
        """See `telemetry.instruments.Observed`."""
        reading = None if self._watch is None else self._watch.sampler.latest()
        return () if reading is None else reading.accelerators

    def flush(self) -> None:
        """See `telemetry.instruments.Observed`."""
        with guard.guarded("flush"):
            self.attach_processors()  # an SDK may have been set since
            self.recorder.flush()

    def attach_processors(self) -> None:
        """Have spans judged and kept by their tail, where the provider is an SDK's."""
        with guard.guarded("processor"):
            provider = self._tracer_provider()
            _attach_processor(provider)
            if self.config.tail_keep and provider is not self._tail_kept:
                self._attach_tail_keep(provider)

    _tail_kept: TracerProvider | None = None
    """The provider whose spans are kept by their tail."""

    def _attach_tail_keep(self, provider: TracerProvider) -> None:
        from otel_inference.sampling.tail import attach_tail_keep  # noqa: PLC0415 - it needs the SDK

        if attach_tail_keep(provider, p99_s=self._p99_s, max_per_second=self.config.max_per_second) is not None:
            self._tail_kept = provider

    def _end_tail_keep(self, provider: TracerProvider) -> None:
        from otel_inference.sampling.tail import detach_tail_keep  # noqa: PLC0415 - it needs the SDK

        with guard.guarded("tail"):
            detach_tail_keep(provider)

    def _p99_s(self, model: str) -> float | None:
        return None if self._watch is None else self._watch.p99_s(model)

    def _tracer_provider(self) -> TracerProvider:
        tracer = self.providers.tracer
        return tracer if tracer is not None else trace.get_tracer_provider()

    def _service_name(self) -> str | None:
        """What the user calls the service, as far as the SDK knows it by now."""
        resource = getattr(self._tracer_provider(), "resource", None)
        name = None if resource is None else resource.attributes.get("service.name")
        return name if isinstance(name, str) and not name.startswith("unknown_service") else None

    def adjust(self, config: Config) -> None:
        """Take over options that can change while calls run."""
        self.config = config
        self.recorder.limit_models(config.max_models)
        self.recorder.stage_spans = config.spans_detail == "stages"
        self.attach_processors()

    def health(self) -> Mapping[str, ModelHealth]:
        """See `telemetry.instruments.Observed`."""
        return self.view.recent()

    def active_calls(self) -> Iterable[tuple[str, str, int]]:
        """See `telemetry.instruments.Observed`."""
        return self.recorder.running.counts()

    def limiters(self) -> Iterable[tuple[str, int, int, int]]:
        """See `telemetry.instruments.Observed`."""
        return [
            (model, limiter.limit, limiter.in_use, limiter.rejected) for model, limiter in list(self._limiters.items())
        ]

    def reset_after_fork(self) -> None:
        """Go on in a forked child, without the parent's threads and calls."""
        self._lock = Lock()
        self.recorder.reset_after_fork()
        if self._watch is not None:
            self._watch.reset_after_fork()


def _sinks_of(config: Config, service: Callable[[], str | None]) -> tuple[AlertSink, ...]:
    if not (config.alert_webhook or config.alertmanager or config.alert_sinks):
        return ()
    from otel_inference.alerting.configured import sinks_from  # noqa: PLC0415 - it needs an HTTP client

    return sinks_from(config.alert_webhook, config.alertmanager, config.alert_sinks, service=service)


def _actions_of(config: Config) -> tuple[Action, ...]:
    if not config.actions:
        return ()
    from otel_inference.maintenance.builtin_actions import builtin  # noqa: PLC0415 - for those who ask for it

    return tuple(builtin(config.actions))


def _known_maintainer() -> Maintainer | None:
    """The maintainer, if the program uses it; where another thread is just loading it nothing is registered yet."""
    return getattr(sys.modules.get("otel_inference.maintenance.maintainer"), "maintainer", None)


def usable_cores(_model: str) -> float:
    """How many calls can run at once where nothing else says it: one a core."""
    return float(len(processors.allowed(())))


_judged: weakref.WeakSet[Any] = weakref.WeakSet()
"""Providers that a processor of ours has been attached to; it cannot be taken off again."""


def _attach_processor(provider: TracerProvider) -> None:
    """Have the spans of other instrumentations judged, where the provider is an SDK's."""
    add = getattr(provider, "add_span_processor", None)
    if add is None or provider in _judged:
        return
    # Here and not above: it needs the SDK, which a program without one does not import.
    from otel_inference.telemetry.processor import HealthSpanProcessor  # noqa: PLC0415

    add(HealthSpanProcessor(active=lambda: registry.is_fed))
    _judged.add(provider)


def _version_of(name: str) -> str | None:
    if name not in names():
        return None
    try:
        return importlib.metadata.version(load(name).distribution)
    except importlib.metadata.PackageNotFoundError:
        # Another distribution of the same library (onnxruntime-gpu), or a build without metadata.
        version = getattr(sys.modules.get(name), "__version__", None)
        return version if isinstance(version, str) else None
