"""What is usual of a stream: its level, how far windows scatter around it, and how much they take after one another."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from statistics import fmean
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_MEMORY: Final = 36 * 90
"""Windows that the noise is averaged over, each counted as often as it was learned from: it changes less than the
level does."""
_MOST_DEGREES: Final = 440
"""Windows, each counted once, that this is."""
_UNKNOWN_AUTOCORRELATION: Final = 0.5
_UNKNOWN_FOR: Final = 24.0
"""The autocorrelation begins with what so many windows of 0.5 would have told: a few windows cannot tell it, and taking
too little for it lets chance look like a shift."""
_ENOUGH: Final = 60
"""Fewer windows are not believed to scatter less than the samples behind them make them."""
_DRIFT_OVER_S: Final = 7200.0
_DRIFT_SEEN_S: Final = 1200.0
"""Over less time, drift cannot be told from chance."""
_ADJACENT: Final = 1.5
"""Windows follow one another if they are at most so many usual steps apart."""
_OUTLIER: Final = 3.0
_MAX_AUTOCORRELATION: Final = 0.9
_SD_PER_MAD: Final = 1.4826
"""Standard deviation over median absolute deviation, of a normal distribution."""
_SD_PER_P90: Final = 1 / 1.6449
"""The same over the 90 % quantile of absolute deviations."""


class Sample(NamedTuple):
    """A window's value."""

    at_s: float
    value: float
    weight: float
    """Samples behind it."""
    error: float = 0.0
    """Standard error of the value by the scatter of these samples; 0 where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """Level and noise of a healthy stream, which is taken for an autoregressive process of first order."""

    level: float
    noise: float
    """Standard deviation of what the window before does not foretell."""
    autocorrelation: float
    weight: float
    """Samples behind a window; one with fewer counts as noisier in proportion, one with more as no better."""
    step_s: float
    """Time from window to window."""
    level_variance: float
    """Of the level, in units of the stream's long-run variance per window."""
    degrees: float
    """Degrees of freedom of the noise."""

    def precision(self, weight: float) -> float:
        """Inverse variance of a window with so many samples behind it, 1 for a usual one."""
        return min(1.0, weight / self.weight)

    def adjacent(self, before_s: float, at_s: float) -> bool:
        """Whether no window is missing between two."""
        return at_s - before_s <= _ADJACENT * self.step_s


class Learner:
    """Estimates what is usual, again and again, with noise that is averaged over the estimates of some hours.

    Args:
        noise_floor: Smallest standard deviation of a window that is believed.
        most_drift: How much the level may have moved, since the windows it was learned from, as it does all day.
    """

    def __init__(self, noise_floor: float, most_drift: float) -> None:
        self._noise_floor = noise_floor
        self._most_drift = most_drift
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._learned = 0.0
        """Windows that it was learned from, counted each time."""
        self._degrees = 0.0
        self._until_s = -math.inf
        self._levels: deque[tuple[float, float]] = deque()
        """When, and what the level was, over the last two hours."""
        self._noise = self._noise_per_call = 0.0
        self._autocorrelation = _UNKNOWN_AUTOCORRELATION

    def learn(self, samples: Sequence[Sample], at_s: float) -> Usual:
        """What is usual now by these samples, oldest first.

        The level is their mean with outliers drawn in, moved on by the drift of the last two hours; the noise is the
        standard deviation of what each window's predecessor does not foretell, with outliers drawn in too.
        """
        middle = median([each.value for each in samples])
        weight = median([each.weight for each in samples])
        gaps_s = [after.at_s - before.at_s for before, after in pairwise(samples)]
        step_s = median(gaps_s)
        level = middle + fmean(_drawn_in([each.value - middle for each in samples]))
        excess = [(value - level) * (1.0 if own >= weight else math.sqrt(own / weight)) for _, value, own, _ in samples]
        follows = [gap_s <= _ADJACENT * step_s for gap_s in gaps_s]
        least = (
            self._noise_floor
            if len(samples) >= _ENOUGH
            else max(self._noise_floor, median([each.error for each in samples]))
        )
        autocorrelation = self._learn_noise(excess, follows, weight, least)
        self._degrees = min(_MOST_DEGREES, self._degrees + sum(each.at_s > self._until_s for each in samples))
        self._until_s = samples[-1].at_s
        drift, share = self._drift(level, samples, at_s)
        return Usual(
            level=level + drift,
            # As calls become fewer, windows scatter more at once; as they become more, less only once that was seen.
            noise=max(self._noise, self._noise_per_call / math.sqrt(weight)),
            autocorrelation=autocorrelation,
            weight=weight,
            step_s=step_s,
            level_variance=((1.0 + share) ** 2 + share**2) / len(samples),
            # The share of a window's variance that is its own; two degrees went into level and autocorrelation.
            degrees=max(1.0, self._degrees * (1.0 - autocorrelation**2) - 2.0),
        )

    def _learn_noise(self, excess: Sequence[float], follows: Sequence[bool], weight: float, least: float) -> float:
        """Take another estimate of noise and autocorrelation into their averages; returns the latter."""
        self._learned = min(self._learned + len(excess), _MEMORY)
        drawn_in = _drawn_in(excess)
        own = _autocorrelation(drawn_in, follows) - self._autocorrelation
        self._autocorrelation += len(excess) / (self._learned + _UNKNOWN_FOR) * own
        autocorrelation = min(_MAX_AUTOCORRELATION, max(0.0, self._autocorrelation))
        innovations = [
            after - autocorrelation * before * following
            for before, after, following in zip(drawn_in, excess[1:], follows, strict=False)
        ]
        floor = least * math.sqrt(1.0 - autocorrelation**2)
        noise, share = max(_spread(innovations), floor), len(excess) / self._learned
        self._noise += share * (noise - self._noise)
        self._noise_per_call += share * (noise * math.sqrt(weight) - self._noise_per_call)
        return autocorrelation

    def _drift(self, level: float, samples: Sequence[Sample], at_s: float) -> tuple[float, float]:
        """How much the level has moved since the middle of the samples, if it goes on as in the last two hours.

        With it the share of that time in which it has moved so far, by which both levels' errors count.
        """
        middle_s = (samples[0].at_s + samples[-1].at_s) / 2
        self._levels.append((middle_s, level))
        while self._levels[0][0] < middle_s - _DRIFT_OVER_S:
            self._levels.popleft()
        begun_s, begun = self._levels[0]
        if middle_s - begun_s < _DRIFT_SEEN_S:
            return 0.0, 0.0
        share = (at_s - middle_s) / (middle_s - begun_s)
        return max(-self._most_drift, min(self._most_drift, share * (level - begun))), share


def median(values: Sequence[float]) -> float:
    """The middle value.

    >>> median([3.0, 1.0, 2.0, 10.0])
    2.5
    """
    ranked = sorted(values)
    return (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2


def as_normal(score: float, degrees: float) -> float:
    """The normal score that is as rare as this one of Student's distribution (Wallace, Ann. Math. Stat. 30, 1959).

    >>> round(as_normal(8.0, 10.0), 2), round(as_normal(4.3, 400.0), 2)
    (4.37, 4.25)
    """
    scale = (8.0 * degrees + 1.0) / (8.0 * degrees + 3.0)
    return scale * math.sqrt(degrees * math.log1p(score * score / degrees))


def as_score(normal: float, degrees: float) -> float:
    """The score of Student's distribution that is as rare as this normal one: the inverse of `as_normal`.

    >>> round(as_score(as_normal(8.0, 10.0), 10.0), 6), round(as_score(4.2, 7.0), 1)
    (8.0, 9.9)
    """
    scale = (8.0 * degrees + 1.0) / (8.0 * degrees + 3.0)
    return math.sqrt(degrees * math.expm1((normal / scale) ** 2 / degrees))


def _drawn_in(values: Sequence[float]) -> list[float]:
    """Values around 0, outliers drawn in to where normal ones are rare."""
    cut = _OUTLIER * _SD_PER_MAD * median([abs(each) for each in values])
    return [each if -cut <= each <= cut else math.copysign(cut, each) for each in values]


def _spread(values: Sequence[float]) -> float:
    """Standard deviation of values around 0, outliers drawn in to where normal ones are rare."""
    sizes = sorted(abs(each) for each in values)
    usual = max(_SD_PER_MAD * sizes[len(sizes) // 2], _SD_PER_P90 * sizes[int(0.9 * len(sizes))])
    cut = _OUTLIER * usual
    within = bisect_right(sizes, cut)
    return math.sqrt((sum(map(mul, sizes[:within], sizes[:within])) + (len(sizes) - within) * cut * cut) / len(sizes))


def _autocorrelation(excess: Sequence[float], follows: Sequence[bool]) -> float:
    """Correlation of windows with the ones before them, corrected for the bias of few (Kendall, Biometrika 41, 1954)."""
    pairs = sum(follows)
    square = sum(each * each for each in excess) * pairs / len(excess)
    if square <= 0:
        return 0.0
    product = sum(one * other for (one, other), following in zip(pairwise(excess), follows, strict=True) if following)
    raw = product / square
    return raw + (1.0 + 3.0 * raw) / pairs
