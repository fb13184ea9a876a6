"""What is asked of the server: Poisson arrivals in phases of load, and how much work each call is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

MEAN_S = 0.05
DEADLINE_S = 0.5
MEAN_SIZE = 200.0
"""Mean of the sizes that a size-aware limiter sees, in tokens."""
SIZE_NOISE = 0.15
"""Coefficient of variation of the work per unit of size."""

Draw = Callable[[random.Random], float]


def exponential(rng: random.Random) -> float:
    """Work of mean 1, squared coefficient of variation 1."""
    return rng.expovariate(1.0)


def lognormal(rng: random.Random) -> float:
    """Work of mean 1, sigma 1: squared coefficient of variation 1.72."""
    return rng.lognormvariate(-0.5, 1.0)


def bimodal(rng: random.Random) -> float:
    """Work of mean 1: four in five calls half of it, one in five six times as much as those."""
    return 3.0 if rng.random() < 0.2 else 0.5


SERVICES: dict[str, Draw] = {"exponential": exponential, "lognormal": lognormal, "bimodal": bimodal}


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of constant load.

    Attributes:
        title: For the table.
        load: Work that arrives, as a share of what the whole server could do.
        speed: Share of its capacity that the server has.
        growth: Work per call, as a multiple of the usual; calls come as much more seldom, so that the load is the same.
        duration_s: Its length.
    """

    title: str
    load: float
    speed: float = 1.0
    growth: float = 1.0
    duration_s: float = 60.0


STEPS = (
    Phase(title="0.5x", load=0.5),
    Phase(title="2x", load=2.0),
    Phase(title="5x", load=5.0),
    Phase(title="0.7x", load=0.7),
    Phase(title="0.7x, half", load=0.7, speed=0.5),
    Phase(title="recovery", load=0.7),
)
"""The test of issue 7."""

LONGER = (
    Phase(title="0.7x, short", load=0.7, growth=1 / 3),
    Phase(title="0.7x, 3 times as long", load=0.7),
)
"""Inputs that become three times as long, with nothing overloaded; a call is of the usual length afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Every call of one run; limiters that are compared get the same.

    Attributes:
        workers: Calls that the server can work on at full speed.
        phases: What the load does.
        arrivals_s: When each call arrives, ascending.
        work_s: Seconds that each takes alone at full speed.
        sizes: What a size-aware limiter sees of it: proportional to the work but for `SIZE_NOISE`.
    """

    workers: int
    phases: tuple[Phase, ...]
    arrivals_s: list[float]
    work_s: list[float]
    sizes: list[float]

    def edges_s(self) -> list[float]:
        """When each phase begins, and the end of the last."""
        edges = [0.0]
        for phase in self.phases:
            edges.append(edges[-1] + phase.duration_s)
        return edges


def workload(workers: int, draw: Draw, seed: int, phases: tuple[Phase, ...] = STEPS) -> Workload:
    """Draw one."""
    rng = random.Random(seed)
    sigma = math.sqrt(math.log1p(SIZE_NOISE**2))
    arrivals: list[float] = []
    work: list[float] = []
    sizes: list[float] = []
    begin_s = 0.0
    for phase in phases:
        mean_s = MEAN_S * phase.growth
        rate = phase.load * workers / mean_s
        end_s = begin_s + phase.duration_s
        at_s = begin_s + rng.expovariate(rate)
        while at_s < end_s:
            size = draw(rng)
            arrivals.append(at_s)
            sizes.append(MEAN_SIZE * phase.growth * size)
            work.append(mean_s * size * rng.lognormvariate(-sigma * sigma / 2, sigma))
            at_s += rng.expovariate(rate)
        begin_s = end_s
    return Workload(workers=workers, phases=phases, arrivals_s=arrivals, work_s=work, sizes=sizes)
