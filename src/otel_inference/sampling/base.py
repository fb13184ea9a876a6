"""What can be known of the sampler that `HealthSampler` follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from otel_inference.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import SamplingResult
    from opentelemetry.util.types import AnyValue, Attributes


def ratio_of(base: Sampler | float) -> float | None:
    """With what probability `base` keeps a trace that begins here; `None` if it does not tell.

    The SDK's ratio samplers compare bits that probability sampling does not use, so that a `th` in
    the tracestate would be wrong for them: their ratio is taken, not their decisions. `ParentBased`
    is looked into: a parent's decision is respected anyway.

    Raises:
        ConfigError: If it is neither a sampler nor a number from 0 to 1.

    >>> ratio_of(ParentBased(TraceIdRatioBased(0.01)))
    0.01
    """
    if not isinstance(base, Sampler):
        if isinstance(base, bool) or not isinstance(base, (int, float)) or not 0.0 <= base <= 1.0:
            msg = f"the base of HealthSampler is {base!r}; expected a sampler or a ratio from 0 to 1, such as 0.01"
            raise ConfigError(msg)
        return float(base)
    root = root_of(base)
    if root is ALWAYS_ON or root is ALWAYS_OFF:
        return float(root is ALWAYS_ON)
    if isinstance(root, TraceIdRatioBased) and type(root).should_sample is TraceIdRatioBased.should_sample:
        return root.rate
    return None


def root_of(sampler: Sampler) -> Sampler:
    """The sampler that decides where there is no parent."""
    while isinstance(sampler, ParentBased) and type(sampler).should_sample is ParentBased.should_sample:
        sampler = sampler._root
    return sampler


def merged(attributes: Attributes, result: SamplingResult) -> dict[str, AnyValue]:
    """What a span is started with and what its sampler adds; some samplers leave out the former."""
    return {**(attributes or {}), **cast("dict[str, AnyValue]", result.attributes or {})}
