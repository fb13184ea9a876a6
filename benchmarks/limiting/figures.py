"""What a run is judged by."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.limiting.workload import DEADLINE_S

if TYPE_CHECKING:
    from benchmarks.limiting.simulation import Outcome

GRAIN_S = 0.5
SPAN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one run.

    Attributes:
        good: Calls done within the deadline, by phase in which they ended.
        work_s: Work of those, by phase.
        grains: Calls done within the deadline, by half second in which they ended.
        arrived: Calls by phase in which they arrived.
        rejected: Of those, the ones that never ended.
        took_s: Time from arrival to end of each served call, ascending.
        rejected_by_size: Share turned away of each quarter of the calls by work, smallest first; of the greatest tenth.
    """

    good: list[int]
    work_s: list[float]
    grains: list[int]
    arrived: list[int]
    rejected: list[int]
    took_s: list[float]
    rejected_by_size: list[float]

    def p99_s(self) -> float:
        return self.took_s[int(0.99 * (len(self.took_s) - 1))] if self.took_s else math.nan


def figures(outcome: Outcome, deadline_s: float = DEADLINE_S) -> Figures:
    """Judge a run."""
    workload = outcome.workload
    edges = workload.edges_s()
    phases = len(workload.phases)
    good, work_s = [0] * phases, [0.0] * phases
    arrived, rejected = [0] * phases, [0] * phases
    grains = [0] * math.ceil(edges[-1] / GRAIN_S)
    took = []
    phase = 0
    for arrival_s, end_s, call_s in zip(workload.arrivals_s, outcome.end_s, workload.work_s, strict=True):
        while arrival_s >= edges[phase + 1]:
            phase += 1
        arrived[phase] += 1
        if end_s == math.inf:
            rejected[phase] += 1
            continue
        took.append(end_s - arrival_s)
        if end_s - arrival_s <= deadline_s:
            ended = phase
            while end_s >= edges[ended + 1]:
                ended += 1
            good[ended] += 1
            work_s[ended] += call_s
            grains[int(end_s / GRAIN_S)] += 1
    took.sort()
    return Figures(
        good=good, work_s=work_s, grains=grains, arrived=arrived, rejected=rejected, took_s=took,
        rejected_by_size=_by_size(outcome),
    )  # fmt: skip


def _by_size(outcome: Outcome) -> list[float]:
    ranked = sorted(zip(outcome.workload.work_s, outcome.end_s, strict=True), key=lambda pair: pair[0])
    cuts = [len(ranked) * percent // 100 for percent in (0, 25, 50, 75, 100)]
    parts = [ranked[begin:end] for begin, end in itertools.pairwise(cuts)] + [ranked[len(ranked) * 9 // 10 :]]
    return [sum(end_s == math.inf for _, end_s in part) / max(1, len(part)) for part in parts]


def recovery_s(of: list[Figures], best: list[Figures], edges_s: list[float]) -> list[float]:
    """For each step the time until five seconds of all the runs together hold 90 % of the good calls of the best."""
    mine = [sum(column) for column in zip(*(one.grains for one in of), strict=True)]
    theirs = [sum(column) for column in zip(*(one.grains for one in best), strict=True)]
    span = int(SPAN_S / GRAIN_S)
    times = []
    for begin_s, end_s in itertools.pairwise(edges_s[1:]):
        first, last = int(begin_s / GRAIN_S), int(end_s / GRAIN_S)
        late = math.inf
        for grain in range(first, last - span + 1):
            if sum(mine[grain : grain + span]) >= 0.9 * sum(theirs[grain : grain + span]):
                late = (grain - first) * GRAIN_S
                break
        times.append(late)
    return times
