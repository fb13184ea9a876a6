"""A comparison of two settings that take turns, so that whatever else changes meets both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Final

from otel_inference.health.window import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Hashable

    from otel_inference.maintenance.tuning import TuningRules, TuningWindow

_ABORT_AFTER: Final = 2
"""Windows of the candidate over the objective."""
_LEAST_SEEN: Final = 4
"""Differences from which a scatter is known."""
_MEMORY: Final = 0.05
"""Weight of the newest difference in the scatter."""


class Scatter:
    """Standard deviation of a series' logarithm while its setting stays the same, drift left out.

    Half the mean squared difference of successive values is their variance (von Neumann, 1941).

    >>> scatter = Scatter()
    >>> for value in (1.0, 1.1, 1.0, 1.1, 1.0):
    ...     scatter.add("setting", value)
    >>> round(scatter.deviation, 3)
    0.067
    """

    __slots__ = ("_count", "_last", "_setting", "_variance")

    def __init__(self) -> None:
        self._variance = 0.0
        self._count = 0
        self._setting: Hashable = None
        self._last = 0.0

    def add(self, setting: Hashable, value: float) -> None:
        """Add a positive value seen under `setting`."""
        logarithm = math.log(value)
        if setting == self._setting:
            self._count += 1
            half_square = (logarithm - self._last) ** 2 / 2
            self._variance += max(_MEMORY, 1 / self._count) * (half_square - self._variance)
        self._setting, self._last = setting, logarithm

    @property
    def deviation(self) -> float | None:
        """The standard deviation, as a share of the value; `None` while too little was seen."""
        return math.sqrt(self._variance) if self._count >= _LEAST_SEEN else None


class Verdict(Enum):
    """How a comparison ended."""

    BETTER = "better"
    NOT_BETTER = "not better"
    TOO_SLOW = "too slow"
    """Its 95th percentile is too close to the objective."""
    OVER = "over"
    """It broke the objective."""
    FAILING = "failing"
    """Calls failed under it that did not under the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a candidate may take."""

    p95_s: float = math.inf
    """Accepted up to this mean."""
    window_p95_s: float = math.inf
    """Given up after two windows above this."""
    p95_deviation: float = 0.08
    """Scatter of a window's 95th percentile, as a share."""
    score_deviation: float | None = None
    """Scatter of a window's score, as a share, where it is known."""


class Trial:
    """Compares a base with a candidate in blocks A B B A, A being the base; the first window is of the base.

    d is the mean of ln(score of B / score of A) over pairs of neighbouring windows, se its standard error. Better: from
    `min_pairs` on d - z se > 0, d > `min_gain`, and the candidate's 95th percentile within the limit. Not better:
    d + z se < `min_gain`, or `max_pairs` are over. A clear case is decided from two pairs on, by the scatter of windows
    seen before. Too many windows over the objective, or failing calls, end it at once.

    Args:
        rules: What is concluded from how much.
        limits: What the candidate may take.
        seeks_gain: Whether the candidate must score better; else it need only keep to the limits.
    """

    __slots__ = ("_failures", "_first_score", "_gains", "_logs_p95", "_over", "_seen", "limits", "rules", "seeks_gain")

    def __init__(self, rules: TuningRules, limits: Limits, *, seeks_gain: bool = True) -> None:
        self.rules = rules
        self.limits = limits
        self.seeks_gain = seeks_gain
        self._seen = 0
        self._over = 0
        self._first_score = 0.0
        self._gains: list[float] = []
        self._logs_p95: list[float] = []
        self._failures = {False: (0, 0), True: (0, 0)}
        """Failed and all calls, of the base and of the candidate."""

    @property
    def wants_candidate(self) -> bool:
        """Whether the next window is to be one of the candidate."""
        return self._seen % 4 in {1, 2}

    @property
    def pairs(self) -> int:
        """Pairs compared so far."""
        return len(self._gains)

    @property
    def gain(self) -> float | None:
        """By how much the candidate scored better, as a share; `None` before the first pair."""
        return math.expm1(fmean(self._gains)) if self._gains else None

    @property
    def p95_s(self) -> float | None:
        """Geometric mean of the candidate's 95th percentiles; `None` before its first window."""
        return math.exp(fmean(self._logs_p95)) if self._logs_p95 else None

    @property
    def failures(self) -> tuple[int, int]:
        """Failed and all calls of the candidate."""
        return self._failures[True]

    @property
    def last_p95s(self) -> list[float]:
        """The candidate's 95th percentiles in seconds, the last three."""
        return [math.exp(logarithm) for logarithm in self._logs_p95[-3:]]

    def add(self, window: TuningWindow, score: float | None) -> Verdict | None:
        """Add a window of the setting that was wanted.

        Args:
            window: What was seen; unusable where every call failed.
            score: Positive, the larger the better; `None` where there is none, which only ends a trial or is left out.

        Returns:
            How it ended; `None` while it goes on.
        """
        candidate = self.wants_candidate
        failed, calls = self._failures[candidate]
        self._failures[candidate] = (failed + window.errors, calls + window.errors + window.calls)
        if candidate and self._fails_more():
            return Verdict.FAILING
        if score is None:
            return None
        if candidate:
            self._over += window.p95_s > self.limits.window_p95_s
            self._logs_p95.append(math.log(window.p95_s))
            if self._over >= _ABORT_AFTER:
                return Verdict.OVER
        return self._pair(math.log(score))

    def _fails_more(self) -> bool:
        least = wilson_interval(*self._failures[True])[0]
        most = wilson_interval(*self._failures[False])[1]
        return least > most

    def _pair(self, score: float) -> Verdict | None:
        """Remember the first score of a pair; with the second compare."""
        self._seen += 1
        if self._seen % 2:
            self._first_score = score
            return None
        first_is_base = self._seen % 4 == 2  # noqa: PLR2004 - A B, then B A
        self._gains.append(score - self._first_score if first_is_base else self._first_score - score)
        if self.pairs < self.rules.min_pairs:
            return self._early() if self.pairs > 1 else None
        return self._close()

    def _early(self) -> Verdict | None:
        """Decide a clear case by the scatter of windows seen before."""
        deviation = self.limits.score_deviation
        if deviation is None or not self.seeks_gain:
            return None
        gain, doubt = fmean(self._gains), self.rules.z_early * deviation * math.sqrt(2 / self.pairs)
        if gain + doubt < self.rules.min_gain:
            return Verdict.NOT_BETTER
        if gain - doubt > self.rules.min_gain and self._above_limit() <= -1:
            return Verdict.BETTER
        return None

    def _close(self) -> Verdict | None:
        """Decide by the pairs of this trial alone."""
        gain, doubt = fmean(self._gains), self.rules.z * stdev(self._gains) / math.sqrt(self.pairs)
        if self.seeks_gain and gain + doubt < self.rules.min_gain:
            return Verdict.NOT_BETTER
        if self._above_limit() > self.rules.z:
            return Verdict.TOO_SLOW
        better = not self.seeks_gain or (gain > doubt and gain > self.rules.min_gain)
        if better and self._above_limit() <= 0:
            return Verdict.BETTER
        if self.pairs < self.rules.max_pairs:
            return None
        return Verdict.TOO_SLOW if better else Verdict.NOT_BETTER

    def _above_limit(self) -> float:
        """Standard errors by which the candidate's mean 95th percentile is above the limit."""
        error = self.limits.p95_deviation / math.sqrt(len(self._logs_p95))
        return (fmean(self._logs_p95) - math.log(self.limits.p95_s)) / error
