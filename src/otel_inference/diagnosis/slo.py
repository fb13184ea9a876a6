"""Objectives that users set, and whether their error budget is being used up too fast."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference.finding import Severity
from otel_inference.health.window import wilson_interval
from otel_inference.objective import check_ratio

if TYPE_CHECKING:
    from otel_inference.diagnosis.observation import Counts

_FEWEST_BAD: Final = 5
_Z: Final = 1.645
"""One-sided 95 % quantile of the normal distribution."""
_MOST_LIMIT: Final = 0.5
"""More than half of the calls bad is too fast whatever the objective; a loose one would never be found otherwise."""
_CLOSING_CALLS: Final = 20
"""Calls that the short window is widened to hold before it tells that a burn is over."""
_CLOSING_UPDATES: Final = 2


class Tier(StrEnum):
    """Whom a burn is for."""

    PAGE = "page"
    """People: much of the month's budget is gone if it goes on."""
    CONTROL = "control"
    """Maintenance, which acts sooner on shorter windows."""


class _Rule(NamedTuple):
    """Burning faster than `factor` over both windows; the short one tells that it goes on."""

    tier: Tier
    severity: Severity
    factor: float
    long_s: float
    short_s: float


_RULES: Final = (
    _Rule(Tier.PAGE, Severity.CRITICAL, 14.4, 3600.0, 300.0),
    _Rule(Tier.PAGE, Severity.CRITICAL, 6.0, 21600.0, 1800.0),
    _Rule(Tier.CONTROL, Severity.WARNING, 14.4, 300.0, 30.0),
    _Rule(Tier.CONTROL, Severity.WARNING, 6.0, 1800.0, 180.0),
)
"""The worst first. Tiers and factors are those of the Site Reliability Workbook, chapter 5, for 30 days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """An error budget that is used up too fast."""

    tier: Tier
    severity: Severity
    factor: float
    """Times as fast as the budget allows that is too fast."""
    long_s: float
    short_s: float
    covered_s: float
    """Seconds that the long window is of: its width, or the age of the model's calls while they are younger."""
    burn_long: float
    """How many times as fast as the budget allows it is used up, over the long window."""
    burn_short: float
    """The same over the short window; 0 without calls."""
    calls: int
    """Calls in the long window."""
    bad: int
    """Bad ones of them."""


class BurnWatch:
    """Follows one objective by multi-window multi-burn-rate rules, with hysteresis.

    A rule holds if both its windows burn faster than its factor, which is taken for half of the calls at most, and
    the long one surely so: with at least five bad calls, and by the lower bound of the Wilson interval of 90 %.
    A model younger than the short window is not judged.

    A burn ends when two updates in a row find it at less than half. What they look at is the short window, widened up to the long one until it holds 20 calls, so that at low traffic
    one good call does not end a burn.

    Args:
        ratio: Share of calls that the objective promises.

    Raises:
        ValueError: If it is not between 0 and 1.
    """

    def __init__(self, ratio: float) -> None:
        check_ratio(ratio)
        self._ratio = ratio
        self._quiet: dict[_Rule, int] = {}
        """Open rules, with the number of updates in a row that found them quiet."""

    def update(self, counts: Counts, age_s: float) -> Burn | None:
        """The worst burn that is open; to be called once per stretch of ten seconds."""
        for rule in _RULES:
            if _burns(rule, counts, age_s, self._ratio):
                self._quiet[rule] = 0
            elif rule in self._quiet:
                self._wane(rule, counts)
        worst = next((rule for rule in _RULES if rule in self._quiet), None)
        return None if worst is None else _figures(worst, counts, age_s, self._ratio)

    def _wane(self, rule: _Rule, counts: Counts) -> None:
        width_s = rule.short_s
        calls, bad = counts(width_s)
        while calls < _CLOSING_CALLS and width_s < rule.long_s:
            width_s = min(2 * width_s, rule.long_s)
            calls, bad = counts(width_s)
        quiet = bad < _limit(rule, self._ratio) / 2 * calls or not bad
        self._quiet[rule] = self._quiet[rule] + 1 if quiet else 0
        if self._quiet[rule] >= _CLOSING_UPDATES:
            del self._quiet[rule]


def _limit(rule: _Rule, ratio: float) -> float:
    """Share of bad calls above which the budget burns too fast."""
    return min(rule.factor * (1.0 - ratio), _MOST_LIMIT)


def _burns(rule: _Rule, counts: Counts, age_s: float, ratio: float) -> bool:
    if age_s < rule.short_s:
        return False
    limit = _limit(rule, ratio)
    calls, bad = counts(rule.short_s)  # first, as it is cheaper
    if bad <= limit * calls:
        return False
    calls, bad = counts(rule.long_s)
    surely, _ = wilson_interval(bad, calls, _Z)
    return bad >= _FEWEST_BAD and surely > limit


def _figures(rule: _Rule, counts: Counts, age_s: float, ratio: float) -> Burn:
    (calls, bad), (short_calls, short_bad) = counts(rule.long_s), counts(rule.short_s)
    return Burn(
        tier=rule.tier,
        severity=rule.severity,
        factor=rule.factor,
        long_s=rule.long_s,
        short_s=rule.short_s,
        covered_s=min(rule.long_s, age_s),
        burn_long=bad / max(calls, 1) / (1.0 - ratio),
        burn_short=short_bad / max(short_calls, 1) / (1.0 - ratio),
        calls=calls,
        bad=bad,
    )
