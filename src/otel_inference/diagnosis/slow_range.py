"""A range of input sizes whose calls slowed while the others did not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference.diagnosis.expectation import lower_bound, variance_within

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_inference.diagnosis.expectation import Expectation, Totals
    from otel_inference.health.stretch import SizeKey

_SLOWED: Final = math.log(1.3)
_OTHERS_SLOWED: Final = math.log(1.15)
_SURE: Final = 4.0
"""Standard errors; more than for one comparison, as there are many ranges."""
_FEWEST_CALLS: Final = 5
_MOST_OF_CALLS: Final = 0.7
"""A range with more of the calls is no exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRange:
    """A range of input sizes whose calls slowed while others did not."""

    at_least: float
    below: float
    calls: int
    ratio: float
    """Service now over what was usual, at like sizes."""
    others_ratio: float
    """The same for all other calls."""


class _Slice(NamedTuple):
    """Some of the calls."""

    calls: float
    excess: float
    """Sum of ln(service / expected)."""
    variance: float
    """Of the excess."""

    @property
    def mean(self) -> float:
        return self.excess / self.calls


def slow_range(now: Mapping[SizeKey, Totals], usual: Expectation) -> SlowRange | None:
    """The range of input sizes that stands out most: 30 % slower than usual, others less than 15 %, and surely so."""
    by_class = _by_class(now, usual)
    everything = _together(by_class.values())
    found: list[tuple[float, SlowRange]] = []
    for low, high in combinations_with_replacement(sorted(size for size in by_class if size >= 0), 2):
        inside = _together(each for size, each in by_class.items() if low <= size <= high)
        outside = _without(everything, inside)
        if _stands_out(inside, outside):
            z = (inside.mean - outside.mean) / _error(inside, outside)
            found.append((z, _range(low, high, inside, outside)))
    best = max(found, key=lambda each: each[0], default=None)
    return None if best is None or best[0] < _SURE else best[1]


def _stands_out(inside: _Slice, outside: _Slice) -> bool:
    return (
        inside.calls >= _FEWEST_CALLS
        and outside.calls > 0
        and inside.calls <= _MOST_OF_CALLS * (inside.calls + outside.calls)
        and inside.mean >= _SLOWED
        and outside.mean < _OTHERS_SLOWED
    )


def _range(low: int, high: int, inside: _Slice, outside: _Slice) -> SlowRange:
    return SlowRange(
        at_least=lower_bound(low),
        below=lower_bound(high + 1),
        calls=round(inside.calls),
        ratio=math.exp(inside.mean),
        others_ratio=math.exp(outside.mean),
    )


def _by_class(now: Mapping[SizeKey, Totals], usual: Expectation) -> dict[int, _Slice]:
    variance = max(variance_within(now), usual.variance)
    parts: dict[int, list[_Slice]] = {}
    for key, each in now.items():
        learned = sum(error**2 for error in usual.error(key))
        part = _Slice(
            each.calls,
            each.log_service - each.calls * usual.of(key),
            each.calls * variance + each.calls**2 * learned,
        )
        parts.setdefault(key.input_class, []).append(part)
    return {size: _together(slices) for size, slices in parts.items()}


def _together(slices: Iterable[_Slice]) -> _Slice:
    calls = excess = variance = 0.0
    for each in slices:
        calls += each.calls
        excess += each.excess
        variance += each.variance
    return _Slice(calls, excess, variance)


def _without(everything: _Slice, part: _Slice) -> _Slice:
    return _Slice(everything.calls - part.calls, everything.excess - part.excess, everything.variance - part.variance)


def _error(inside: _Slice, outside: _Slice) -> float:
    return math.sqrt(max(inside.variance / inside.calls**2 + outside.variance / outside.calls**2, 1e-18))
