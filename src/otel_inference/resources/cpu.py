"""CPU time of the process tree over what it may use, and what held it back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from otel_inference.resources.cgroup import ControlGroups
from otel_inference.resources.pressure import pressure
from otel_inference.resources.process_tree import ProcessTree
from otel_inference.resources.reading import CPU, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_inference.resources.cgroup import Throttling

_MACHINE_CORES: Final = os.cpu_count() or 1


class CpuProbe:
    """Share of the processors that this process and its descendants used since the last reading.

    What they may use is the smallest of the quotas of their control groups, the processors they may run
    on, and the machine. A first reading knows the limit only.

    Args:
        root: The folder that stands for `/`.
        tree: The processes.
        cores: How many processors the processes with these ids may run on.
    """

    name = "cpu"

    def __init__(
        self,
        *,
        root: str = "/",
        tree: ProcessTree | None = None,
        cores: Callable[[Iterable[int]], int] | None = None,
    ) -> None:
        self._groups = ControlGroups(root)
        self._tree = tree or ProcessTree()
        self._cores = cores or affinity_cores
        self._before: tuple[float, float, dict[str, Throttling]] | None = None

    def read(self, at_s: float) -> Reading:
        """See `reading.Probe.read`."""
        groups = self._groups.levels("cpu")
        quotas = {group.path: quota for group in groups if (quota := group.cpu_limit_cores())}
        limit_cores = min([float(self._cores(self._tree.pids(at_s))), *quotas.values()])
        stopped = {group.path: seen for group in groups if group.path in quotas and (seen := group.throttling())}
        used_s = self._tree.cpu_s(at_s)
        before, self._before = self._before, (at_s, used_s, stopped)

        used_cores = ratio = throttled_s_per_s = None
        if before is not None and at_s > before[0]:
            elapsed_s = at_s - before[0]
            # Less than before: a descendant that nobody waits for is gone, and its time with it.
            used_cores = (used_s - before[1]) / elapsed_s if used_s >= before[1] else None
            ratio, throttled_s_per_s = _throttled(before[2], stopped, elapsed_s)
        return Reading(
            at_s=at_s,
            # More than all is an artefact: of clock ticks, or of a descendant found late.
            utilization={} if used_cores is None else {CPU: min(1.0, used_cores / limit_cores)},
            cpu_used_cores=used_cores,
            cpu_limit_cores=limit_cores,
            cpu_throttled_ratio=ratio,
            cpu_throttled_s_per_s=throttled_s_per_s,
            cpu_pressure=pressure(self._groups, "cpu"),
        )

    def close(self) -> None:
        """See `reading.Probe.close`."""
        self._before = None

    def reset_after_fork(self) -> None:
        """See `reading.Probe.reset_after_fork`."""
        self._before = None
        self._tree.reset_after_fork()


def _throttled(
    before: dict[str, Throttling], now: dict[str, Throttling], elapsed_s: float
) -> tuple[float | None, float | None]:
    """Share of periods and of time in which the group that was stopped most was stopped.

    A quota counts in the group that has it, which need not be the process's own: Kubernetes sets one on
    the container and one on its pod.
    """
    ratio = throttled_s_per_s = None
    for path in before.keys() & now.keys():
        old, new = before[path], now[path]
        periods = new.periods - old.periods
        if periods < 0:  # another group by the same name
            continue
        # No period began: the group was idle, and nothing was stopped.
        stopped = (new.throttled_periods - old.throttled_periods) / periods if periods else 0.0
        ratio = max(stopped, ratio or 0.0)
        throttled_s_per_s = max((new.throttled_s - old.throttled_s) / elapsed_s, throttled_s_per_s or 0.0)
    return ratio, throttled_s_per_s


def affinity_cores(pids: Iterable[int]) -> int:
    """How many processors the threads of this process and the processes `pids` may run on, all together.

    Threads of one process may be bound to processors of their own, as OpenMP does when it is told to
    (`OMP_PROC_BIND`): its first thread alone then says 1.
    """
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return _MACHINE_CORES
    allowed: set[int] = set()
    for each in (0, *pids, *_thread_ids()):
        try:
            allowed |= os.sched_getaffinity(each)
        except OSError:  # it has ended, or is not ours to ask
            continue
        if len(allowed) >= _MACHINE_CORES:
            break
    return len(allowed) or _MACHINE_CORES


def _thread_ids() -> Iterable[int]:
    try:
        yield from map(int, os.listdir("/proc/self/task"))  # noqa: PTH208 - names only
    except OSError:
        return
