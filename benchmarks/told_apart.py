"""A real torch model under load, slowed by a CPU hog, then given longer inputs, then made to fail: are the three told apart?

    python -m benchmarks.told_apart        # thirteen minutes, eight of them to learn what is usual (--learn)

Prints the findings that open and close in each phase. The process has the first core for itself, and the hog comes onto it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_inference.finding import FindingChange

CALLS_PER_S = 20.0
TOKENS = 128
WIDTH = 512
"""So that a call takes longer than a scheduler lets it go before others have their turn; shorter ones a hog hardly slows."""

HOG = """
import os, time
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
end_s = time.monotonic() + 600
while time.monotonic() < end_s:
    pass
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of one kind of trouble."""

    name: str
    seconds: float
    tokens: int = TOKENS
    hog: bool = False
    failing: float = 0.0


PHASES = (
    Phase(name="CPU hog", seconds=60, hog=True),
    Phase(name="usual again", seconds=90),
    Phase(name="inputs three times as long", seconds=60, tokens=3 * TOKENS),
    Phase(name="usual once more", seconds=60),
    Phase(name="one call in four fails", seconds=40, failing=0.25),
)


def main() -> None:
    """Run the phases."""
    # Before anything begins threads: those would go on having all cores, and the process would be taken for one that has them.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import torch

    import otel_inference

    parser = argparse.ArgumentParser(prog="python -m benchmarks.told_apart", description=__doc__)
    parser.add_argument("--learn", type=float, default=480.0, help="seconds at first, to learn what is usual")
    usual = Phase(name="usual", seconds=parser.parse_args().learn)
    console = Console(width=130, highlight=False, emoji=False)
    torch.set_num_threads(1)
    began_s, phase_now = time.monotonic(), [usual]

    def note(change: FindingChange) -> None:
        finding = change.finding
        why = f" <- {finding.explained_by}" if finding.explained_by else ""
        console.print(
            f"{time.monotonic() - began_s:5.0f} s  {phase_now[0].name:28} {change.event:8} {finding.key}{why}"
        )

    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.work = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(24)))

        def forward(self, rows: torch.Tensor, *, fails: bool) -> torch.Tensor:
            if fails:
                msg = "made to fail"
                raise ValueError(msg)
            return self.work(rows)

    otel_inference.instrument(config=otel_inference.Config(alert_sinks=(note,)))
    model = Reader().eval()
    otel_inference.name_model(model, "reader")
    for phase in (usual, *PHASES):
        phase_now[0] = phase
        console.print(f"{time.monotonic() - began_s:5.0f} s  {phase.name}")
        with hog() if phase.hog else nullcontext():
            call_s = serve(model, phase)
        console.print(
            f"{time.monotonic() - began_s:5.0f} s  {phase.name:28} calls took {call_s * 1000:.1f} ms (median)"
        )
    otel_inference.uninstrument()


@contextmanager
def hog() -> Iterator[None]:
    """Have another program use the core; it is no child of this one, whose use of processors would be its parent's."""
    with subprocess.Popen([sys.executable, "-c", HOG], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        hog_pid = int(parent.stdout.readline())
    try:
        yield
    finally:
        os.kill(hog_pid, signal.SIGKILL)


def serve(model: Callable[..., object], phase: Phase) -> float:
    """Call the model now and then, with inputs of the phase's size; returns how long the median call took, in seconds."""
    import torch

    took_s: list[float] = []
    until_s = time.monotonic() + phase.seconds
    while time.monotonic() < until_s:
        rows = torch.ones(max(8, round(phase.tokens * random.lognormvariate(0, 0.3))), WIDTH)
        call_began_s = time.perf_counter()
        with suppress(ValueError), torch.inference_mode():
            model(rows, fails=random.random() < phase.failing)
        took_s.append(time.perf_counter() - call_began_s)
        time.sleep(random.expovariate(CALLS_PER_S))
    return statistics.median(took_s)


if __name__ == "__main__":
    main()
