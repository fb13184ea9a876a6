"""Stretches of a model's calls as windows that a tuner can compare, whatever sizes the calls had."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

from otel_inference.maintenance.tuning import TuningWindow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_inference.health.stretch import SizeKey, SizeTotals, Stretch

_REFERENCE_CALLS: Final = 200
"""Calls of a class that its reference is made of."""
_NORMAL: Final = NormalDist()
_HALVINGS: Final = 40


class Workload:
    """Says how much work the calls of a stretch are: the seconds that calls of their sizes took when first seen.

    Larger inputs are more work, so that a change of the mix is no change of the speed. Nothing is assumed of how the
    time grows with the size. A class first seen late counts as if it had been seen at the speed of the first ones.

    Source: direct standardisation, as in `diagnosis`.
    """

    __slots__ = ("_reference",)

    def __init__(self) -> None:
        self._reference: dict[SizeKey, tuple[int, float]] = {}
        """Calls, and mean seconds, by class."""

    def window(self, stretch: Stretch, *, work: float | None = None, p95_s: float | None = None) -> TuningWindow:
        """The stretch as a window.

        Args:
            stretch: What ended, under one setting.
            work: What its calls did, where the caller knows better. Where a knob changes what one call holds, as the
                batch size of a batcher does, this must be given, in items: a larger call cannot be told from a slower one.
            p95_s: 95th percentile of the calls' durations, where the caller knows it; else it is estimated from the
                spread within each class.
        """
        by_size = stretch.by_size
        calls = sum(totals.calls for totals in by_size.values())
        service_s = sum(totals.service_s for totals in by_size.values())
        standard = self._work(by_size)
        if p95_s is None:
            waiting = stretch.duration_s / service_s if service_s > 0 else 1.0
            p95_s = min(quantile(by_size, 0.95) * max(1.0, waiting), stretch.max_s)
        return TuningWindow(
            at_s=stretch.ended_s,
            duration_s=stretch.ended_s - stretch.started_s,
            calls=calls,
            work=standard if work is None else work,
            mean_service_s=service_s / calls if calls else 0.0,
            p95_s=p95_s,
            errors=stretch.errors - stretch.rejected,
        )

    def _work(self, by_size: Mapping[SizeKey, SizeTotals]) -> float:
        expected_s = {
            key: totals.calls * self._reference[key][1] for key, totals in by_size.items() if key in self._reference
        }
        took_s = sum(by_size[key].service_s for key in expected_s)
        slower = took_s / sum(expected_s.values()) if took_s > 0 else 1.0
        for key, totals in by_size.items():
            self._refer(key, totals, slower)
        return sum(totals.calls * self._reference[key][1] for key, totals in by_size.items() if totals.calls)

    def _refer(self, key: SizeKey, totals: SizeTotals, slower: float) -> None:
        """Add a class's calls to its reference until that has enough of them."""
        count, mean_s = self._reference.get(key, (0, 0.0))
        if totals.calls and count < _REFERENCE_CALLS:
            count += totals.calls
            share = totals.calls / count
            self._reference[key] = (count, mean_s + share * (totals.service_s / totals.calls / slower - mean_s))


def quantile(by_size: Mapping[SizeKey, SizeTotals], ratio: float) -> float:
    """Quantile of the service time over all classes, each taken as lognormal; 0 without calls.

    Args:
        by_size: Calls, and the sums of the logarithms of their service times and of the squares of those.
        ratio: Between 0 and 1.
    """
    classes = [_lognormal(totals) for totals in by_size.values() if totals.calls]
    if not classes:
        return 0.0
    calls = sum(weight for weight, _, _ in classes)
    score = _NORMAL.inv_cdf(ratio)
    each = [mean + score * deviation for _, mean, deviation in classes]
    low, high = min(each), max(each)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = sum(weight * _below(middle, mean, deviation) for weight, mean, deviation in classes)
        low, high = (middle, high) if below < ratio * calls else (low, middle)
    return math.exp(high)


def _lognormal(totals: SizeTotals) -> tuple[int, float, float]:
    """Calls, and mean and standard deviation of the logarithm."""
    mean = totals.log_service / totals.calls
    return totals.calls, mean, math.sqrt(max(0.0, totals.log_square / totals.calls - mean * mean))


def _below(value: float, mean: float, deviation: float) -> float:
    if deviation == 0.0:
        return float(value >= mean)
    return _NORMAL.cdf((value - mean) / deviation)
