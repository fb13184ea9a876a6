"""Which engines are meant: by a list of names, by the options, or by saying nothing."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

from otel_inference import semconv
from otel_inference.engines import load, names
from otel_inference.errors import ConfigError, EngineUnavailableError
from otel_inference.nearest import hint

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger("otel_inference")
_warned_of: set[str] = set()


def names_of(engines: Iterable[str]) -> tuple[str, ...]:
    """The names in a list given in code.

    Raises:
        ConfigError: If it is a string, or names an engine that nobody knows.
    """
    if isinstance(engines, str):
        msg = f"engines is the string {engines!r}; expected a list of names, such as [{engines!r}]"
        raise ConfigError(msg)
    chosen = tuple(engines)
    for name in chosen:
        load(name)  # refuses what is unknown
    return chosen


def chosen_by(option: tuple[str, ...] | None) -> tuple[str, ...]:
    """The engines that an option leaves in: of those named the known ones, all where it says nothing."""
    if option is None:
        return names()
    _warn_of_unknown(option)
    return tuple(name for name in option if name in names())


def require_installed(name: str) -> None:
    """Refuse an engine asked for by name whose library is not there.

    Raises:
        ConfigError: If nobody knows it.
        EngineUnavailableError: If it is not installed.
    """
    engine = load(name)
    if importlib.util.find_spec(engine.name) is None:
        msg = f"engine {name!r} was asked for, but {engine.distribution} is not installed; pip install {engine.distribution}"
        raise EngineUnavailableError(msg)


def _warn_of_unknown(chosen: tuple[str, ...]) -> None:
    """Say once that the environment names engines that nobody knows."""
    unknown = [name for name in chosen if name not in names() and name not in _warned_of]
    if unknown:
        _warned_of.update(unknown)
        _log.warning(
            "%s names the engine %r%s, which is unknown, so that it is not measured; known are %s",
            semconv.ENV_ENGINES,
            unknown[0],
            hint(unknown[0], names()),
            ", ".join(names()),
        )
