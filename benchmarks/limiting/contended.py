"""A server whose processor another process wants as well."""

from __future__ import annotations

import math

from benchmarks.limiting import contenders
from benchmarks.limiting.figures import figures
from benchmarks.limiting.gated import Gated
from benchmarks.limiting.simulation import simulate
from benchmarks.limiting.station import ProcessorSharing
from benchmarks.limiting.workload import DEADLINE_S, SERVICES, Phase, workload
from otel_inference.maintenance.gate import Gate

SLICE_S = 0.02
HOGGED = (
    Phase(title="0.5x", load=0.5),
    Phase(title="0.7x, hog", load=0.7, speed=0.5),
    Phase(title="0.5x, after it", load=0.5),
)
"""At a speed below 1 there is a hog, which leaves one call half of the processor, and n calls n / (n + 1) of it."""
CONTENDERS: dict[str, contenders.DoorMaker] = {
    "gate, 1 given, sizes seen": lambda calls: Gated(Gate(DEADLINE_S, 1), calls, sized=True),
    "gate, k from 1, sizes seen": lambda calls: Gated(Gate(DEADLINE_S, guess=1), calls, sized=True),
    "gate, nothing known": contenders.OURS[contenders.BLIND],
    "Vegas": contenders.OTHERS["Vegas"],
    "no limit": contenders.OTHERS[contenders.NONE],
}


class Contended(ProcessorSharing):
    """One worker, and a hog that gets the same slices of its time as each running call, in turn.

    As threads of a server beside a busy process under a fair scheduler: the more calls run, the less is the hog's
    share; how long a call takes depends on how many of the hog's turns fall into it.
    """

    def __init__(self) -> None:
        super().__init__(1, 0.0)
        self._hog = False
        self._own_s = SLICE_S
        """Time of the calls until it is the hog's turn."""
        self._other_s = 0.0
        """What is left of the hog's turn."""

    def change_speed(self, now_s: float, speed: float) -> None:
        self._advance(now_s)
        self._hog = speed < 1.0
        self._own_s, self._other_s = SLICE_S, 0.0
        self._schedule()

    def end(self) -> int:
        self._advance(self.next_s)
        return super().end()

    def _advance(self, now_s: float) -> None:
        left_s, calls = now_s - self._at_s, max(1, len(self._heap))
        self._at_s = now_s
        while self._hog and self._heap and left_s > 0.0:
            if self._other_s > 0.0:
                step_s = min(left_s, self._other_s)
                self._other_s -= step_s
            else:
                step_s = min(left_s, self._own_s)
                self._each_s += step_s / calls
                self._own_s -= step_s
                if self._own_s <= 1e-12:
                    self._own_s, self._other_s = SLICE_S * calls, SLICE_S
            left_s -= step_s
        self._each_s += left_s / calls

    def _schedule(self) -> None:
        if not self._heap:
            self.next_s = math.inf
            return
        calls = len(self._heap)
        own_s = max(0.0, self._heap[0][0] - self._each_s) * calls
        turns = math.ceil((own_s - self._own_s) / (SLICE_S * calls)) if self._hog and own_s > self._own_s else 0
        self.next_s = self._at_s + own_s + self._other_s + turns * SLICE_S


def in_time(seeds: range, service: str = "lognormal", phases: tuple[Phase, ...] = HOGGED) -> dict[str, list[float]]:
    """By contender: for each phase the share of the calls that came which were done in time."""
    shares = {}
    for name, make in CONTENDERS.items():
        runs = []
        for seed in seeds:
            calls = workload(1, SERVICES[service], seed, phases)
            runs.append(figures(simulate(calls, Contended(), make(calls))))
        shares[name] = [
            sum(run.good[phase] for run in runs) / sum(run.arrived[phase] for run in runs)
            for phase in range(len(phases))
        ]
    return shares
