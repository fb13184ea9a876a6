"""Resident memory of the process tree over what it may use, and how close its group is to its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.resources import _file
from otel_inference.resources.cgroup import ControlGroups
from otel_inference.resources.pressure import pressure
from otel_inference.resources.process_tree import ProcessTree
from otel_inference.resources.reading import MEMORY, Reading

if TYPE_CHECKING:
    from otel_inference.resources.cgroup import Group

_KIB: Final = 1024


class MemoryProbe:
    """Share of the memory limit that this process and its descendants hold.

    The limit is the smallest of those of their control groups and the machine's memory.

    Args:
        root: The folder that stands for `/`.
        tree: The processes.
    """

    name = "memory"

    def __init__(self, *, root: str = "/", tree: ProcessTree | None = None) -> None:
        self._groups = ControlGroups(root)
        self._tree = tree or ProcessTree()
        self._before: tuple[str, int] | None = None

    def read(self, at_s: float) -> Reading:
        """See `reading.Probe.read`."""
        groups = self._groups.levels("memory")
        limits = {group: limit for group in groups if (limit := group.memory_limit_bytes())}
        highs = [high for group in groups if (high := group.memory_high_bytes())]
        machine = _file.numbers(f"{self._groups.root}/proc/meminfo")
        machine_bytes = machine.get("MemTotal", 0) * _KIB
        limit_bytes = min([*limits.values(), *([machine_bytes] if machine_bytes else [])], default=None)
        # The group whose limit binds is the one that runs out.
        group = min(limits, key=lambda each: limits[each]) if limits else next(iter(groups), None)
        working_set_bytes = group.memory_working_set_bytes() if group else None
        in_use_bytes = working_set_bytes if limits else _taken_bytes(machine)
        rss_bytes = self._tree.rss_bytes(at_s)
        if in_use_bytes is not None and len(self._tree.pids(at_s)) > 1:
            rss_bytes = min(rss_bytes, in_use_bytes)  # forked children share pages, which count for each of them
        return Reading(
            at_s=at_s,
            utilization={MEMORY: rss_bytes / limit_bytes} if limit_bytes else {},
            rss_bytes=rss_bytes,
            memory_limit_bytes=limit_bytes,
            memory_high_bytes=min(highs, default=None),
            memory_working_set_bytes=working_set_bytes,
            memory_limit_hits=self._hits(group) if group else None,
            memory_pressure=pressure(self._groups, "memory"),
        )

    def close(self) -> None:
        """See `reading.Probe.close`."""
        self._before = None

    def reset_after_fork(self) -> None:
        """See `reading.Probe.reset_after_fork`."""
        self._before = None
        self._tree.reset_after_fork()

    def _hits(self, group: Group) -> int | None:
        hits = group.memory_limit_hits()
        before, self._before = self._before, None if hits is None else (group.path, hits)
        if hits is None or before is None or before[0] != group.path:
            return None
        return hits - before[1] if hits >= before[1] else None


def _taken_bytes(machine: dict[str, int]) -> int | None:
    """What of the machine's memory is in use, by `/proc/meminfo`."""
    if not {"MemTotal", "MemAvailable"} <= machine.keys():
        return None
    return (machine["MemTotal"] - machine["MemAvailable"]) * _KIB
