"""All options, where they come from and what a wrong one means.

`Config.from_env` is the only reader of the environment. A bad value there is one warning and the
default, because a typo must not stop a server; the same value in code is a `ConfigError`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Final

from otel_inference import options, semconv
from otel_inference.errors import ConfigError
from otel_inference.nearest import hint
from otel_inference.objective import ErrorObjective, LatencyObjective, parse_error_objective, parse_latency_objective

_log = logging.getLogger("otel_inference")

DETAILS: Final = ("calls", "stages")
MODES: Final = ("act", "observe", "off")
_HIDDEN: Final = "(not shown)"


def _option(env: str, kind: options.Kind, default: Any) -> Any:
    return field(default=default, repr=not kind.secret, metadata={"env": env, "kind": kind})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the package does, beyond what its arguments say.

    Raises:
        ConfigError: If a value has the wrong type or range.
    """

    engines: tuple[str, ...] | None = _option(
        semconv.ENV_ENGINES, options.names_of("engine names", "torch,onnxruntime"), None
    )
    """Engines to instrument; `None` for all that are known."""
    max_models: int = _option(semconv.ENV_MAX_MODELS, options.COUNT, 100)
    """How many different model names are kept apart; later ones are counted as `other`."""
    window_s: float = _option(
        semconv.ENV_WINDOW, options.number(1.0, 3600.0, "a number of seconds from 1 to 3600"), 60.0
    )
    """Seconds of calls that a model's health looks back on."""
    spans_detail: str = _option(semconv.ENV_SPANS_DETAIL, options.choice(*DETAILS), "calls")
    """`calls` for one span a call, `stages` for a child span for each stage too."""
    capture_content: bool = _option(semconv.ENV_CAPTURE_CONTENT, options.FLAG, False)
    """Whether prompts and outputs of text pipelines are written to spans."""
    resources: bool = _option(semconv.ENV_RESOURCES, options.FLAG, True)
    """Whether CPU, memory and accelerators are read once a second, from the first call on."""
    slo_latency: str | Mapping[str, str] | None = _option(semconv.ENV_SLO_LATENCY, options.LATENCY_OBJECTIVE, None)
    """Objective for the duration of successful calls, such as `0.99<0.5s`; in code also one by model name."""
    slo_errors: str | Mapping[str, str] | None = _option(semconv.ENV_SLO_ERRORS, options.ERROR_OBJECTIVE, None)
    """Objective for the share of calls that succeeds, such as `0.999`; in code also one by model name."""
    alert_webhook: str | None = _option(semconv.ENV_ALERT_WEBHOOK, options.URL, None)
    """Where findings are posted as JSON when they open and close."""
    alertmanager: str | None = _option(semconv.ENV_ALERTMANAGER, options.URL, None)
    """A Prometheus Alertmanager that open findings are reported to."""
    alert_sinks: tuple[Any, ...] = ()
    """Further takers of findings, in code only: callables and `AlertSink`s."""
    sampling_ratio: float = _option(semconv.ENV_SAMPLING_RATIO, options.number(0.0, 1.0, "a number from 0 to 1"), 1.0)
    """Base ratio of the sampler `inference_health`, where `OTEL_TRACES_SAMPLER_ARG` does not say it."""
    boost_per_second: float = _option(
        semconv.ENV_BOOST_PER_SECOND, options.number(0.0, 1e6, "a number of traces a second, 0 or more"), 10.0
    )
    """How many traces a second that sampler keeps beyond its ratio while models are unwell, cold or rare."""
    max_per_second: float = _option(
        semconv.ENV_MAX_PER_SECOND, options.number(1e-3, 1e6, "a number of traces a second above 0"), 100.0
    )
    """How many traces a second that sampler keeps at most, in all."""
    tail_keep: bool = _option(semconv.ENV_TAIL_KEEP, options.FLAG, False)
    """Whether failed and slow calls are exported although the sampler said no."""
    maintenance: str = _option(semconv.ENV_MAINTENANCE, options.choice(*MODES), "act")
    """`act` to run what is registered or enabled, `observe` to say what would be run, `off`."""
    actions: tuple[str, ...] = _option(
        semconv.ENV_ACTIONS, options.names_of("names of built-in actions", "collect_garbage,trim_heap"), ()
    )
    """Built-in maintenance actions that are enabled."""
    journal: str | None = _option(semconv.ENV_JOURNAL, options.PATH, None)
    """A file to which each maintenance action is appended as a line of JSON."""
    training: bool = _option(semconv.ENV_TRAINING, options.FLAG, False)
    """Whether calls of torch modules in training mode are counted too."""
    strict: bool = _option(semconv.ENV_STRICT, options.FLAG, False)
    """Raise the package's own failures instead of swallowing them: for tests of the package."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for option in fields(self):
            kind = option.metadata.get("kind")
            value = getattr(self, option.name)
            # A default need not be a value that can be given; and 0 equals False, but is a number.
            is_default = value == option.default and type(value) is type(option.default)
            if kind is not None and not is_default and not kind.valid(value):
                shown = _HIDDEN if kind.secret else repr(value)
                msg = f"{option.name} is {shown}; expected {kind.expected}"
                raise ConfigError(msg)
            if isinstance(value, list):
                object.__setattr__(self, option.name, tuple(value))

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, warn: bool = True) -> Config:
        """Read the `OTEL_INFERENCE_*` variables; a bad or unknown one is a warning.

        Args:
            environ: Usually `os.environ`.
            warn: Whether to say so.
        """
        level = logging.WARNING if warn else logging.DEBUG
        values: dict[str, Any] = {}
        by_env = environment_options()
        for variable, text in environ.items():
            if not variable.startswith(semconv.ENV_PREFIX):
                continue
            option = by_env.get(variable)
            if option is None:
                _log.log(
                    level,
                    "unknown environment variable %s%s; it has no effect",
                    variable,
                    hint(variable, by_env),
                )
            elif text.strip():
                kind = option.metadata["kind"]
                try:
                    values[option.name] = kind.read(text.strip())
                except ValueError as expected:
                    shown = _HIDDEN if kind.secret else repr(text)
                    _log.log(level, "%s=%s is not %s; using %r", variable, shown, expected, option.default)
        return cls(**values)

    def latency_objective(self, model: str) -> LatencyObjective | None:
        """The objective for how long calls of `model` take, if there is one."""
        text = _of_model(self.slo_latency, model)
        return None if text is None else parse_latency_objective(text)

    def error_objective(self, model: str) -> ErrorObjective | None:
        """The objective for how many calls of `model` succeed, if there is one."""
        text = _of_model(self.slo_errors, model)
        return None if text is None else parse_error_objective(text)

    def updated(self, changes: Mapping[str, Any]) -> Config:
        """This configuration with `changes` in place of its own values.

        Raises:
            ConfigError: If an option is unknown or its value means nothing.
        """
        known = {option.name for option in fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            msg = f"unknown option {unknown[0]!r}{hint(unknown[0], known)}; known are {', '.join(sorted(known))}"
            raise ConfigError(msg)
        return replace(self, **changes)


def environment_options() -> dict[str, Field[Any]]:
    """The options that have an environment variable, by its name."""
    return {option.metadata["env"]: option for option in fields(Config) if "env" in option.metadata}


def _of_model(value: str | Mapping[str, str] | None, model: str) -> str | None:
    return value.get(model) if isinstance(value, Mapping) else value
