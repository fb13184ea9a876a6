"""Control groups of the process under test and of what hinders it, of whichever version this machine has.

Both are below one group that goes before the rest of the machine, so that other work on it hardly shows.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
SUBJECT: Final = "subject"
OTHERS: Final = "others"
_PERIOD_US: Final = 100_000
_OTHERS_WEIGH: Final = 2
"""Times what the process under test does."""


class NoGroupsError(RuntimeError):
    """Control groups cannot be made here."""


class Groups:
    """Two groups: limits bind those who join `SUBJECT`; those who join `OTHERS` compete with them for processors.

    Args:
        name: Of the group above them; it must not exist.
    """

    def __init__(self, name: str) -> None:
        self._is_v2 = (ROOT / "cgroup.controllers").exists()
        hierarchies = {"cpu": ROOT, "memory": ROOT} if self._is_v2 else {"cpu": ROOT / "cpu", "memory": ROOT / "memory"}
        if not self._is_v2 and (ROOT / "unified" / "cgroup.procs").exists():
            hierarchies["pressure"] = ROOT / "unified"  # has no limits, and tells how long tasks wait
        self._tops = {what: hierarchy / name for what, hierarchy in hierarchies.items()}
        self._made: list[Path] = []
        try:
            self._make()
        except OSError as error:
            self.remove()
            msg = f"cannot make control groups, which takes root and a writable {ROOT}: {error}"
            raise NoGroupsError(msg) from error

    def _make(self) -> None:
        for top in dict.fromkeys(self._tops.values()):
            if self._is_v2:
                (ROOT / "cgroup.subtree_control").write_text("+cpu +memory")
            top.mkdir()
            self._made.append(top)
            if self._is_v2:
                (top / "cgroup.subtree_control").write_text("+cpu +memory")
            for leaf in (top / SUBJECT, top / OTHERS):
                leaf.mkdir()
                self._made.append(leaf)
        weight, usual, most = ("cpu.weight", 100, 10_000) if self._is_v2 else ("cpu.shares", 1024, 262_144)
        (self._tops["cpu"] / weight).write_text(str(most))
        (self._tops["cpu"] / OTHERS / weight).write_text(str(_OTHERS_WEIGH * usual))

    def within(self, leaf: str, *arguments: str) -> list[str]:
        """The command that runs Python with these arguments as a member of a group from its first moment on."""
        doors = [str(top / leaf / "cgroup.procs") for top in dict.fromkeys(self._tops.values())]
        join = f"import os, sys\nfor door in {doors}: open(door, 'w').write(str(os.getpid()))\n"
        return [sys.executable, "-c", f"{join}os.execv(sys.executable, [sys.executable, *sys.argv[1:]])", *arguments]

    def limit_cores(self, cores: float) -> None:
        """Set the quota."""
        group, quota_us = self._tops["cpu"] / SUBJECT, round(cores * _PERIOD_US)
        if self._is_v2:
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))

    def limit_memory(self, most_bytes: int) -> None:
        """Set the limit on memory."""
        limit = "memory.max" if self._is_v2 else "memory.limit_in_bytes"
        (self._tops["memory"] / SUBJECT / limit).write_text(str(most_bytes))

    def memory_bytes(self) -> int:
        """What those under test hold, with the pages of files that they read."""
        usage = "memory.current" if self._is_v2 else "memory.usage_in_bytes"
        return int((self._tops["memory"] / SUBJECT / usage).read_text())

    def shed_memory(self) -> None:
        """Have the kernel take back what it can of that; what is in use comes again."""
        group = self._tops["memory"] / SUBJECT
        with suppress(OSError):  # it took back less than it was asked for
            if self._is_v2:
                (group / "memory.reclaim").write_text(str(self.memory_bytes()))
            else:
                (group / "memory.force_empty").write_text("0")

    def remove(self) -> None:
        """Take the groups away, once their processes have ended."""
        for folder in reversed(self._made):
            for _ in range(50):
                with suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.1)
        self._made = []
