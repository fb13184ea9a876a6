"""Control groups of one process, of whichever version this machine has."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
_PERIOD_US: Final = 100_000


class NoGroupsError(RuntimeError):
    """Control groups cannot be made here."""


class Groups:
    """Limits on the processors and the memory of the processes that join, and a group of version 2 that tells of pressure.

    Args:
        name: Of the groups; they must not exist.
    """

    def __init__(self, name: str) -> None:
        self._is_v2 = (ROOT / "cgroup.controllers").exists()
        self._made: list[Path] = []
        if self._is_v2:
            parents = {"cpu": ROOT, "memory": ROOT}
        else:
            parents = {"cpu": ROOT / "cpu", "memory": ROOT / "memory"}
            if (ROOT / "unified" / "cgroup.procs").exists():
                parents["pressure"] = ROOT / "unified"
        self._folders = {what: parent / name for what, parent in parents.items()}
        try:
            if self._is_v2:
                (ROOT / "cgroup.subtree_control").write_text("+cpu +memory")
            for folder in dict.fromkeys(self._folders.values()):
                folder.mkdir()
                self._made.append(folder)
        except OSError as error:
            self.remove()
            msg = f"cannot make control groups, which takes root and a writable {ROOT}: {error}"
            raise NoGroupsError(msg) from error

    def doors(self) -> list[str]:
        """Files into which a process writes its id to join."""
        return [str(folder / "cgroup.procs") for folder in self._made]

    def limit_cores(self, cores: float) -> None:
        """Set the quota."""
        quota_us = round(cores * _PERIOD_US)
        if self._is_v2:
            (self._folders["cpu"] / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        else:
            (self._folders["cpu"] / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (self._folders["cpu"] / "cpu.cfs_quota_us").write_text(str(quota_us))

    def limit_memory(self, most_bytes: int) -> None:
        """Set the limit on memory."""
        (self._folders["memory"] / ("memory.max" if self._is_v2 else "memory.limit_in_bytes")).write_text(
            str(most_bytes)
        )

    def memory_bytes(self) -> int:
        """What its processes hold and have read from files."""
        usage = "memory.current" if self._is_v2 else "memory.usage_in_bytes"
        return int((self._folders["memory"] / usage).read_text())

    def remove(self) -> None:
        """Take the groups away, once their processes have ended."""
        for folder in self._made:
            for _ in range(50):
                with suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.1)
        self._made = []
