"""The engines by name. Nothing of an engine is imported until it is loaded."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from otel_inference.errors import ConfigError

if TYPE_CHECKING:
    from otel_inference.engines._engine import Engine

_MODULES: Final[dict[str, str]] = {
    "torch": "otel_inference.engines.torch",
    "transformers": "otel_inference.engines.transformers",
    "onnxruntime": "otel_inference.engines.onnxruntime",
    "sentence_transformers": "otel_inference.engines.sentence_transformers",
    "llama_cpp": "otel_inference.engines.llama_cpp",
}


def names() -> tuple[str, ...]:
    """The names of all known engines."""
    return tuple(_MODULES)


def register(name: str, module: str) -> None:
    """Make the engine that `module` defines as `ENGINE` known as `name`."""
    _MODULES[name] = module


def load(name: str) -> Engine:
    """The engine called `name`.

    Raises:
        ConfigError: If no engine has that name.
    """
    if name not in _MODULES:
        msg = f"unknown engine {name!r}; known are {', '.join(sorted(_MODULES))}"
        raise ConfigError(msg)
    engine: Engine = importlib.import_module(_MODULES[name]).ENGINE
    return engine
