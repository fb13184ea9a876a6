"""Who is compared."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.limiting.gated import Gated
from benchmarks.limiting.limits import Aimd, Fixed, Gradient2, InFlight, Limit, Vegas, Windowed
from benchmarks.limiting.simulation import Door
from benchmarks.limiting.workload import DEADLINE_S, Workload
from otel_inference.maintenance.gate import Gate

DoorMaker = Callable[[Workload], Door]

GIVEN = "gate, k given"
GIVEN_SIZED = "gate, k given, sizes seen"
FROM_2 = "gate, k from 2, sizes seen"
FROM_4C = "gate, k from 4c, sizes seen"
BLIND = "gate, nothing known"
NONE = "no limit"

OURS: dict[str, DoorMaker] = {
    GIVEN: lambda workload: Gated(Gate(DEADLINE_S, workload.workers), workload, sized=False),
    GIVEN_SIZED: lambda workload: Gated(Gate(DEADLINE_S, workload.workers), workload, sized=True),
    FROM_2: lambda workload: Gated(Gate(DEADLINE_S, guess=2), workload, sized=True),
    FROM_4C: lambda workload: Gated(Gate(DEADLINE_S, guess=4 * workload.workers), workload, sized=True),
    BLIND: lambda workload: Gated(Gate(DEADLINE_S), workload, sized=False),
}
JUDGED = (GIVEN, GIVEN_SIZED, FROM_2, FROM_4C)
"""Those that aims are set for."""


def _limited(limit: Callable[[int], Limit]) -> DoorMaker:
    return lambda workload: InFlight(limit(workload.workers))


OTHERS: dict[str, DoorMaker] = {
    "Vegas": _limited(lambda _: Vegas()),
    "Vegas, windowed": _limited(lambda _: Windowed(Vegas())),
    "Gradient2": _limited(lambda _: Windowed(Gradient2())),
    "Gradient2, from 2c down to 1": _limited(lambda workers: Windowed(Gradient2(initial=2 * workers, lowest=1))),
    "AIMD": _limited(lambda _: Aimd()),
    "AIMD at half the deadline, windowed": _limited(lambda _: Windowed(Aimd(timeout_s=DEADLINE_S / 2, lowest=1))),
    "as many as workers": _limited(Fixed),
    NONE: _limited(lambda _: Fixed(10**9)),
}
"""The first of each pair as its library sets it up, the second as it does best here."""
