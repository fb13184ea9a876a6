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
    from otel_inference.naming import name_model
    from otel_inference.observing import observe
    from otel_inference.runtime import force_flush, instrument, uninstrument

_HOME = {
    "Config": "config",
    "ConfigError": "errors",
    "EngineUnavailableError": "errors",
    "OtelInferenceError": "errors",
    "force_flush": "runtime",
    "instrument": "runtime",
    "name_model": "naming",
    "observe": "observing",
    "uninstrument": "runtime",
}

__all__ = [
    "Config",
    "ConfigError",
    "EngineUnavailableError",
    "OtelInferenceError",
    "force_flush",
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
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
