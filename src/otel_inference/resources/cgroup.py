"""The control groups that bind this process, version 1, version 2 or both, and what they say.

A process has one group for each controller, and every group above that one binds it too: the smallest
limit wins. `/proc/self/cgroup` names the group, `/proc/self/mountinfo` tells which part of the hierarchy
is mounted where; in a container that part is often the group itself. Formats are those of the kernel's
`Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/`, tested on trees written after them.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Final

from otel_inference.resources import _file

_UNIFIED: Final = ""
"""What `/proc/self/cgroup` has in place of controller names for version 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttling:
    """How often a quota stopped a group, since the group was made."""

    periods: int
    throttled_periods: int
    throttled_s: float
    """Summed over processors."""


@dataclass(frozen=True, slots=True)
class Group:
    """One control group's folder. What it does not say is `None`."""

    path: str
    is_v2: bool

    def cpu_limit_cores(self) -> float | None:
        """Processors' worth of time that the group may use."""
        if self.is_v2:
            quota_text, _, period_text = (_file.text(f"{self.path}/cpu.max") or "").partition(" ")
        else:
            quota_text = _file.text(f"{self.path}/cpu.cfs_quota_us") or ""
            period_text = _file.text(f"{self.path}/cpu.cfs_period_us") or ""
        try:
            quota_us, period_us = int(quota_text), int(period_text)
        except ValueError:  # "max", or nothing
            return None
        return quota_us / period_us if quota_us > 0 and period_us > 0 else None

    def throttling(self) -> Throttling | None:
        """What its quota did."""
        stat = _file.numbers(f"{self.path}/cpu.stat")
        name, unit_s = ("throttled_usec", 1e-6) if self.is_v2 else ("throttled_time", 1e-9)
        try:
            return Throttling(
                periods=stat["nr_periods"],
                throttled_periods=stat["nr_throttled"],
                throttled_s=stat[name] * unit_s,
            )
        except KeyError:
            return None

    def memory_limit_bytes(self) -> int | None:
        """Memory that the group may use; version 1 says a huge number for none."""
        return _file.number(f"{self.path}/{'memory.max' if self.is_v2 else 'memory.limit_in_bytes'}")

    def memory_high_bytes(self) -> int | None:
        """Memory above which the group is slowed down; version 2 only."""
        return _file.number(f"{self.path}/memory.high") if self.is_v2 else None

    def memory_working_set_bytes(self) -> int | None:
        """Memory that cannot be had back easily: usage without the inactive file pages.

        Usage alone counts the page cache, so that reading a large model from disk would look like being
        short of memory. The kubelet evicts by this figure, and `docker stats` shows it.
        """
        usage, inactive = (
            ("memory.current", "inactive_file") if self.is_v2 else ("memory.usage_in_bytes", "total_inactive_file")
        )
        used_bytes = _file.number(f"{self.path}/{usage}")
        droppable_bytes = _file.numbers(f"{self.path}/memory.stat").get(inactive)
        if used_bytes is None or droppable_bytes is None:
            return None
        return max(0, used_bytes - droppable_bytes)

    def memory_limit_hits(self) -> int | None:
        """Times that it ran into its limit, or into `memory.high`, since it was made."""
        if not self.is_v2:
            return _file.number(f"{self.path}/memory.failcnt")
        events = _file.numbers(f"{self.path}/memory.events")
        return events["high"] + events["max"] if events.keys() >= {"high", "max"} else None


class ControlGroups:
    """The groups that this process is in, found again when it was moved.

    Args:
        root: The folder that stands for `/`; tests give a captured tree.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root.rstrip("/")
        self._membership: str | None = None
        self._levels: dict[str, tuple[Group, ...]] = {}

    def levels(self, controller: str) -> tuple[Group, ...]:
        """Groups that bind the process by `controller`, its own first; empty where there are none.

        Args:
            controller: `cpu` or `memory`.
        """
        self._refresh()
        return self._levels.get(controller) or self._levels.get(_UNIFIED, ())

    def unified(self) -> tuple[Group, ...]:
        """Its groups of version 2, whether or not they have any controller; its own first."""
        self._refresh()
        return self._levels.get(_UNIFIED, ())

    def _refresh(self) -> None:
        membership = _file.text(f"{self.root}/proc/self/cgroup")
        if membership == self._membership:
            return
        mounts = _mounts(self.root)
        self._levels = {}
        for line in (membership or "").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            for controller in controllers.split(",") if path.startswith("/") else ():
                if controller in mounts:
                    self._levels[controller] = _levels(mounts[controller], path, is_v2=controller == _UNIFIED)
        self._membership = membership


@dataclass(frozen=True, slots=True)
class _Mount:
    path: str
    """Where it is, below our root."""
    top: str
    """The group that is seen there."""


def _mounts(root: str) -> dict[str, _Mount]:
    """Where each controller's hierarchy is mounted; version 2 is under `_UNIFIED`."""
    found: dict[str, _Mount] = {}
    for line in (_file.text(f"{root}/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        where, what = before.split(), after.split()
        if len(where) < 5 or len(what) < 3 or what[0] not in {"cgroup", "cgroup2"}:  # noqa: PLR2004 - columns used
            continue
        mount = _Mount(path=root + where[4].replace("\\040", " "), top=where[3])
        for controller in [_UNIFIED] if what[0] == "cgroup2" else what[2].split(","):
            found.setdefault(controller, mount)
    return found


def _levels(mount: _Mount, path: str, *, is_v2: bool) -> tuple[Group, ...]:
    """The group at `path` of a hierarchy and those above it that can be seen, lowest first."""
    if ".." in path.split("/"):  # outside of what the process's namespace shows: nothing seen here binds it
        return ()
    below = posixpath.relpath(path, mount.top) if mount.top.startswith("/") and ".." not in mount.top else "."
    if below.startswith(".."):  # another namespace's path: the mount is the container's own group
        below = "."
    parts = [] if below == "." else below.split("/")
    return tuple(Group("/".join([mount.path, *parts[:depth]]), is_v2) for depth in range(len(parts), -1, -1))
