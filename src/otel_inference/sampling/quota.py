"""With what probability traces of each model are kept, such that the limits hold and counts stay honest.

A probability may depend on all that came before and on what is known of a call when it begins, but
never on the random bits that then decide. So every limit is looked at first and lowers the
probability; only where the hard one is met is a trace turned away that the bits had chosen, and its
weight goes to the next one of its model that is kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference.sampling.budget import Budget, Rate, fair_level
from otel_inference.sampling.threshold import probability_of, threshold_of

if TYPE_CHECKING:
    from collections.abc import Callable

REFRESH_S: Final = 0.1
"""How old a probability may be before it is computed anew."""

RARE_S: Final = 60.0
"""A model of which nothing has been kept for so long has its next trace kept: a floor of one a minute."""

_AIM: Final = 0.75
"""Part of the hard limit that probabilities aim at, so that chance rarely meets it."""

_MAX_QUOTAS: Final = 200
"""Models told apart; our own recorder keeps fewer names, but a span may be anybody's."""


class Kept(NamedTuple):
    """What a kept trace says of itself."""

    threshold: int | None
    """With what threshold it was kept; `None` where `adjusted_count` says it, or nothing can."""
    adjusted_count: float | None = None
    """For how many traces it stands, those included that were turned away before it."""


class Quota:
    """What is kept of one model, or of all traces that begin with no model's call.

    Attributes:
        model: Its name; empty for no model.
        arrivals: Traces since the last refresh; whoever decides adds to it.
        per_second: How many arrive.
        calm_threshold: The threshold where nothing may be boosted.
        threshold: The one with a boost. Random values below are not kept, except for `due_s` and cold calls.
        due_s: From when on the next trace is kept because the model is rare.
        lost: Weight of the traces that were turned away.
    """

    __slots__ = ("arrivals", "calm_threshold", "due_s", "lost", "model", "per_second", "rate", "threshold")

    def __init__(self, model: str, threshold: int, now_s: float, due_s: float) -> None:
        self.model = model
        self.arrivals = 0
        self.rate = Rate(now_s)
        self.per_second = 0.0
        self.calm_threshold = self.threshold = threshold
        self.due_s = due_s
        self.lost = 0.0


class Quotas:
    """The quotas of all models, under one boost and one limit. Not thread-safe.

    Args:
        ratio: Share of traces to keep while a model is well; `None` where another sampler decides
            that, which leaves the boosts and the hard limit.
        boost_per_second: Traces kept beyond that.
        max_per_second: Traces kept at most.
        is_unwell: Whether a model needs more of its traces kept.
    """

    def __init__(
        self,
        ratio: float | None,
        *,
        boost_per_second: float,
        max_per_second: float,
        is_unwell: Callable[[str], bool],
    ) -> None:
        self._ratio = ratio or 0.0
        """Where another sampler decides nothing is kept that it does not keep, but for boosts."""
        self._boost_per_second = boost_per_second
        self._is_unwell = is_unwell
        self._boost = Budget(boost_per_second)
        self._of_none = Quota("", threshold_of(self._ratio), 0.0, math.inf)
        self._quotas = {"": self._of_none}
        self.due_s = 0.0
        """When probabilities are to be computed anew."""
        self.limit(max_per_second)

    def limit(self, max_per_second: float) -> None:
        """Keep at most so many from now on."""
        self._max_per_second = max_per_second
        self._limit = Budget(max_per_second)

    def find(self, model: str) -> Quota | None:
        """The quota of `model`, if it has been seen; the empty name is for traces of no model."""
        return self._quotas.get(model)

    def of(self, model: str, now_s: float) -> Quota:
        """The quota of `model`, made when it is first seen; beyond the bound they count as of no model."""
        if model not in self._quotas and len(self._quotas) >= _MAX_QUOTAS:
            return self._of_none
        return self._quotas.setdefault(model, Quota(model, self._of_none.calm_threshold, now_s, -math.inf))

    def refresh(self, now_s: float) -> None:
        """Compute the probabilities from what has arrived."""
        self.due_s = now_s + REFRESH_S
        quotas = list(self._quotas.values())
        for quota in quotas:
            quota.per_second = quota.rate.add(quota.arrivals, now_s)
            quota.arrivals = 0
        boosts = self._boosts(quotas)
        wants = [max(self._ratio, boosts.get(quota.model, 0.0)) for quota in quotas]
        kept_per_second = [want * quota.per_second for want, quota in zip(wants, quotas, strict=True)]
        level = fair_level(kept_per_second, _AIM * self._max_per_second)
        for quota, want, kept in zip(quotas, wants, kept_per_second, strict=True):
            probability = want * _part(level, kept)
            quota.threshold = threshold_of(probability)
            quota.calm_threshold = threshold_of(min(self._ratio, probability))

    def _boosts(self, quotas: list[Quota]) -> dict[str, float]:
        """The probability of each model that is not well; they share the boost fairly."""
        unwell = [quota for quota in quotas if quota.model and self._is_unwell(quota.model)]
        level = fair_level([quota.per_second for quota in unwell], self._boost_per_second)
        return {quota.model: _part(level, quota.per_second) for quota in unwell}

    def decide(
        self, quota: Quota, random: int, now_s: float, *, cold: bool = False, base_keeps: bool = False
    ) -> Kept | None:
        """Whether to keep a trace.

        Args:
            quota: Of its model.
            random: Its 56 random bits.
            now_s: The present.
            cold: Whether it begins with a model's first call.
            base_keeps: Whether another sampler has decided to keep it already, with a probability of its own.

        Returns:
            What it says of itself, or `None` if it is not kept.
        """
        threshold = quota.calm_threshold
        if self._boost.has_room(quota.model, now_s):
            threshold = 0 if cold or now_s >= quota.due_s else quota.threshold
        if random < threshold and not base_keeps:
            return None
        weight = 1.0 if base_keeps else 1.0 / probability_of(threshold)
        if not self._limit.has_room(quota.model, now_s):
            quota.lost += weight
            return None
        self._limit.take(quota.model, now_s)
        if random < quota.calm_threshold and not base_keeps:
            self._boost.take(quota.model, now_s)
        if quota.due_s < math.inf:
            quota.due_s = now_s + RARE_S
        lost, quota.lost = quota.lost, 0.0
        return Kept(threshold) if lost == 0.0 else Kept(None, weight + lost)


def _part(level: float, want: float) -> float:
    """Which part of `want` remains below `level`.

    >>> _part(5.0, 20.0)
    0.25
    """
    return 1.0 if want <= level else level / want
