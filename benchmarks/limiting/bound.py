"""The most that a limiter can reach which does not prefer small calls."""

from __future__ import annotations

from benchmarks.limiting.workload import DEADLINE_S, Workload


def bound(workload: Workload, *, sized: bool, deadline_s: float = DEADLINE_S) -> tuple[float, float]:
    """Calls, and work, done in time by a server that is never idle while there is work and whose calls never wait.

    Every call has the same chance to be served, but those that take longer than the deadline even so: with `sized`
    none of them is served, without it as many as of the others, in vain.

    Args:
        workload: What arrives.
        sized: Whether the sizes are seen.
        deadline_s: The deadline.
    """
    good = done_s = 0.0
    edges = workload.edges_s()
    arrived = iter(zip(workload.arrivals_s, workload.work_s, strict=True))
    arrival_s, work_s = next(arrived)
    for phase, end_s in zip(workload.phases, edges[1:], strict=True):
        every_s = feasible_s = 0.0
        feasible = 0
        while arrival_s < end_s:
            every_s += work_s
            if work_s / phase.speed <= deadline_s:
                feasible_s += work_s
                feasible += 1
            arrival_s, work_s = next(arrived, (float("inf"), 0.0))
        capacity_s = workload.workers * phase.speed * phase.duration_s
        share = min(1.0, capacity_s / (feasible_s if sized else every_s))
        good += share * feasible
        done_s += share * feasible_s
    return good, done_s
