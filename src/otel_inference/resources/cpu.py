"""CPU time of the process tree over what it may use, and what held it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_inference.resources.cgroup import ControlGroups
from otel_inference.resources.pressure import pressure
from otel_inference.resources.process_tree import ProcessTree
from otel_inference.resources.processors import Idleness, allowed
from otel_inference.resources.reading import CPU, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from otel_inference.resources.cgroup import Throttling


class CpuProbe:
    """Share of the processors that this process and its descendants used since the last reading.

    What they may use is the smallest of the quotas of their control groups, the processors they may run
    on, and the machine. A first reading knows the limit only.

    Args:
        root: The folder that stands for `/`.
        tree: The processes.
        processors: Numbers of the processors that the processes with these ids may run on.
    """

    name = "cpu"

    def __init__(
        self,
        *,
        root: str = "/",
        tree: ProcessTree | None = None,
        processors: Callable[[Iterable[int]], Collection[int]] = allowed,
    ) -> None:
        self._groups = ControlGroups(root)
        self._tree = tree or ProcessTree()
        self._processors = processors
        self._idleness = Idleness(root)
        self._before: tuple[float, float, dict[str, Throttling]] | None = None

    def read(self, at_s: float) -> Reading:
        """See `reading.Probe.read`."""
        groups = self._groups.levels("cpu")
        quotas = {group.path: quota for group in groups if (quota := group.cpu_limit_cores())}
        processors = self._processors(self._tree.pids(at_s))
        limit_cores = min([float(len(processors)), *quotas.values()])
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
            cpu_busy_ratio=self._idleness.busy_ratio(processors),
            cpu_pressure=pressure(self._groups, "cpu"),
        )

    def close(self) -> None:
        """See `reading.Probe.close`."""
        self._before = None
        self._idleness.forget()

    def reset_after_fork(self) -> None:
        """See `reading.Probe.reset_after_fork`."""
        self._before = None
        self._idleness.forget()
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
