"""OpenTelemetry instrumentation for model inference inside a Python process.

Importing this package imports neither an engine nor OpenTelemetry; each public name is imported
when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_inference.config import Config
    from otel_inference.errors import ConfigError, EngineUnavailableError, OtelInferenceError
    from otel_inference.health.snapshot import HealthState, ModelHealth
    from otel_inference.naming import name_model
    from otel_inference.observing import observe
    from otel_inference.runtime import force_flush, health, instrument, uninstrument
    from otel_inference.telemetry.processor import HealthSpanProcessor

_HOME = {
    "Config": "config",
    "ConfigError": "errors",
    "EngineUnavailableError": "errors",
    "OtelInferenceError": "errors",
    "HealthSpanProcessor": "telemetry.processor",
    "HealthState": "health.snapshot",
    "ModelHealth": "health.snapshot",
    "force_flush": "runtime",
    "health": "runtime",
    "instrument": "runtime",
    "name_model": "naming",
    "observe": "observing",
    "uninstrument": "runtime",
}

__all__ = [
    "Config",
    "ConfigError",
    "EngineUnavailableError",
    "HealthSpanProcessor",
    "HealthState",
    "ModelHealth",
    "OtelInferenceError",
    "force_flush",
    "health",
    "instrument",
    "name_model",
    "observe",
    "uninstrument",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    if name == "health":
        return importlib.import_module(f"{__name__}.health")  # the package, which can be called
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
