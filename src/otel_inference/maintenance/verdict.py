"""Whether a run of an action helped: health before it against health after it had settled. Pure.

A verdict says what followed, not what caused it: load may have changed by itself. Hence a change has
to be large (20 %) and surely more than chance before it is one, and few calls are no verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from otel_inference.finding import FindingKind
from otel_inference.health.window import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_inference.health.window import WindowSnapshot
    from otel_inference.maintenance.figures import Figures

    _Check = Callable[[Figures, Figures], "Judgement"]

EFFECT: Final = 1.2
"""Ratio of two durations or rates from which they differ."""
RESOURCE_EFFECT: Final = 1.1
"""Ratio of two utilizations from which they differ."""
RSS_FELL: Final = 0.95
"""Memory that fell to this has been given back; a leak only ever grows."""
RSS_ROSE: Final = 1.2
"""A leak goes on whatever is done, so that only a rise beyond this is held against an action."""
MIN_CALLS: Final = 30
"""Calls before and after, below which nothing is said of them."""
_QUANTILES: Final = ((0.99, 1000), (0.95, 200), (0.9, 100))
"""Quantiles, and the calls from which ten lie beyond them."""
_Z_99: Final = 2.5758293035489004
"""Two-sided 99 % quantile of the normal distribution. Calls that follow one another are alike, and an action may be
undone for it, hence more than 95 %."""
_Z_APART: Final = _Z_99 / math.sqrt(2)
"""Half width of two intervals that, where they do not overlap, differ with a confidence of 99 %."""
_MIN_CALLS_OF_SIZE: Final = 3
_WIDEST: Final = 2.0
"""Largest standard deviation of log durations that is taken for one; more is several kinds of calls mixed."""


class Verdict(StrEnum):
    """How health is after a run, against before."""

    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    WORSE = "worse"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and the figure it rests on."""

    verdict: Verdict
    reason: str


def judge(kind: FindingKind | str, subject: str | None, before: Figures, after: Figures) -> Judgement:
    """Whether what the finding is about got better, and nothing else that counts got worse.

    Args:
        kind: Kind of the finding that set the action off; its figure decides.
        subject: The finding's subject: the resource of a saturation, the objective of a burn.
        before: When the run began.
        after: When it had settled.

    >>> from otel_inference.maintenance.figures import Figures
    >>> judge("memory_growth", None, Figures(rss_bytes=2 << 30), Figures(rss_bytes=1 << 30)).reason
    'resident memory 1024 MiB, before 2048 MiB'
    """
    kind = FindingKind(kind)
    changes = [check(before, after) for check in _checks(kind, subject)]
    others = [check(before, after) for check in (_errors, _standstill, *((_service,) if kind in _MAY_SLOW else ()))]
    worse = [change for change in (*changes, *others) if change.verdict is Verdict.WORSE]
    better = [change for change in changes if change.verdict is Verdict.IMPROVED]
    return (worse or better or changes)[0]


_MAY_SLOW: Final = frozenset({FindingKind.SATURATION, FindingKind.MEMORY_GROWTH, FindingKind.STALL})
"""What is not about durations itself, so that they are looked at too. Where calls failed they are not: a call that
succeeds again takes longer than one that fails at once."""


def _checks(kind: FindingKind, subject: str | None) -> tuple[_Check, ...]:
    if kind is FindingKind.SATURATION:
        return (lambda before, after: _utilization(subject, before, after),)
    if kind is FindingKind.SLO_BURN:
        if subject is None:
            return (_errors, _tail)
        return (_errors,) if "error" in subject else (_tail,)
    return _BY_KIND[kind]


def _compared(what: str, ratio: float, effect: float, *, sure: bool = True) -> Judgement:
    """The verdict on a figure that is to be small and became `ratio` times as large."""
    if sure and ratio >= effect:
        return Judgement(Verdict.WORSE, what)
    if sure and ratio <= 1 / effect:
        return Judgement(Verdict.IMPROVED, what)
    return Judgement(Verdict.UNCHANGED, what)


def _too_few(before: int, after: int) -> Judgement:
    return Judgement(Verdict.UNCHANGED, f"too few calls to compare: {after}, before {before}")


def _errors(before: Figures, after: Figures) -> Judgement:
    """By Wilson intervals that do not overlap."""
    what = f"error ratio {_ratio(after.errors, after.calls):.3g}, before {_ratio(before.errors, before.calls):.3g}"
    if min(before.calls, after.calls) < MIN_CALLS:
        return _too_few(before.calls, after.calls)
    low_before, high_before = wilson_interval(before.errors, before.calls)
    low_after, high_after = wilson_interval(after.errors, after.calls)
    if low_after > high_before:
        return Judgement(Verdict.WORSE, what)
    return Judgement(Verdict.IMPROVED if high_after < low_before else Verdict.UNCHANGED, what)


def _standstill(before: Figures, after: Figures) -> Judgement:
    """Calls ended before, and now they only run."""
    stands = before.calls >= MIN_CALLS and after.calls == 0 and after.active_calls > 0
    what = f"no call ended, {after.active_calls} run"
    return Judgement(Verdict.WORSE if stands else Verdict.UNCHANGED, what)


def _service(before: Figures, after: Figures) -> Judgement:
    """By the mean duration of calls of the same model and size, so that other inputs are no slowdown.

    Observed over expected, where the calls after are expected to take what calls of their size took before
    (indirect standardisation, as of mortality ratios). What chance does to it is taken from the spread of
    log durations, as if those were normal.
    """
    calls = expected_s = spent_s = 0.0
    sizes_before, sizes_after = _sizes(before), _sizes(after)
    for key in sizes_before.keys() & sizes_after.keys():
        (calls_before, total_before_s), (calls_after, total_after_s) = sizes_before[key], sizes_after[key]
        if calls_before >= _MIN_CALLS_OF_SIZE:
            calls += calls_after
            expected_s += calls_after * total_before_s / calls_before
            spent_s += total_after_s
    one, other = before.merged(), after.merged()
    if one is None or other is None or min(one.warm_calls, calls) < MIN_CALLS or expected_s <= 0 or spent_s <= 0:
        return _too_few(0 if one is None else one.warm_calls, int(calls))
    ratio = spent_s / expected_s
    error = math.sqrt(_relative_variance(one) / one.warm_calls + _relative_variance(other) / calls)
    what = f"calls of the same size take {ratio:.3g} times as long as before"
    return _compared(what, ratio, EFFECT, sure=abs(math.log(ratio)) > _Z_99 * error)


def _sizes(figures: Figures) -> Mapping[tuple[str, float | None], tuple[int, float]]:
    """Warm calls and the sum of their durations by model and size; those of unknown size under `None`."""
    found: dict[tuple[str, float | None], tuple[int, float]] = {}
    for model, window in figures.windows.items():
        calls, total_s = window.warm_calls, window.warm_total_s
        for size in window.by_size:
            found[model, size.at_least] = (size.calls, size.total_s)
            calls -= size.calls
            total_s -= size.total_s
        if calls:
            found[model, None] = (calls, max(0.0, total_s))
    return found


def _relative_variance(window: WindowSnapshot) -> float:
    """Square of the coefficient of variation of lognormal durations: exp(sigma^2) - 1."""
    low_s, high_s = window.sketch.quantiles((0.1587, 0.8413))
    return math.expm1(min(_WIDEST, math.log(high_s / low_s) / 2) ** 2)


def _tail(before: Figures, after: Figures) -> Judgement:
    """By the highest quantile that the calls allow, its intervals by order statistics apart."""
    one, other = before.merged(), after.merged()
    calls = 0 if one is None or other is None else min(one.warm_calls, other.warm_calls)
    chosen = next((q for q, least in _QUANTILES if calls >= least), None)
    if chosen is None or one is None or other is None:
        return _too_few(before.calls, after.calls)
    (low_one_s, one_s, high_one_s), (low_s, other_s, high_s) = _interval(one, chosen), _interval(other, chosen)
    what = f"p{100 * chosen:.0f} {other_s:.3g} s, before {one_s:.3g} s"
    return _compared(what, other_s / one_s, EFFECT, sure=low_s > high_one_s or high_s < low_one_s)


def _interval(window: WindowSnapshot, q: float) -> tuple[float, ...]:
    half = _Z_APART * math.sqrt(q * (1 - q) / window.warm_calls)
    return window.sketch.quantiles((max(0.0, q - half), q, min(1.0, q + half)))


def _throughput(before: Figures, after: Figures) -> Judgement:
    """By counts as if calls came by chance, so that the logarithm of their ratio has variance 1/n + 1/m."""
    one, other = before.merged(), after.merged()
    if one is None or other is None or before.calls + after.calls < MIN_CALLS:
        return _too_few(before.calls, after.calls)
    what = f"{other.throughput:.3g} calls/s, before {one.throughput:.3g}"
    # Half a call more on both sides lets none at all be compared too.
    rate_one, rate_other = (0.5 + one.calls) / (one.covered_s or 1), (0.5 + other.calls) / (other.covered_s or 1)
    error = math.sqrt(1 / (0.5 + one.calls) + 1 / (0.5 + other.calls))
    ratio = rate_one / rate_other
    return _compared(what, ratio, EFFECT, sure=abs(math.log(ratio)) > _Z_99 * error)


def _utilization(resource: str | None, before: Figures, after: Figures) -> Judgement:
    """By the saturated resource; where it cannot be read, nothing is said."""
    one, other = before.utilization.get(resource or ""), after.utilization.get(resource or "")
    if not one or other is None:
        return Judgement(Verdict.UNCHANGED, f"the utilization of {resource} is not known")
    return _compared(f"{resource} {other:.0%} used, before {one:.0%}", other / one, RESOURCE_EFFECT)


def _oldest_call(before: Figures, after: Figures) -> Judgement:
    """By whether the calls that hung are gone."""
    what = f"the oldest running call is {after.oldest_active_s:.3g} s old, before {before.oldest_active_s:.3g} s"
    gone = after.oldest_active_s < before.oldest_active_s
    return Judgement(Verdict.IMPROVED if gone else Verdict.UNCHANGED, what)


def _memory(before: Figures, after: Figures) -> Judgement:
    """By resident memory."""
    if not before.rss_bytes or after.rss_bytes is None:
        return Judgement(Verdict.UNCHANGED, "resident memory is not known")
    what = f"resident memory {after.rss_bytes / 2**20:.0f} MiB, before {before.rss_bytes / 2**20:.0f} MiB"
    ratio = after.rss_bytes / before.rss_bytes
    if ratio <= RSS_FELL:
        return Judgement(Verdict.IMPROVED, what)
    return Judgement(Verdict.WORSE if ratio >= RSS_ROSE else Verdict.UNCHANGED, what)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


_BY_KIND: Final[Mapping[FindingKind, tuple[_Check, ...]]] = {
    FindingKind.LATENCY_SHIFT: (_service,),
    FindingKind.BOTTLENECK: (_service,),
    FindingKind.ERROR_BURST: (_errors,),
    FindingKind.THROUGHPUT_DROP: (_throughput,),
    FindingKind.INPUT_SHIFT: (_tail,),
    FindingKind.STALL: (_oldest_call,),
    FindingKind.MEMORY_GROWTH: (_memory,),
}
