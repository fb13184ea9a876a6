"""What is known of a model's health at one time."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_inference.finding import Finding
    from otel_inference.health.window import WindowSnapshot


class HealthState(IntEnum):
    """How a model is, by the number that its gauge reports."""

    OK = 0
    DEGRADED = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Durations of warm calls in the window, in seconds; NaN while there are none."""

    p50: float
    p90: float
    p99: float
    mean: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelHealth:
    """One model's four numbers over the window, and what runs now."""

    model: str
    throughput: float
    """Calls ended per second."""
    latency: Latency
    error_ratio: float
    error_ratio_interval: tuple[float, float]
    """95 % Wilson interval: few calls say little."""
    utilization: Mapping[str, float] = field(default_factory=dict)
    """Used over available, by resource; what could not be read is not in it."""
    active_calls: int = 0
    oldest_active_s: float = 0.0
    """Age of the longest running call; 0 while none runs."""
    concurrency: float = 0.0
    """Mean number of calls in flight over the window."""
    state: HealthState = HealthState.OK
    calls: int = 0
    errors: int = 0
    findings: tuple[Finding, ...] = ()
    """What is wrong with it, and with the whole process, as of the last evaluation."""
    window: WindowSnapshot
    """What the numbers were computed from; merges with those of other processes."""


def latency_of(window: WindowSnapshot) -> Latency:
    """The latency figures of a window."""
    p50, p90, p99 = window.sketch.quantiles((0.5, 0.9, 0.99))
    return Latency(p50=p50, p90=p90, p99=p99, mean=window.mean_s, max=window.max_s)
