"""The best fixed limit on the calls in flight, chosen for each phase by someone who has seen the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.limiting.figures import Figures, figures
from benchmarks.limiting.limits import Fixed, InFlight, Scheduled
from benchmarks.limiting.simulation import simulate
from benchmarks.limiting.workload import DEADLINE_S, Workload

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.limiting.station import Station


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindsight:
    """The best that fixed limits reach.

    Attributes:
        limits: By phase.
        run: What they reach.
    """

    limits: list[int]
    run: Figures


def hindsight(workload: Workload, station: Callable[[], Station], deadline_s: float = DEADLINE_S) -> Hindsight:
    """Try limits from 1 up, take the best of each phase, and run once more with those."""
    tried: dict[int, Figures] = {}

    def good(limit: int, phase: int) -> int:
        if limit not in tried:
            tried[limit] = figures(simulate(workload, station(), InFlight(Fixed(limit))), deadline_s)
        return tried[limit].good[phase]

    limits = [
        _best(lambda limit, phase=phase: good(limit, phase), workload.workers) for phase in range(len(workload.phases))
    ]
    run = figures(simulate(workload, station(), Scheduled(limits, workload.edges_s())), deadline_s)
    return Hindsight(limits=limits, run=run)


def _best(good: Callable[[int], int], workers: int) -> int:
    """The limit with the most good calls: a coarse grid, then its neighbourhood."""
    grid = sorted({max(1, round(workers * share)) for share in (0.75, 1, 1.25, 1.5, 2, 3, 4, 6, 8, 11)} | {1, 2, 3})
    best = max(grid, key=good)
    step = max(1, best // 8)
    for limit in range(best - 2 * step, best + 2 * step + 1, step):
        if limit > 0 and good(limit) > good(best):
            best = limit
    return best
