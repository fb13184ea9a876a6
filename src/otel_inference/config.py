"""All options, where they come from and what a wrong one means.

`Config.from_env` is the only reader of the environment. A bad value there is one warning and the
default, because a typo must not stop a server; the same value in code is a `ConfigError`.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from otel_inference import semconv
from otel_inference.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = logging.getLogger("otel_inference")

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        msg = "true or false"
        raise ValueError(msg)
    return lowered in _TRUE


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        msg = "a whole number of at least 1"
        raise ValueError(msg)
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not MIN_WINDOW_S <= number <= MAX_WINDOW_S:
        msg = f"a number of seconds from {MIN_WINDOW_S:.0f} to {MAX_WINDOW_S:.0f}"
        raise ValueError(msg)
    return number


MIN_WINDOW_S, MAX_WINDOW_S = 1.0, 3600.0


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        msg = "engine names separated by commas, such as torch,onnxruntime"
        raise ValueError(msg)
    return names


def _detail(text: str) -> str:
    if text not in DETAILS:
        msg = "calls or stages"
        raise ValueError(msg)
    return text


DETAILS = ("calls", "stages")


def _option(env: str, parse: Callable[[str], Any], default: Any) -> Any:
    return field(default=default, metadata={"env": env, "parse": parse})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the package does, beyond what its arguments say.

    Raises:
        ConfigError: If a value has the wrong type or range.
    """

    engines: tuple[str, ...] | None = _option(semconv.ENV_ENGINES, _names, None)
    """Engines to instrument; `None` for all that are known."""
    max_models: int = _option(semconv.ENV_MAX_MODELS, _positive, 100)
    """How many different model names are kept apart; later ones are counted as `other`."""
    spans_detail: str = _option(semconv.ENV_SPANS_DETAIL, _detail, "calls")
    """`calls` for one span a call, `stages` for a child span for each stage too."""
    capture_content: bool = _option(semconv.ENV_CAPTURE_CONTENT, _boolean, False)
    """Whether prompts and outputs of text pipelines are written to spans."""
    window_s: float = _option(semconv.ENV_WINDOW, _seconds, 60.0)
    """Seconds of calls that a model's health looks back on."""
    resources: bool = _option(semconv.ENV_RESOURCES, _boolean, True)
    """Whether CPU, memory and accelerators are read once a second, from the first call on."""
    training: bool = _option(semconv.ENV_TRAINING, _boolean, False)
    """Whether calls of torch modules in training mode are counted too."""
    strict: bool = _option(semconv.ENV_STRICT, _boolean, False)
    """Raise the package's own failures instead of swallowing them: for tests of the package."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if isinstance(self.max_models, bool) or not isinstance(self.max_models, int) or self.max_models < 1:
            msg = f"max_models is {self.max_models!r}; expected a whole number of at least 1, such as 100"
            raise ConfigError(msg)
        if (
            isinstance(self.window_s, bool)
            or not isinstance(self.window_s, (int, float))
            or not (MIN_WINDOW_S <= self.window_s <= MAX_WINDOW_S)
        ):
            msg = f"window_s is {self.window_s!r}; expected from {MIN_WINDOW_S:.0f} to {MAX_WINDOW_S:.0f} seconds"
            raise ConfigError(msg)
        if self.spans_detail not in DETAILS:
            msg = f"spans_detail is {self.spans_detail!r}; expected 'calls' or 'stages'"
            raise ConfigError(msg)
        for name in ("capture_content", "resources", "training", "strict"):
            if not isinstance(getattr(self, name), bool):
                msg = f"{name} is {getattr(self, name)!r}; expected True or False"
                raise ConfigError(msg)
        if isinstance(self.engines, str):
            msg = f"engines is the string {self.engines!r}; expected a list of names, such as [{self.engines!r}]"
            raise ConfigError(msg)
        if self.engines is not None:
            object.__setattr__(self, "engines", tuple(self.engines))

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, warn: bool = True) -> Config:
        """Read the `OTEL_INFERENCE_*` variables; a bad or unknown one is a warning.

        Args:
            environ: Usually `os.environ`.
            warn: Whether to say so.
        """
        level = logging.WARNING if warn else logging.DEBUG
        values: dict[str, Any] = {}
        by_env = {option.metadata["env"]: option for option in fields(cls)}
        for variable, text in environ.items():
            if not variable.startswith(semconv.ENV_PREFIX):
                continue
            option = by_env.get(variable)
            if option is None:
                _log.log(
                    level,
                    "unknown environment variable %s%s; it has no effect",
                    variable,
                    _nearest(variable, by_env),
                )
            elif text.strip():
                try:
                    values[option.name] = option.metadata["parse"](text.strip())
                except ValueError as expected:
                    _log.log(level, "%s=%r is not %s; using %r", variable, text, expected, option.default)
        return cls(**values)

    def updated(self, options: Mapping[str, Any]) -> Config:
        """This configuration with `options` in place of its own values.

        Raises:
            ConfigError: If an option is unknown or its value means nothing.
        """
        known = {option.name for option in fields(self)}
        unknown = sorted(set(options) - known)
        if unknown:
            msg = f"unknown option {unknown[0]!r}{_nearest(unknown[0], known)}; known are {', '.join(sorted(known))}"
            raise ConfigError(msg)
        return replace(self, **options)


def _nearest(name: str, known: Any) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""
