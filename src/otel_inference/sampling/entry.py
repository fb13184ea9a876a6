"""What OpenTelemetry's configuration calls to make a sampler by the name `inference_health`."""

from __future__ import annotations

import logging
import os
from typing import Final

from otel_inference.config import Config
from otel_inference.sampling.head import HealthSampler

_log = logging.getLogger("otel_inference")

_VARIABLE: Final = "OTEL_TRACES_SAMPLER_ARG"


def health_sampler(arg: str | None = None) -> HealthSampler:
    """The sampler that follows the base ratio `arg`, with the limits of the environment's options.

    `OTEL_TRACES_SAMPLER=inference_health` calls it with `OTEL_TRACES_SAMPLER_ARG`. A declarative
    configuration file, which has no options for such a sampler and bypasses that variable, calls it
    with nothing: the base ratio is then `OTEL_INFERENCE_SAMPLING_RATIO`, which also stands in for a
    missing argument. `OTEL_INFERENCE_BOOST_PER_SECOND` and `OTEL_INFERENCE_MAX_PER_SECOND` are the
    limits.

    Args:
        arg: A number from 0 to 1; what is not one is a warning and the default.
    """
    config = Config.from_env(os.environ, warn=False)  # instrument() warns of the same variables
    ratio = config.sampling_ratio
    if arg is not None and arg.strip():
        ratio = _ratio(arg, default=ratio)
    return HealthSampler(ratio, boost_per_second=config.boost_per_second, max_per_second=config.max_per_second)


def _ratio(text: str, *, default: float) -> float:
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        _log.warning("%s=%r is not a number from 0 to 1, such as 0.01; using %r", _VARIABLE, text, default)
        return default
    return ratio
