"""One limiter before one server under one workload, event by event."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from benchmarks.limiting.station import Station
    from benchmarks.limiting.workload import Workload


class Door(Protocol):
    """A limiter before the server."""

    def arrive(self, now_s: float, call: int) -> bool:
        """Whether the call runs at once; otherwise it waits at the door or was turned away."""

    def leave(self, now_s: float, call: int) -> list[int]:
        """A call ended; those that may run now."""


@dataclass(slots=True)
class Outcome:
    """What became of each call: when it ended; infinite for one that was turned away or never ended."""

    workload: Workload
    end_s: list[float]


def simulate(workload: Workload, station: Station, door: Door) -> Outcome:
    """Run until the end of the last phase."""
    arrivals, work = workload.arrivals_s, workload.work_s
    end_s = [math.inf] * len(arrivals)
    call, calls = 0, len(arrivals)
    edges = workload.edges_s()
    for phase, begin_s, until_s in zip(workload.phases, edges, edges[1:], strict=False):
        station.change_speed(begin_s, phase.speed)
        while True:
            arrival_s = arrivals[call] if call < calls else math.inf
            now_s = station.next_s
            if min(arrival_s, now_s) >= until_s:
                break
            if arrival_s < now_s:
                if door.arrive(arrival_s, call):
                    station.start(arrival_s, call, work[call])
                call += 1
            else:
                ended = station.end()
                end_s[ended] = now_s
                for ready in door.leave(now_s, ended):
                    station.start(now_s, ready, work[ready])
    return Outcome(workload, end_s)
