"""One server with one kind of service: every contender under the same calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.limiting import contenders
from benchmarks.limiting.bound import bound, small_first
from benchmarks.limiting.figures import Figures, figures, recovery_s
from benchmarks.limiting.oracle import hindsight
from benchmarks.limiting.simulation import simulate
from benchmarks.limiting.station import Fifo, ProcessorSharing, Station
from benchmarks.limiting.workload import LONGER, SERVICES, STEPS, Phase, Workload, workload

if TYPE_CHECKING:
    from collections.abc import Iterable

THRASH = 0.15
FIFO, SHARING = "fifo", "sharing"
BOUND, BOUND_SIZED, BOUND_SMALL = "bound, no size preferred", "the same, sizes seen", "bound, small first"
"""What no limiter can exceed; see `benchmarks.limiting.bound`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one contender reaches, over all seeds.

    Attributes:
        goodput: Calls done within the deadline, as a share of those of the best fixed limits with hindsight.
        work: The same in work.
        p99_s: 0.99 quantile of the time from arrival to end of the calls that were served; `None` for a bound.
        rejected: Share of the calls turned away, by phase.
        by_size: The same by quarter of the work, smallest first, and for the greatest tenth.
        back_s: Seconds after each step until 90 % of the goodput with hindsight is reached.
    """

    goodput: float
    work: float
    p99_s: float | None = None
    rejected: tuple[float, ...] = ()
    by_size: tuple[float, ...] = ()
    back_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A server, `workers` that take one call each from a queue or share them all, and what is asked of it."""

    station: str
    workers: int
    service: str

    phases: tuple[Phase, ...] = STEPS

    def build(self) -> Station:
        return Fifo(self.workers) if self.station == FIFO else ProcessorSharing(self.workers, THRASH)

    def run(
        self, seeds: Iterable[int], chosen: dict[str, contenders.DoorMaker]
    ) -> tuple[dict[str, Score], list[list[int]]]:
        """The scores by contender, and the limits by phase that hindsight chooses for each seed."""
        workloads = [workload(self.workers, SERVICES[self.service], seed, self.phases) for seed in seeds]
        best = [hindsight(calls, self.build) for calls in workloads]
        reached = [one.run for one in best]
        scores = {"hindsight": _score(workloads[0], reached, reached)}
        scores |= _bounds(workloads, reached)
        for name, make in chosen.items():
            runs = [figures(simulate(calls, self.build(), make(calls))) for calls in workloads]
            scores[name] = _score(workloads[0], runs, reached)
        return scores, [one.limits for one in best]

    def longer(self, seeds: Iterable[int], chosen: dict[str, contenders.DoorMaker]) -> dict[str, float]:
        """Share turned away once inputs are three times as long, with nothing overloaded."""
        workloads = [workload(self.workers, SERVICES[self.service], seed, LONGER) for seed in seeds]
        shares = {}
        for name, make in chosen.items():
            runs = [figures(simulate(calls, self.build(), make(calls))) for calls in workloads]
            shares[name] = sum(run.rejected[-1] for run in runs) / sum(run.arrived[-1] for run in runs)
        return shares


def chosen(station: str) -> dict[str, contenders.DoorMaker]:
    """All contenders that are worth a row."""
    names = contenders.OURS if station == SHARING else (contenders.GIVEN, contenders.BLIND)
    return {name: contenders.OURS[name] for name in names} | contenders.OTHERS


def _bounds(workloads: list[Workload], best: list[Figures]) -> dict[str, Score]:
    most = {
        BOUND: [bound(calls, sized=False) for calls in workloads],
        BOUND_SIZED: [bound(calls, sized=True) for calls in workloads],
        BOUND_SMALL: [small_first(calls) for calls in workloads],
    }
    good, work_s = sum(sum(run.good) for run in best), sum(sum(run.work_s) for run in best)
    return {
        name: Score(goodput=sum(calls for calls, _ in each) / good, work=sum(done_s for _, done_s in each) / work_s)
        for name, each in most.items()
    }


def _score(calls: Workload, runs: list[Figures], best: list[Figures]) -> Score:
    took = sorted(took_s for run in runs for took_s in run.took_s)
    phases = range(len(calls.phases))
    return Score(
        goodput=sum(sum(run.good) for run in runs) / sum(sum(run.good) for run in best),
        work=sum(sum(run.work_s) for run in runs) / sum(sum(run.work_s) for run in best),
        p99_s=took[int(0.99 * (len(took) - 1))],
        rejected=tuple(sum(run.rejected[p] for run in runs) / sum(run.arrived[p] for run in runs) for p in phases),
        by_size=tuple(sum(shares) / len(runs) for shares in zip(*(run.rejected_by_size for run in runs), strict=True)),
        back_s=tuple(recovery_s(runs, best, calls.edges_s())),
    )
