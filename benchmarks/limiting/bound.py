"""The most that any limiter can reach, which says which aims can be reached at all.

In a phase of d seconds, c workers at s times their full speed do at most c * s * d seconds of work, and those who
share them no more. A call that takes longer than the deadline when it is alone is late whatever a limiter does. Hence:

- The work done in time is at most c * s * d, and at most that of the calls that are not too long (`sized`, work).
- A limiter that sees no size cannot tell calls apart: it serves the same share of all of them, the calls that are too
  long in vain. At most a share c * s * d / (all the work) is served (not `sized`).
- One that sees sizes but prefers none serves the same share of all that are not too long (`sized`, calls).
- The most calls are done by who serves the smallest first (`small_first`); then large ones are never served in overload.

Never idle and never late is more than a limiter can do that does not know the future. Left out is what arrives in one
phase and is done in the next: at most what is done in one deadline, less than 1 % of a phase.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from benchmarks.limiting.workload import DEADLINE_S, Phase, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator


def bound(workload: Workload, *, sized: bool, deadline_s: float = DEADLINE_S) -> tuple[float, float]:
    """Calls, and work, done in time by a limiter that prefers no size.

    Args:
        workload: What arrives.
        sized: Whether the sizes are seen, so that calls that are too long are not served.
        deadline_s: The deadline.
    """
    good = done_s = 0.0
    for capacity_s, phase, works_s in _phases(workload):
        feasible_s = [work_s for work_s in works_s if work_s / phase.speed <= deadline_s]
        share = min(1.0, capacity_s / sum(feasible_s if sized else works_s))
        good += share * len(feasible_s)
        done_s += share * sum(feasible_s)
    return good, done_s


def small_first(workload: Workload, deadline_s: float = DEADLINE_S) -> tuple[float, float]:
    """Calls done in time by one that serves the smallest first, and the most work that any does.

    Args:
        workload: What arrives.
        deadline_s: The deadline.
    """
    good = 0.0
    for capacity_s, phase, works_s in _phases(workload):
        feasible_s = sorted(work_s for work_s in works_s if work_s / phase.speed <= deadline_s)
        good += sum(so_far_s <= capacity_s for so_far_s in itertools.accumulate(feasible_s))
    return good, bound(workload, sized=True, deadline_s=deadline_s)[1]


def _phases(workload: Workload) -> Iterator[tuple[float, Phase, list[float]]]:
    """For each phase the work that can be done, and the work of each call that arrives."""
    calls = iter(zip(workload.arrivals_s, workload.work_s, strict=True))
    arrival_s, work_s = next(calls)
    for phase, end_s in zip(workload.phases, workload.edges_s()[1:], strict=True):
        works_s = []
        while arrival_s < end_s:
            works_s.append(work_s)
            arrival_s, work_s = next(calls, (float("inf"), 0.0))
        yield workload.workers * phase.speed * phase.duration_s, phase, works_s
