"""The process that causes are put into: a torch model with weights mapped from a file, called by four threads.

It takes the name of a cause from each line of its input and writes what it finds as JSON, a line each.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import otel_inference

if TYPE_CHECKING:
    from otel_inference.finding import FindingChange

CALLERS = 4
CALLS_PER_S = 20.0
WIDTH = 1024
LAYERS = 12
ROWS = 24
SLEPT_S = 0.012
OBJECTS = 400_000


class Trouble:
    """What is wrong inside the process, if anything is."""

    def __init__(self) -> None:
        self.name = ""
        self.table = threading.Lock()
        self._objects: list[list[int]] = []
        threading.Thread(target=self._reload, daemon=True).start()
        threading.Thread(target=self._collect, daemon=True).start()

    def begin(self, name: str) -> None:
        """Let it be `name` from now on; nothing for an empty one."""
        self._objects = [[index] for index in range(OBJECTS)] if name == "gc" else []
        self.name = name

    def _reload(self) -> None:
        """Holds the lock that each call needs, most of the time, and computes nothing meanwhile."""
        while True:
            if self.name == "lock":
                with self.table:
                    time.sleep(random.uniform(0.02, 0.05))
            time.sleep(random.uniform(0.005, 0.02))

    def _collect(self) -> None:
        while True:
            if self.name == "gc":
                gc.collect()
            time.sleep(0.1)


class Reader(torch.nn.Module):
    """Some layers; each call looks something up in a table behind a lock."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__()
        self.work = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
        self._trouble = trouble

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        with self._trouble.table:
            sleeps = self._trouble.name == "sleep"
        if sleeps:
            time.sleep(SLEPT_S)
        return self.work(rows)


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    trouble = Trouble()
    otel_inference.instrument(config=otel_inference.Config(alert_sinks=(_tell,)))
    model = _mapped(Reader(trouble).eval(), options.weights)
    otel_inference.name_model(model, "reader")
    for _ in range(CALLERS):
        threading.Thread(target=_call, args=(model,), daemon=True).start()
    _say(ready=True)
    for line in sys.stdin:
        trouble.begin(line.strip())


def _mapped(model: Reader, path: Path) -> Reader:
    """The model with its weights in pages of a file, which the kernel may drop and read again."""
    torch.save(model.work.state_dict(), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    model.work.load_state_dict(torch.load(path, mmap=True), assign=True)
    return model


def _call(model: Reader) -> None:
    while True:
        rows = torch.ones(max(1, round(ROWS * random.lognormvariate(0, 0.3))), WIDTH)
        with torch.inference_mode():
            model(rows)
        time.sleep(random.expovariate(CALLS_PER_S / CALLERS))


def _tell(change: FindingChange) -> None:
    finding = change.finding
    _say(
        event=str(change.event),
        key=finding.key,
        explained_by=finding.explained_by,
        severity=str(finding.severity),
        evidence=dict(finding.evidence),
        at_s=time.monotonic(),
    )


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
