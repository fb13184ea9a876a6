"""The tuner against a simulated server whose machine gets slower: `python -m benchmarks.tuning [--quick]`, 15 seconds.

A server works on batches one after the other; a batch of n items takes a n + b, and its 95th percentile is 1.3 times
that. The batch size is one of twelve levels and starts at the lowest. What a window shows of the work done per second
and of the 95th percentile is blurred, each by its own lognormal noise. Half way everything becomes 1.6 times as slow.

The optimum, which no tuner knows, is the level that does the most work of those that are over the objective in at most
one window in forty, before and after the change. Work counts in windows that kept to the objective.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

from otel_inference.maintenance.knob import Knob
from otel_inference.maintenance.tuner import Tuner, TuningWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

LEVELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
WINDOWS = 600
WINDOW_S = 10.0
SLOWER = 1.6
P95_RATIO = 1.3
SEEDS = 20
AFTER = 60
SETTLING = 120
TEN_MINUTES = 60
NORMAL_97 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A server: seconds that a batch takes, and the objective."""

    per_item_s: float
    fixed_s: float
    slo_p95_s: float

    def service_s(self, size: int, slower: float) -> float:
        return slower * (self.per_item_s * size + self.fixed_s)

    def speed(self, size: int, slower: float) -> float:
        return size / self.service_s(size, slower)

    def p95_s(self, size: int, slower: float) -> float:
        return P95_RATIO * self.service_s(size, slower)

    def best(self, slower: float, margin: float) -> int:
        """The level that does the most work of those whose 95th percentile, times a margin, keeps to the objective."""
        feasible = [size for size in LEVELS if self.p95_s(size, slower) * margin <= self.slo_p95_s]
        return max(feasible, default=LEVELS[0])


FIXED = Plant(per_item_s=0.004, fixed_s=0.016, slo_p95_s=0.228)
"""The optimum is 32, later 16; both are well within the objective and their neighbours well over it."""


def drawn(rng: random.Random) -> Plant:
    """A server whose optimum is somewhere in the middle of the levels; how near to the objective, chance decides."""
    while True:
        fixed = rng.uniform(4.0, 16.0)
        place = rng.randrange(5, len(LEVELS) - 2)
        slo = rng.uniform(*(P95_RATIO * (LEVELS[at] + fixed) for at in (place, place + 1)))
        plant = Plant(per_item_s=0.004, fixed_s=0.004 * fixed, slo_p95_s=0.004 * slo)
        if plant.p95_s(LEVELS[2], SLOWER) < 0.9 * plant.slo_p95_s:
            return plant


class Policy(Protocol):
    """What chooses the batch size of the next window."""

    size: int

    def see(self, window: TuningWindow) -> None: ...


class Static:
    """The best level of the time before the change."""

    def __init__(self, plant: Plant) -> None:
        self.size = plant.best(1.0, 1.0)

    def see(self, window: TuningWindow) -> None:
        pass


class Naive:
    """One level on in each window; turns round when it got worse."""

    def __init__(self, plant: Plant) -> None:
        self._slo_p95_s = plant.slo_p95_s
        self._place, self._direction, self._score = 0, 1, 0.0
        self.size = LEVELS[0]

    def see(self, window: TuningWindow) -> None:
        score = window.speed if window.p95_s <= self._slo_p95_s else 0.0
        if score < self._score:
            self._direction = -self._direction
        self._score = score
        self._place = min(max(self._place + self._direction, 0), len(LEVELS) - 1)
        self.size = LEVELS[self._place]


class Aimd:
    """One item more while the objective holds, a tenth less when it does not (Clipper, NSDI 2017)."""

    def __init__(self, plant: Plant) -> None:
        self._slo_p95_s = plant.slo_p95_s
        self._value = 1.0
        self.size = LEVELS[0]

    def see(self, window: TuningWindow) -> None:
        self._value = self._value + 1 if window.p95_s <= self._slo_p95_s else max(1.0, 0.9 * self._value)
        self.size = max(size for size in LEVELS if size <= self._value)


class Tuned:
    """This package's tuner, with a knob as a user would write it."""

    def __init__(self, plant: Plant) -> None:
        self.size = LEVELS[0]
        knob = Knob("batch_size", lambda: self.size, self._set, levels=LEVELS)
        self.tuner = Tuner([knob], slo_p95_s=plant.slo_p95_s)

    def _set(self, size: float) -> None:
        self.size = int(size)

    def see(self, window: TuningWindow) -> None:
        self.tuner.step(window)


POLICIES: dict[str, Callable[[Plant], Policy]] = {
    "static, best before the change": Static,
    "naive hill climb": Naive,
    "AIMD": Aimd,
    "tuner": Tuned,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How one policy did in one run."""

    of_optimum: float
    of_edge: float
    """The same against the level whose mean 95th percentile is just within the objective, half its windows over it or not."""
    over: float
    """Share of windows over the objective."""
    after: float
    """Of the optimum, in the 60 windows after the change."""
    last: float
    turns: int
    """Changes of direction, at most, in any ten minutes once steady, trials left out."""
    changes: float
    """Settings made in 100 windows, trials included."""
    until_steady: int
    """Windows until ten in a row did 0.93 of the optimum."""


class Server:
    """A plant that is run for some windows, and what came of it."""

    def __init__(self, plant: Plant, *, seed: int, noise: float) -> None:
        self.sizes: list[int] = []
        self.done: list[float] = []
        self.optimum: list[float] = []
        self.edge: list[float] = []
        self.over = 0
        self._plant = plant
        self._rng = random.Random(seed)
        self._sigma = math.sqrt(math.log1p(noise * noise))

    def serve(self, size: int, slower: float) -> TuningWindow:
        """One window; what it shows is blurred."""
        plant = self._plant
        service_s = plant.service_s(size, slower) / self._rng.lognormvariate(0, self._sigma)
        p95_s = plant.p95_s(size, slower) * self._rng.lognormvariate(0, self._sigma)
        kept = p95_s <= plant.slo_p95_s
        self.over += not kept
        self.sizes.append(size)
        self.done.append(plant.speed(size, slower) if kept else 0.0)
        margin = math.exp(NORMAL_97 * self._sigma)
        self.optimum.append(plant.speed(plant.best(slower, margin), slower))
        self.edge.append(plant.speed(plant.best(slower, 1.0), slower))
        calls = max(1, round(WINDOW_S / service_s))
        return TuningWindow(
            at_s=len(self.sizes) * WINDOW_S,
            duration_s=WINDOW_S,
            calls=calls,
            work=float(calls * size),
            mean_service_s=service_s,
            p95_s=p95_s,
        )


def run(policy_of: Callable[[Plant], Policy], plant: Plant, *, seed: int, noise: float) -> Figures:
    server, policy, half = Server(plant, seed=seed, noise=noise), policy_of(plant), WINDOWS // 2
    for index in range(WINDOWS):
        policy.see(server.serve(policy.size, SLOWER if index >= half else 1.0))
    done, optimum, sizes = server.done, server.optimum, server.sizes
    kept = _kept(policy, sizes)
    return Figures(
        of_optimum=sum(done) / sum(optimum),
        of_edge=sum(done) / sum(server.edge),
        over=server.over / WINDOWS,
        after=sum(done[half : half + AFTER]) / sum(optimum[half : half + AFTER]),
        last=sum(done[-AFTER:]) / sum(optimum[-AFTER:]),
        turns=max(_turns(kept[SETTLING:half]), _turns(kept[half + SETTLING :])),
        changes=100 * sum(one != other for one, other in pairwise(sizes)) / WINDOWS,
        until_steady=_until_steady(done, optimum),
    )


def _kept(policy: Policy, sizes: Sequence[int]) -> list[int]:
    """The setting kept at each window: a tuner's trials are no change of direction until they are accepted."""
    if not isinstance(policy, Tuned):
        return list(sizes)
    moves = {
        round(record.at_s / WINDOW_S): int(record.after)
        for record in policy.tuner.journal
        if record.outcome in {"accepted", "relieved", "restored"}
    }
    kept, size = [], LEVELS[0]
    for index in range(len(sizes)):
        size = moves.get(index, size)
        kept.append(size)
    return kept


def _turns(sizes: Sequence[int]) -> int:
    """Changes of direction, at most, in any ten minutes."""
    moves = [(index, other > one) for index, (one, other) in enumerate(pairwise(sizes)) if one != other]
    turns = [at for (_, before), (at, after) in pairwise(moves) if before != after]
    return max((sum(start <= at < start + TEN_MINUTES for at in turns) for start in turns), default=0)


def _until_steady(done: Sequence[float], optimum: Sequence[float]) -> int:
    for index in range(len(done) - 10):
        if sum(done[index : index + 10]) >= 0.93 * sum(optimum[index : index + 10]):
            return index
    return len(done)


def measure(name: str, *, drawn_plants: bool, seeds: int, noise: float) -> list[Figures]:
    """Runs of one policy, each with its own noise and, where plants are drawn, its own plant."""
    return [
        run(POLICIES[name], drawn(random.Random(1000 + seed)) if drawn_plants else FIXED, seed=seed, noise=noise)
        for seed in range(seeds)
    ]


def _table(title: str, *, drawn_plants: bool, seeds: int, noise: float) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("policy", no_wrap=True)
    columns = (
        "work / optimum", "/ edge", "windows over", "60 after change", "last 60", "turns, worst", "settings/100", "until .93",
    )  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right")
    for name in POLICIES:
        runs = measure(name, drawn_plants=drawn_plants, seeds=seeds, noise=noise)
        table.add_row(
            name,
            f"{fmean(one.of_optimum for one in runs):.3f}",
            f"{fmean(one.of_edge for one in runs):.3f}",
            f"{100 * fmean(one.over for one in runs):.1f} %",
            f"{fmean(one.after for one in runs):.3f}",
            f"{fmean(one.last for one in runs):.3f}",
            f"{max(one.turns for one in runs)}",
            f"{fmean(one.changes for one in runs):.0f}",
            f"{fmean(one.until_steady for one in runs):.0f}",
        )
    table.add_row("bar", ">= 0.950", "", "<= 2.5 %", ">= 0.900", "", "<= 2")
    return table


def main() -> None:
    from rich.console import Console

    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5 seeds instead of 20")
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--noise", type=float, default=0.08, help="coefficient of variation of a window")
    options = parser.parse_args()
    seeds = options.seeds or (5 if options.quick else SEEDS)
    console = Console(width=140, highlight=False)
    said = f"{seeds} seeds, {WINDOWS} windows, noise {100 * options.noise:.0f} %"
    console.print(_table(f"One server: {said}", drawn_plants=False, seeds=seeds, noise=options.noise))
    console.print(_table(f"A server drawn for each seed: {said}", drawn_plants=True, seeds=seeds, noise=options.noise))


if __name__ == "__main__":
    main()
