"""What a verdict compares: the figures of health at one time, of one model or of the process."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.health.window import WindowSnapshot
    from otel_inference.resources.reading import Reading

CPU_THROTTLED: Final = "cpu_throttled"
"""Share of periods in which the quota stopped the process, among the utilizations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Health as a verdict sees it."""

    windows: Mapping[str, WindowSnapshot] = field(default_factory=dict)
    """Calls that ended in the health window, by model."""
    active_calls: int = 0
    oldest_active_s: float = 0.0
    utilization: Mapping[str, float] = field(default_factory=dict)
    """By resource; the machine's are means over some readings, for one alone is mostly chance."""
    rss_bytes: int | None = None

    @property
    def calls(self) -> int:
        """Calls that ended."""
        return sum(window.calls for window in self.windows.values())

    @property
    def errors(self) -> int:
        """Calls that failed on their own account; those that a limiter turned away are its doing."""
        return sum(window.errors - window.rejected for window in self.windows.values())

    def merged(self) -> WindowSnapshot | None:
        """All models' calls together; `None` if there is no model."""
        windows = list(self.windows.values())
        return reduce(lambda one, other: one.merged(other), windows) if windows else None

    def summary(self) -> dict[str, float]:
        """The figures by name, for the journal; what is not known is left out."""
        named = {f"utilization.{resource}": value for resource, value in self.utilization.items()}
        if self.rss_bytes is not None:
            named["rss_bytes"] = self.rss_bytes
        window = self.merged()
        if window is not None:
            named |= {
                "calls": window.calls,
                "errors": window.errors,
                "error_ratio": window.error_ratio,
                "throughput_per_s": window.throughput,
                "mean_s": window.mean_s,
                "p99_s": window.sketch.quantile(0.99),
                "active_calls": self.active_calls,
                "oldest_active_s": self.oldest_active_s,
            }
        return {name: value for name, value in named.items() if not math.isnan(value)}


def figures_of(models: Iterable[ModelHealth], readings: Sequence[Reading]) -> Figures:
    """The figures of these models, and of the machine by its last readings.

    Args:
        models: Health of one model, or of all.
        readings: The last ones, oldest first.
    """
    chosen = list(models)
    utilization: dict[str, float] = {}
    for model in chosen:
        utilization |= model.utilization
    utilization |= _means([_utilization(reading) for reading in readings])
    return Figures(
        windows={model.model: model.window for model in chosen},
        active_calls=sum(model.active_calls for model in chosen),
        oldest_active_s=max((model.oldest_active_s for model in chosen), default=0.0),
        utilization=utilization,
        rss_bytes=next((each.rss_bytes for each in reversed(readings) if each.rss_bytes is not None), None),
    )


def _utilization(reading: Reading) -> Mapping[str, float]:
    if reading.cpu_throttled_ratio is None:
        return reading.utilization
    return {**reading.utilization, CPU_THROTTLED: reading.cpu_throttled_ratio}


def _means(readings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for reading in readings for name in reading}
    values = {name: [reading[name] for reading in readings if name in reading] for name in sorted(names)}
    return {name: sum(each) / len(each) for name, each in values.items()}
