"""The process under test as its tester sees it: started, asked, listened to, and ended."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.injected.groups import SUBJECT, Groups

if TYPE_CHECKING:
    from types import TracebackType

START_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Change:
    """A finding that opened, changed or closed."""

    event: str
    key: str
    explained_by: str | None
    severity: str
    evidence: dict[str, object] = field(hash=False)
    at_s: float


class Subject:
    """A serving process in control groups of its own, on one core.

    Args:
        core: The core.
    """

    def __init__(self, core: int) -> None:
        self.core = core
        self.groups = Groups(f"otel-inference-{os.getpid()}")
        self._folder = tempfile.TemporaryDirectory()
        self._weights = Path(self._folder.name) / "weights.pt"
        self._changes: list[Change] = []
        self._open: set[str] = set()
        self._ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process and leave nothing behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.groups.remove()
        self._folder.cleanup()

    @property
    def weights_bytes(self) -> int:
        """Size of the mapped file."""
        return self._weights.stat().st_size

    def _start(self) -> None:
        self.groups.limit_cores(1.0)
        options = ("--core", str(self.core), "--weights", str(self._weights))
        command = self.groups.within(SUBJECT, "-m", "benchmarks.injected.server", *options)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._listen, daemon=True).start()
        if not self._ready.wait(START_S):
            msg = f"the process did not serve within {START_S:.0f} s"
            raise RuntimeError(msg)

    def ask(self, trouble: str) -> None:
        """Let the process be in that trouble from now on."""
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(f"{trouble}\n")
        stdin.flush()

    def used_cores(self, seconds: float) -> float:
        """Processors that it uses now."""
        before = self._cpu_s()
        time.sleep(seconds)
        return (self._cpu_s() - before) / seconds

    def changes(self, since_s: float) -> list[Change]:
        """What was found since then."""
        return [change for change in [*self._changes] if change.at_s >= since_s]

    @property
    def open(self) -> frozenset[str]:
        """Keys of the findings that are open."""
        return frozenset(self._open)

    def rest(self, seconds: float) -> None:
        """Let it serve for a while.

        Raises:
            RuntimeError: If it ended.
        """
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._running()
            time.sleep(min(1.0, left_s))

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            msg = f"the process ended: {None if self._process is None else self._process.returncode}"
            raise RuntimeError(msg)
        return self._process

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._running().pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def _listen(self) -> None:
        stdout = self._running().stdout
        assert stdout is not None
        for line in stdout:
            said = json.loads(line)
            if said.pop("ready", False):
                self._ready.set()
                continue
            change = Change(**said)
            self._changes.append(change)
            (self._open.discard if change.event == "closed" else self._open.add)(change.key)
