"""The composition root: builds everything from a configuration, switches it on and off."""

from __future__ import annotations

import logging
import os
from threading import RLock, Thread, get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, overload

from opentelemetry import _logs, metrics, trace

from otel_inference import guard, semconv
from otel_inference.config import Config
from otel_inference.engines import load
from otel_inference.errors import ConfigError
from otel_inference.installation import Installation, Providers, usable_cores
from otel_inference.loading import loading
from otel_inference.maintenance.announcement import OUTLET as ANNOUNCING
from otel_inference.observing import OUTLET as OBSERVING
from otel_inference.patching import Patches
from otel_inference.protocols import outlet_of
from otel_inference.selection import chosen_by, names_of, require_installed
from otel_inference.telemetry import instruments
from otel_inference.telemetry.registry import registry
from otel_inference.telemetry.view import HealthView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_inference.finding import Finding
    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.maintenance.limiter import AdaptiveLimiter
    from otel_inference.maintenance.tuner import Tuner
    from otel_inference.protocols import Outlet
    from otel_inference.telemetry.writer import CallWriter

_log = logging.getLogger("otel_inference")

_lock = RLock()
_patches = Patches()
_limiters: dict[str, AdaptiveLimiter] = {}
"""By model; put there by the user, they are there before and after an installation."""
_tuners: dict[str, Tuner] = {}
"""Likewise."""
_idle_view = HealthView(registry, running=lambda _: [], resources=dict, capacity=usable_cores)
"""What `health()` shows while nothing is instrumented: what processors that stand alone have seen."""
_running: Installation | None = None


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
    asked = None if engines is None else names_of(engines)
    for name in asked or (() if config is None else config.engines or ()):
        require_installed(name)
    providers = Providers(tracer=tracer_provider, meter=meter_provider, logger=logger_provider)
    with _lock:
        running = _start(providers, config)
        for name in asked if asked is not None else chosen_by(running.config.engines):
            _switch_on(running, name)


def uninstrument(engines: Iterable[str] | None = None) -> None:
    """Take every layer of ours out again. Does nothing where nothing is instrumented.

    With the last engine go the tuners, which put back what they changed; limiters stay with their models.

    Args:
        engines: Names of engines; default: all.
    """
    global _running  # noqa: PLW0603 - one instrumentation per process, as there is one of each library
    chosen = None if engines is None else names_of(engines)
    with _lock:
        running = _running
        if running is None:
            return
        for name in list(running.engines) if chosen is None else chosen:
            outlet_of(name).sink = None
            _patches.revert(name)
            running.engines.discard(name)
        if not running.engines:
            OBSERVING.sink = ANNOUNCING.sink = None
            running.stop()
            _running = None
    if _running is None:
        for model in list(_tuners):
            untune(model)  # with no lock held: a knob is the host's


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


def findings(model: str | None = None) -> tuple[Finding, ...]:
    """What is wrong, as of the last evaluation; none of them is older than about a second.

    Args:
        model: Name of a model, for its findings and those of the whole process; default: all.
    """
    running = _running
    return () if running is None else running.findings(model)


def evaluate() -> tuple[Finding, ...]:
    """Look at every model and the machine now; returns what is open. For tests and notebooks.

    A serving process evaluates by itself, once a second from the first call on.
    """
    running = _running
    if running is None:
        return ()
    running.flush()
    watch = running.watch()
    return () if watch is None else watch.evaluation.now()


def limit(model: str, limiter: AdaptiveLimiter) -> None:
    """Put a limiter in front of every outermost call of `model`, whichever entry point it comes through.

    It takes the place of one that is there already; calls that run keep the place they have. Requests of a
    continuous-batching manager are not limited: the manager decides itself how many run.

    Args:
        model: Name of the model, as in `health()`.
        limiter: Decides how many calls run at once.

    Raises:
        ConfigError: If `model` is not a non-empty string or `limiter` is no limiter.
    """
    if not isinstance(model, str) or not model:
        msg = f"limit() got model={model!r}; expected the name of a model, such as 'ranker'"
        raise ConfigError(msg)
    if not all(hasattr(limiter, name) for name in ("acquire", "acquire_async", "limit", "in_use", "rejected")):
        msg = f"limit() got a {type(limiter).__name__}; expected a limiter, such as AdaptiveLimiter(deadline_s=0.5)"
        raise ConfigError(msg)
    with _lock:
        _limiters[model] = limiter
        if _running is not None:
            _running.recorder.limit(model)
    _reserve(model)


def _reserve(model: str) -> None:
    """Have the calls of `model` counted under its name, or say that they are not."""
    if registry.names.admit(model) != model:
        _log.warning(
            "%r is one more model than is kept apart (%s), so that what was asked for it has no effect",
            model,
            semconv.ENV_MAX_MODELS,
        )


def unlimit(model: str) -> None:
    """Take the limiter of `model` away; does nothing where there is none."""
    with _lock:
        _limiters.pop(model, None)
        if _running is not None:
            _running.recorder.limit(model)


def tune(model: str, tuner: Tuner) -> None:
    """Have a tuner turn its knobs by what it sees of `model`'s calls, while maintenance is in mode `act`.

    It takes the place of one that is there already, which puts back what it had changed.

    Args:
        model: Name of the model, as in `health()`.
        tuner: Owns its knobs: no other tuner may have one of them.

    Raises:
        ConfigError: If `model` is not a non-empty string or `tuner` is no tuner.
    """
    if not isinstance(model, str) or not model:
        msg = f"tune() got model={model!r}; expected the name of a model, such as 'ranker'"
        raise ConfigError(msg)
    if not callable(getattr(tuner, "observe", None)):
        msg = f"tune() got a {type(tuner).__name__}; expected a Tuner, such as Tuner([knob], slo_p95_s=0.5)"
        raise ConfigError(msg)
    with _lock:
        before = _tuners.get(model)
        _tuners[model] = tuner
    _reserve(model)
    if before is not None and before is not tuner:
        before.undo()


def untune(model: str) -> None:
    """Take the tuner of `model` away, which puts back what it had changed; does nothing where there is none."""
    with _lock:
        tuner = _tuners.pop(model, None)
    if tuner is not None:
        tuner.undo()


def allows(engine: str) -> bool:
    """Whether the options leave `engine` in: those in force, else the environment's."""
    config = _running.config if _running is not None else Config.from_env(os.environ, warn=False)
    return engine in chosen_by(config.engines)


def adjust(options: Mapping[str, Any]) -> None:
    """Change options of what runs already; the launcher hands them over engine by engine.

    Raises:
        ConfigError: If an option is unknown or its value means nothing.
    """
    with _lock:
        if _running is None or not options:
            return
        _running.adjust(_running.config.updated(options))
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
    chosen = Providers(tracer=None, meter=None, logger=None) if _running is None else _running.providers
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
    running = _running

    def run() -> None:
        deadline_s = monotonic() + timeout_s
        if running is not None:  # first, for it writes events; a sink that is down takes all the time that it is given
            with guard.guarded("force_flush"):
                results.append(running.flush_alerts(timeout_s / 2))
        for flush in flushes:
            with guard.guarded("force_flush"):
                results.append(flush(max(0, int((deadline_s - monotonic()) * 1000))) is not False)

    thread = Thread(target=run, name="otel-inference-flush", daemon=True)
    thread.start()
    thread.join(timeout_s)
    expected = len(flushes) + (running is not None)
    return not thread.is_alive() and len(results) == expected and all(results)


def _start(providers: Providers, config: Config | None) -> Installation:
    global _running  # noqa: PLW0603 - one instrumentation per process, as there is one of each library
    if _running is None:
        config = config if config is not None else _config_of_environment()
        guard.set_strict(strict=config.strict)
        _running = Installation(config, providers, limiters=_limiters, tuners=_tuners)
        OBSERVING.sink = ANNOUNCING.sink = _running.recorder
        _running.install_kill_switch()
        if config.tail_keep:
            _running.end_with_a_flush(force_flush)
        return _running
    given = [provider for provider in (providers.tracer, providers.meter, providers.logger) if provider is not None]
    if (given and providers != _running.providers) or (config is not None and config != _running.config):
        _log.warning(
            "already instrumented: the providers and options of the first instrument() stay in force; "
            "call uninstrument() first to change them"
        )
    return _running


def _config_of_environment() -> Config:
    """The environment's options; names of actions that mean nothing are a warning there, as all else is."""
    config = Config.from_env(os.environ)
    if config.actions:
        from otel_inference.maintenance.builtin_actions import builtin  # noqa: PLC0415 - for those who ask for it

        try:
            builtin(config.actions)
        except ConfigError as error:
            _log.warning("%s: %s; no built-in action is enabled", semconv.ENV_ACTIONS, error)
            return config.updated({"actions": ()})
    return config


def _switch_on(running: Installation, name: str) -> None:
    engine = load(name)
    outlet = outlet_of(name)
    _set_options(outlet, running.config)
    outlet.sink = running.recorder
    running.engines.add(name)
    _patches.apply(name, engine.targets(outlet))


def _set_options(outlet: Outlet, config: Config) -> None:
    outlet.training = config.training
    outlet.capture_content = config.capture_content


_held: dict[int, CallWriter] = {}
"""The writer held for the fork under way, by the thread that forks: only that one can let it go on."""


def _before_fork() -> None:
    loading.hold_for_fork()
    running = _running
    if running is not None:
        running.recorder.writer.hold_for_fork()
        _held[get_ident()] = running.recorder.writer


def _after_fork_in_parent() -> None:
    writer = _held.pop(get_ident(), None)
    if writer is not None:
        writer.go_on_after_fork()
    loading.go_on_after_fork()


def _after_fork_in_child() -> None:
    """Replace locks that a thread of the parent may have held, and forget the parent's calls."""
    global _lock  # noqa: PLW0603 - see the docstring
    _lock = RLock()
    _held.clear()
    loading.reset_after_fork()
    guard.reset_after_fork()
    instruments.reset_after_fork()
    _patches.reset_after_fork()
    for tuner in _tuners.values():
        tuner.reset_after_fork()
    if _running is not None:
        _running.reset_after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
