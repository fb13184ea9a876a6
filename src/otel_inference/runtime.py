"""The composition root: builds everything from a configuration, switches it on and off."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import sys
import weakref
from dataclasses import dataclass
from threading import RLock, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, overload

from opentelemetry import _logs, metrics, trace

from otel_inference import guard, semconv
from otel_inference.config import Config
from otel_inference.engines import load, names
from otel_inference.errors import ConfigError, EngineUnavailableError
from otel_inference.observing import OUTLET as OBSERVING
from otel_inference.patching import Patches
from otel_inference.protocols import outlet_of
from otel_inference.telemetry import instruments
from otel_inference.telemetry.recorder import Recorder
from otel_inference.telemetry.registry import registry
from otel_inference.telemetry.view import HealthView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.protocols import Outlet
    from otel_inference.resources.reading import AcceleratorReading
    from otel_inference.resources.sampler import ResourceSampler
    from otel_inference.telemetry.writer import CallWriter

_log = logging.getLogger("otel_inference")

_DISTRIBUTION: Final = "otel-inference"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Providers:
    """Where telemetry goes; `None` is the global provider, also one that is set later."""

    tracer: TracerProvider | None
    meter: MeterProvider | None
    logger: LoggerProvider | None


class _Running:
    """What exists while at least one engine is instrumented."""

    def __init__(self, config: Config, providers: _Providers) -> None:
        version = importlib.metadata.version(_DISTRIBUTION)
        self.config = config
        self.providers = providers
        self.engines: set[str] = set()
        self.sampler: ResourceSampler | None = None
        self._stopped = False
        registry.reset(width_s=config.window_s, max_models=config.max_models)
        self.instruments = instruments.instruments_for(providers.meter, version)
        self.recorder = Recorder(
            trace.get_tracer(semconv.SCOPE, version, providers.tracer, semconv.SCHEMA_URL),
            self.instruments,
            health=registry,
            max_models=config.max_models,
            stage_spans=config.spans_detail == "stages",
            version_of=_version_of,
            on_first_call=self._watch_resources,
        )
        self.view = HealthView(
            registry, running=self.recorder.running, resources=self._utilization, capacity=_usable_cores
        )
        self.instruments.source = self
        self._attach_processor()

    def stop(self) -> None:
        """Write what has been recorded, and end every thread of ours."""
        self._stopped = True
        self.recorder.stop()
        self.instruments.source = None
        if self.sampler is not None:
            self.sampler.stop()

    def _watch_resources(self) -> None:
        """Begin to read the machine; on our thread, for the first call is not to wait for what is imported here."""
        if not self.config.resources:
            return
        from otel_inference.resources.sampler import ResourceSampler  # noqa: PLC0415
        from otel_inference.resources.standard import standard_probes  # noqa: PLC0415

        if self.sampler is None:
            self.sampler = ResourceSampler(standard_probes(os.environ))
        self.sampler.start()
        if self._stopped:
            self.sampler.stop()

    def _utilization(self) -> Mapping[str, float]:
        reading = None if self.sampler is None else self.sampler.latest()
        return {} if reading is None else reading.utilization

    def accelerators(self) -> Iterable[AcceleratorReading]:
        """See `telemetry.instruments.Observed`."""
        reading = None if self.sampler is None else self.sampler.latest()
        return () if reading is None else reading.accelerators

    def flush(self) -> None:
        """See `telemetry.instruments.Observed`."""
        with guard.guarded("flush"):
            self._attach_processor()  # an SDK may have been set since
            self.recorder.flush()

    def _attach_processor(self) -> None:
        tracer = self.providers.tracer
        with guard.guarded("processor"):
            _attach_processor(tracer if tracer is not None else trace.get_tracer_provider())

    def health(self) -> Mapping[str, ModelHealth]:
        """See `telemetry.instruments.Observed`."""
        return self.view.recent()

    def active_calls(self) -> Iterable[tuple[str, str, int]]:
        """See `telemetry.instruments.Observed`."""
        return self.recorder.active_calls()


def _usable_cores() -> float:
    """How many calls can run at once where nothing else says it: one a core."""
    return float(len(os.sched_getaffinity(0)))


_idle_view = HealthView(registry, running=lambda _: [], resources=dict, capacity=_usable_cores)
"""What `health()` shows while nothing is instrumented: what processors that stand alone have seen."""
_judged: weakref.WeakSet[Any] = weakref.WeakSet()
"""Providers that a processor of ours has been attached to; it cannot be taken off again."""


def _attach_processor(provider: TracerProvider) -> None:
    """Have the spans of other instrumentations judged, where the provider is an SDK's."""
    add = getattr(provider, "add_span_processor", None)
    if add is None or provider in _judged:
        return
    # Here and not above: it needs the SDK, which a program without one does not import.
    from otel_inference.telemetry.processor import HealthSpanProcessor  # noqa: PLC0415

    add(HealthSpanProcessor(active=lambda: _running is not None))
    _judged.add(provider)


_lock = RLock()
_patches = Patches()
_running: _Running | None = None


def instrument(
    engines: Iterable[str] | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    config: Config | None = None,
) -> None:
    """Measure every call of the engines from now on. Calling it again adds engines, or does nothing.

    Nothing is imported: an engine's library is patched when the program imports it, at once if it
    already has.

    Args:
        engines: Names of engines, such as `["torch"]`; default: `config.engines`, else all known ones.
        tracer_provider: Where spans go; default: the global provider, also one that is set later.
        meter_provider: Where metrics go; default: the global provider, also one that is set later.
        logger_provider: Where events go; default: the global provider, also one that is set later.
        config: Options; default: the environment's (`Config.from_env`).

    Raises:
        ConfigError: If an engine is unknown or an option means nothing.
        EngineUnavailableError: If an engine asked for by name is not installed.
    """
    asked = None if engines is None else _names_of(engines)
    for name in asked or (() if config is None else config.engines or ()):
        _require_installed(name)
    providers = _Providers(tracer=tracer_provider, meter=meter_provider, logger=logger_provider)
    with _lock:
        running = _start(providers, config)
        for name in asked if asked is not None else _default_engines(running.config):
            _switch_on(running, name)


def uninstrument(engines: Iterable[str] | None = None) -> None:
    """Take every layer of ours out again. Does nothing where nothing is instrumented.

    Args:
        engines: Names of engines; default: all.
    """
    global _running  # noqa: PLW0603 - one instrumentation per process, as there is one of each library
    chosen = None if engines is None else _names_of(engines)
    with _lock:
        running = _running
        if running is None:
            return
        for name in list(running.engines) if chosen is None else chosen:
            outlet_of(name).sink = None
            _patches.revert(name)
            running.engines.discard(name)
        if not running.engines:
            OBSERVING.sink = None
            running.stop()
            _running = None


@overload
def health() -> dict[str, ModelHealth]: ...
@overload
def health(model: str) -> ModelHealth | None: ...
def health(model: str | None = None) -> dict[str, ModelHealth] | ModelHealth | None:
    """The health of every model over the window, or of one.

    Args:
        model: Name of a model; default: all.

    Returns:
        Health by name; for one model its health, or `None` if no call of it has been seen.
    """
    running = _running
    if running is not None:
        running.flush()
    found = (_idle_view if running is None else running.view).health()
    return found if model is None else found.get(model)


def allows(engine: str) -> bool:
    """Whether the options leave `engine` in: those in force, else the environment's."""
    chosen = (_running.config if _running is not None else Config.from_env(os.environ, warn=False)).engines
    if chosen is None:
        return True
    _warn_of_unknown(chosen)
    return engine in chosen


def _warn_of_unknown(chosen: tuple[str, ...]) -> None:
    """Say once that the environment names engines that nobody knows."""
    unknown = [name for name in chosen if name not in names() and name not in _warned_of]
    if unknown:
        _warned_of.update(unknown)
        _log.warning(
            "%s names the engine %r, which is unknown; known are %s",
            semconv.ENV_ENGINES,
            unknown[0],
            ", ".join(names()),
        )


_warned_of: set[str] = set()


def adjust(options: Mapping[str, Any]) -> None:
    """Change options of what runs already; the launcher hands them over engine by engine.

    Raises:
        ConfigError: If an option is unknown or its value means nothing.
    """
    with _lock:
        if _running is None or not options:
            return
        _running.config = _running.config.updated(options)
        _running.recorder.limit_models(_running.config.max_models)
        _running.recorder.stage_spans = _running.config.spans_detail == "stages"
        for name in _running.engines:
            _set_options(outlet_of(name), _running.config)


def flush() -> None:
    """Write what has ended to the SDK, without asking it to send."""
    if _running is not None:
        _running.flush()


def force_flush(timeout_s: float = 10.0) -> bool:
    """Send what has been recorded so far, and wait for it no longer than `timeout_s`.

    Args:
        timeout_s: Seconds to wait in all. The SDK's own time limits are not kept by all of its
            processors, hence the flush runs on a thread of its own.

    Returns:
        Whether everything was sent in time.
    """
    chosen = _Providers(tracer=None, meter=None, logger=None) if _running is None else _running.providers
    if _running is not None:
        _running.flush()
    flushes = [
        flush
        for provider in (
            chosen.tracer if chosen.tracer is not None else trace.get_tracer_provider(),
            chosen.meter if chosen.meter is not None else metrics.get_meter_provider(),
            chosen.logger if chosen.logger is not None else _logs.get_logger_provider(),
        )
        if callable(flush := getattr(provider, "force_flush", None))
    ]
    results: list[bool] = []

    def run() -> None:
        deadline_s = monotonic() + timeout_s
        for flush in flushes:
            with guard.guarded("force_flush"):
                results.append(flush(max(0, int((deadline_s - monotonic()) * 1000))) is not False)

    thread = Thread(target=run, name="otel-inference-flush", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return not thread.is_alive() and len(results) == len(flushes) and all(results)


def _names_of(engines: Iterable[str]) -> tuple[str, ...]:
    if isinstance(engines, str):
        msg = f"engines is the string {engines!r}; expected a list of names, such as [{engines!r}]"
        raise ConfigError(msg)
    chosen = tuple(engines)
    for name in chosen:
        load(name)  # refuses what is unknown
    return chosen


def _start(providers: _Providers, config: Config | None) -> _Running:
    global _running  # noqa: PLW0603 - one instrumentation per process, as there is one of each library
    if _running is None:
        config = config if config is not None else Config.from_env(os.environ)
        guard.set_strict(strict=config.strict)
        _running = _Running(config, providers)
        OBSERVING.sink = _running.recorder
        return _running
    given = [provider for provider in (providers.tracer, providers.meter, providers.logger) if provider is not None]
    if (given and providers != _running.providers) or (config is not None and config != _running.config):
        _log.warning(
            "already instrumented: the providers and options of the first instrument() stay in force; "
            "call uninstrument() first to change them"
        )
    return _running


def _switch_on(running: _Running, name: str) -> None:
    engine = load(name)
    outlet = outlet_of(name)
    _set_options(outlet, running.config)
    outlet.sink = running.recorder
    running.engines.add(name)
    _patches.apply(name, engine.targets(outlet))


def _set_options(outlet: Outlet, config: Config) -> None:
    outlet.training = config.training
    outlet.capture_content = config.capture_content


def _default_engines(config: Config) -> tuple[str, ...]:
    if config.engines is None:
        return names()
    _warn_of_unknown(config.engines)
    return tuple(name for name in config.engines if name in names())


def _require_installed(name: str) -> None:
    engine = load(name)
    if importlib.util.find_spec(engine.name) is None:
        msg = f"engine {name!r} was asked for, but {engine.distribution} is not installed; pip install {engine.distribution}"
        raise EngineUnavailableError(msg)


def _version_of(name: str) -> str | None:
    if name not in names():
        return None
    try:
        return importlib.metadata.version(load(name).distribution)
    except importlib.metadata.PackageNotFoundError:
        # Another distribution of the same library (onnxruntime-gpu), or a build without metadata.
        version = getattr(sys.modules.get(name), "__version__", None)
        return version if isinstance(version, str) else None


_held: list[CallWriter] = []
"""The writer held for the fork under way."""


def _before_fork() -> None:
    running = _running
    if running is not None:
        running.recorder.writer.hold_for_fork()
        _held.append(running.recorder.writer)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().go_on_after_fork()


def _after_fork_in_child() -> None:
    """Replace locks that a thread of the parent may have held, and forget the parent's calls."""
    global _lock  # noqa: PLW0603 - see the docstring
    _lock = RLock()
    _held.clear()
    guard.reset_after_fork()
    instruments.reset_after_fork()
    _patches.reset_after_fork()
    registry.reset_after_fork()
    if _running is not None:
        _running.recorder.reset_after_fork()
        if _running.sampler is not None:
            _running.sampler.reset_after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
