"""OpenTelemetry instrumentation for model inference inside a Python process.

Importing this package imports neither an engine nor OpenTelemetry; each public name is imported
when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_inference.config import Config
    from otel_inference.errors import (
        ConfigError,
        EngineUnavailableError,
        KnobError,
        OtelInferenceError,
        OverloadedError,
    )
    from otel_inference.finding import Finding, FindingChange, FindingKind, Severity
    from otel_inference.health.snapshot import HealthState, ModelHealth
    from otel_inference.maintenance.knob import Knob
    from otel_inference.maintenance.limiter import AdaptiveLimiter
    from otel_inference.maintenance.maintainer import journal, on
    from otel_inference.maintenance.tuner import Tuner
    from otel_inference.naming import name_model
    from otel_inference.observing import observe
    from otel_inference.runtime import (
        evaluate,
        findings,
        force_flush,
        health,
        instrument,
        limit,
        tune,
        uninstrument,
        unlimit,
        untune,
    )
    from otel_inference.sampling.head import HealthSampler
    from otel_inference.telemetry.processor import HealthSpanProcessor

_HOME = {
    "AdaptiveLimiter": "maintenance.limiter",
    "Config": "config",
    "ConfigError": "errors",
    "EngineUnavailableError": "errors",
    "Finding": "finding",
    "FindingChange": "finding",
    "FindingKind": "finding",
    "HealthSampler": "sampling.head",
    "HealthSpanProcessor": "telemetry.processor",
    "HealthState": "health.snapshot",
    "Knob": "maintenance.knob",
    "KnobError": "errors",
    "ModelHealth": "health.snapshot",
    "OtelInferenceError": "errors",
    "OverloadedError": "errors",
    "Severity": "finding",
    "Tuner": "maintenance.tuner",
    "evaluate": "runtime",
    "findings": "runtime",
    "force_flush": "runtime",
    "health": "runtime",
    "instrument": "runtime",
    "journal": "maintenance.maintainer",
    "limit": "runtime",
    "name_model": "naming",
    "observe": "observing",
    "on": "maintenance.maintainer",
    "tune": "runtime",
    "uninstrument": "runtime",
    "unlimit": "runtime",
    "untune": "runtime",
}

__all__ = [
    "AdaptiveLimiter",
    "Config",
    "ConfigError",
    "EngineUnavailableError",
    "Finding",
    "FindingChange",
    "FindingKind",
    "HealthSampler",
    "HealthSpanProcessor",
    "HealthState",
    "Knob",
    "KnobError",
    "ModelHealth",
    "OtelInferenceError",
    "OverloadedError",
    "Severity",
    "Tuner",
    "evaluate",
    "findings",
    "force_flush",
    "health",
    "instrument",
    "journal",
    "limit",
    "name_model",
    "observe",
    "on",
    "tune",
    "uninstrument",
    "unlimit",
    "untune",
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
