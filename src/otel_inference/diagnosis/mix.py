"""Whether calls take longer because their inputs grew, or because the system slowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from otel_inference.diagnosis.expectation import Expectation, lower_bound, octaves, variance_within
from otel_inference.diagnosis.slow_range import slow_range
from otel_inference.health.stretch import SizeKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_inference.diagnosis.expectation import Totals
    from otel_inference.diagnosis.slow_range import SlowRange

    Sizes = Mapping[SizeKey, Totals]

_K = TypeVar("_K")

_FEWEST_CALLS: Final = 30
"""On either side of a comparison, and to know what is usual."""
_INPUTS_GREW: Final = 1.2
_SLOWED: Final = 1.14
"""Half way, in logarithms, from no slowness to 1.3 times as slow, so that by few calls either is missed as seldom."""
_SURE: Final = 1.75
"""Standard errors, which is about the same of 100 calls beside 100 whose ln(service) scatters by 0.5."""

_SHARE_GREW: Final = 1.5
_SHARE_GREW_BY: Final = 0.2
_SHARE_SURE: Final = 3.0

_RELEARN: Final = 0.1
"""Share of the calls that have to be new for it to be learned again what is usual."""
_UNKNOWN: Final = SizeKey(-1, -1)
_LOG_CLASS: Final = math.log(2) / 2
"""Logarithm of how much larger a class is than the one before."""
_MOST_CLASSES: Final = 128
_FORGOTTEN: Final = 0.01
"""Classes with fewer calls left than this are let go."""


@dataclass(slots=True)
class WeightedTotals:
    """`SizeTotals` of calls that count for less than one each."""

    calls: float = 0.0
    service_s: float = 0.0
    log_service: float = 0.0
    log_square: float = 0.0

    def add(self, other: Totals) -> None:
        """Add calls in full."""
        self.calls += other.calls
        self.service_s += other.service_s
        self.log_service += other.log_service
        self.log_square += other.log_square

    def fade(self, share: float) -> None:
        """Let every call count for this share of what it did."""
        self.calls *= share
        self.service_s *= share
        self.log_service *= share
        self.log_square *= share


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """How much longer calls were worked on than is usual for their size."""

    mean: float
    """Mean of ln(service / expected)."""
    error: float
    """Its standard error, by the scatter that is usual among calls of one class."""
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareGrowth:
    """A class of input sizes that takes a larger share of the time than it did."""

    at_least: float
    below: float
    base_share: float
    now_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MixComparison:
    """Calls of now beside calls of then. Ratios of service are of geometric means, so that one outlier is not much."""

    base_calls: int
    now_calls: int
    time_ratio: float
    """Arithmetic mean of service, now over then: what is seen without knowing sizes."""
    input_ratio: float
    """Service that was usual then for the inputs of now, over that for the inputs of then."""
    slow_ratio: float
    """Service now over what was usual then, at like sizes."""
    input_z: float
    """Standard errors that the logarithm of `input_ratio` is above 0."""
    slow_z: float
    """The same of `slow_ratio`."""
    slow_range: SlowRange | None
    growing: ShareGrowth | None

    @property
    def inputs_grew(self) -> bool:
        """Whether the inputs alone make 20 % more work, surely."""
        return self.input_ratio >= _INPUTS_GREW and self.input_z >= _SURE

    @property
    def slowed(self) -> bool:
        """Whether calls of one size take at least 14 % longer, surely."""
        return self.slow_ratio >= _SLOWED and self.slow_z >= _SURE


class Baseline:
    """What is usual for each size, of which an hour ago counts half as much as now.

    Args:
        half_life_s: Seconds after which a call counts half.
    """

    def __init__(self, *, half_life_s: float = 3600.0) -> None:
        self._half_life_s = half_life_s
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.totals: dict[SizeKey, WeightedTotals] = {}
        self._last_s: float | None = None
        self._expectation: Expectation | None = None
        self._added = 0.0

    @property
    def calls(self) -> float:
        """Calls known, each weighted with its age."""
        return _calls(self.totals)

    def add(self, by_size: Sizes, at_s: float) -> None:
        """Learn from a healthy stretch; of more than 128 classes the rarest is forgotten."""
        if self._last_s is not None and at_s > self._last_s:
            share = math.pow(0.5, (at_s - self._last_s) / self._half_life_s)
            for key, each in list(self.totals.items()):
                each.fade(share)
                if each.calls < _FORGOTTEN:
                    del self.totals[key]
        self._last_s = at_s if self._last_s is None else max(at_s, self._last_s)
        for key, totals in by_size.items():
            self.totals.setdefault(key, WeightedTotals()).add(totals)
        while len(self.totals) > _MOST_CLASSES:
            del self.totals[min(self.totals, key=lambda key: self.totals[key].calls)]
        self._added += _calls(by_size)

    def residual(self, by_size: Sizes) -> Residual | None:
        """How a stretch compares with what is usual; `None` without calls, or before 30 are known."""
        by_size = _sized(by_size, self.totals)
        calls = _calls(by_size)
        if not calls or self.calls < _FEWEST_CALLS:
            return None
        if self._expectation is None or self._added >= _RELEARN * self.calls:
            self._expectation = Expectation(_sized(self.totals, self.totals))
            self._added = 0.0
        usual = self._expectation
        excess = sum(each.log_service - each.calls * usual.of(key) for key, each in by_size.items())
        return Residual(mean=excess / calls, error=math.sqrt(usual.variance / calls), calls=round(calls))


def merged(parts: Iterable[Sizes]) -> dict[SizeKey, WeightedTotals]:
    """All stretches' totals together."""
    together: dict[SizeKey, WeightedTotals] = {}
    for part in parts:
        for key, totals in part.items():
            together.setdefault(key, WeightedTotals()).add(totals)
    return together


def compare(base: Sizes, now: Sizes) -> MixComparison | None:
    """Take apart how much longer calls take: by larger inputs, and by slowness at like sizes.

    The standardisation of Kitagawa (JASA 50, 1955) in logarithms, so that both parts add up: what was usual for the
    sizes of now against what was usual for the sizes of then, and what is now against what was usual for these
    sizes. Sizes that there were few calls of then are judged by a line; see `Expectation`.

    Returns:
        `None` with fewer than 30 calls on either side.
    """
    base, now = _sized(base, base), _sized(now, base)
    base_calls, now_calls = _calls(base), _calls(now)
    if min(base_calls, now_calls) < _FEWEST_CALLS:
        return None
    usual = Expectation(base)
    (base_mean, base_variance), (now_mean, now_variance) = (
        _moments((each.calls, usual.of(key)) for key, each in sizes.items()) for sizes in (base, now)
    )
    now_mean += _within_classes(base, now, usual)
    inputs, slow = now_mean - base_mean, sum(each.log_service for each in now.values()) / now_calls - now_mean
    shared = sum(each.calls / now_calls * usual.error(key)[1] for key, each in now.items())
    input_error = math.sqrt(base_variance / base_calls + now_variance / now_calls + shared**2)
    slow_error = math.sqrt(_slow_variance(now, usual) + shared**2)
    base_s = _service_s(base) / base_calls
    time_ratio = _service_s(now) / now_calls / base_s if base_s > 0 else 1.0
    return MixComparison(
        base_calls=round(base_calls),
        now_calls=round(now_calls),
        time_ratio=time_ratio,
        input_ratio=math.exp(inputs),
        slow_ratio=math.exp(slow),
        input_z=_z(inputs, input_error),
        slow_z=_z(slow, slow_error),
        slow_range=slow_range(now, usual),
        growing=_growing_class(base, now),
    )


def growing_share(base: Mapping[_K, Totals], now: Mapping[_K, Totals]) -> tuple[_K, float, float] | None:
    """Whose share of the time grew most: by half, by a fifth of all time, and surely; with both shares.

    Keys are whatever the time is shared among: classes of sizes, or models.
    """
    base_s, now_s = _service_s(base), _service_s(now)
    if base_s <= 0 or now_s <= 0:
        return None
    grown: list[tuple[float, _K, float, float]] = []
    for key, each in now.items():
        then, today = (base[key].service_s if key in base else 0.0) / base_s, each.service_s / now_s
        error = math.hypot(_share_error(base, base_s, then), _share_error(now, now_s, today))
        if today - then >= max(_SHARE_GREW_BY, _SHARE_SURE * error) and today >= _SHARE_GREW * then:
            grown.append((today - then, key, then, today))
    return max(grown, key=lambda each: each[0])[1:] if grown else None


def _calls(sizes: Mapping[_K, Totals]) -> float:
    return sum(each.calls for each in sizes.values())


def _service_s(sizes: Mapping[_K, Totals]) -> float:
    return sum(each.service_s for each in sizes.values())


def _z(value: float, error: float) -> float:
    return value / max(error, 1e-9)


def _moments(values: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Mean and variance of values, each with its weight before it."""
    weights = total = squares = 0.0
    for weight, value in values:
        weights += weight
        total += weight * value
        squares += weight * value * value
    mean = total / weights
    return mean, max(0.0, squares / weights - mean * mean)


def _sized(sizes: Sizes, usual: Sizes) -> Sizes:
    """Without the calls of unknown size, where usually most have one: they tell nothing about sizes."""
    unknown = usual.get(_UNKNOWN)
    if unknown is not None and unknown.calls > _calls(usual) / 2:
        return sizes
    return {key: each for key, each in sizes.items() if key != _UNKNOWN}


def _within_classes(base: Sizes, now: Sizes, usual: Expectation) -> float:
    """How much larger ln(service) is expected to be as sizes have moved inside their classes too.

    Of two normal distributions of ln(size) of the same variance, the ratio of densities changes by the difference
    of the means over the variance, per unit; over a class of width w it moves the mean by w² / 12 times that
    (the argument of Sheppard's corrections).
    """
    calls, moved = _calls(now), 0.0
    for part in (0, 1):
        base_sizes, now_sizes = (
            [(each.calls, key[part] * _LOG_CLASS) for key, each in sizes.items() if key[part] >= 0]
            for sizes in (base, now)
        )
        if not base_sizes or not now_sizes:
            continue
        (base_mean, base_variance), (now_mean, now_variance) = _moments(base_sizes), _moments(now_sizes)
        variance = (base_variance + now_variance) / 2
        for key, each in now.items():
            spread = (octaves(key) * math.log(2)) ** 2 / 12
            if variance > 2 * spread:
                elasticity = usual.elasticity(key)[part]
                moved += each.calls / calls * elasticity * spread * (now_mean - base_mean) / variance
    return moved


def _slow_variance(now: Sizes, usual: Expectation) -> float:
    """Of the mean excess: by the scatter of the calls of now, and by what was learned from then."""
    calls = _calls(now)
    learned = sum((each.calls / calls * usual.error(key)[0]) ** 2 for key, each in now.items())
    return max(variance_within(now), usual.variance) / calls + learned


def _growing_class(base: Sizes, now: Sizes) -> ShareGrowth | None:
    found = growing_share(_by_input(base), _by_input(now))
    if found is None:
        return None
    size_class, then, today = found
    return ShareGrowth(
        at_least=lower_bound(size_class), below=lower_bound(size_class + 1), base_share=then, now_share=today
    )


def _by_input(sizes: Sizes) -> dict[int, WeightedTotals]:
    """By class of input, where that is known."""
    together: dict[int, WeightedTotals] = {}
    for key, totals in sizes.items():
        if key.input_class >= 0:
            together.setdefault(key.input_class, WeightedTotals()).add(totals)
    return together


def _share_error(totals: Mapping[_K, Totals], total_s: float, share: float) -> float:
    """Standard error of a share of time, which rests on the fewer calls the more few of them take of it."""
    squares = sum(each.service_s**2 / each.calls for each in totals.values() if each.calls)
    return math.sqrt(share * (1.0 - share) * squares) / total_s
