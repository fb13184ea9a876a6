"""What a diagnosis costs and finds: `python -m benchmarks.diagnosis`, about eight minutes, one with `--quick`.

All calls and readings are synthetic, on a manual clock; the streams are those of the tests. Costs are CPU time.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
from collections import Counter
from datetime import timedelta
from statistics import median, quantiles
from time import process_time_ns
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from tests.diagnosis.injections import INJECTED, first_bottleneck
from tests.diagnosis.streams import EPOCH, Load, Machine, Stream, during, run

from otel_inference.diagnosis.diagnosis import Diagnosis
from otel_inference.finding import FindingEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODELS = 100
TARGET_MS = 20.0
RIGHT_TARGET = 0.9
HEALTHY_TARGET = 1.0
BEGIN_S = 900.0
DAY_S = 86400.0


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute, for a first look")
    quick = parser.parse_args().quick
    console = Console(width=140, highlight=False)
    console.print(cost_table(stretches=6 if quick else 30))
    console.print(attribution_table(seeds=5 if quick else 30))
    console.print(delay_table(seeds=2 if quick else 10))
    console.print(healthy_table(days=1, seeds=1 if quick else 6, quick=quick))


def cost_table(stretches: int) -> Table:
    """CPU time of one evaluation over 100 models."""
    table = _table(f"One evaluation over {MODELS} models, CPU ms", "what", "median", "p95", "max", "target p95", "")
    for name, slower, machine in (
        ("all well", 1.0, Machine()),
        ("all slow, for a reason", 2.0, Machine(cpu_wait=0.6, cpu_ratio=0.3)),
    ):
        fast, heavy = _costs(stretches, slower, machine)
        for kind, costs_ms in (("no stretch was completed", fast), ("a stretch of every model was completed", heavy)):
            p95 = quantiles(costs_ms, n=20)[-1]
            row = (median(costs_ms), p95, max(costs_ms), TARGET_MS)
            table.add_row(f"{name}; {kind}", *(f"{each:.2f}" for each in row), _verdict(p95 <= TARGET_MS))
    return table


def _costs(stretches: int, slower: float, machine: Machine) -> tuple[list[float], list[float]]:
    streams = [Stream(during(BEGIN_S, 1e9, Load(calls=30), slower=slower), model=f"m{i}") for i in range(MODELS)]
    diagnosis, rng = Diagnosis(), random.Random(1)
    for at_s in range(10, 901, 10):
        _evaluate(diagnosis, streams, float(at_s), Machine(), rng, with_stretches=True)
    fast: list[float] = []
    heavy: list[float] = []
    gc.collect()
    gc.freeze()
    for at_s in range(901, 901 + 10 * stretches):
        completed = at_s % 10 == 0
        taken = _evaluate(diagnosis, streams, float(at_s), machine, rng, with_stretches=completed)
        (heavy if completed else fast).append(taken / 1e6)
    return fast, heavy


def _evaluate(
    diagnosis: Diagnosis,
    streams: list[Stream],
    at_s: float,
    machine: Machine,
    rng: random.Random,
    *,
    with_stretches: bool,
) -> int:
    models = {
        each.model: each.observation(at_s, (each.stretch(at_s - 10),) if with_stretches else ()) for each in streams
    }
    reading = machine.reading(at_s, rng)
    begun_ns = process_time_ns()
    diagnosis.evaluate(at_s, EPOCH + timedelta(seconds=at_s), models, reading)
    return process_time_ns() - begun_ns


def attribution_table(seeds: int) -> Table:
    """How often the injected cause is found, by a whole diagnosis, while another signal rises at another time."""
    title = f"Injected causes, {seeds} runs each: first bottleneck within 150 s, of those that were found to be slow"
    table = _table(title, "cause", "is to be found as", "right first", "else", "not slow", "target", "")
    for inject, subject in INJECTED.items():
        found = Counter(first_bottleneck(inject, seed) for seed in range(seeds))
        unseen, hits = found.pop(None, 0), found.pop(subject, 0)
        right = hits / max(1, seeds - unseen)
        others = ", ".join(f"{name} {count}" for name, count in found.most_common()) or "-"
        row = (f"{right:.0%}", others, str(unseen), f"{RIGHT_TARGET:.0%}", _verdict(right >= RIGHT_TARGET))
        table.add_row(inject.__name__.replace("_", " "), subject, *row)
    return table


def delay_table(seeds: int) -> Table:
    """How long after the begin each finding opens, and which else do."""
    title = f"Seconds until found, {seeds} runs each, 30 calls in 10 s"
    table = _table(title, "what goes wrong", "finding", "found", "median", "max", "also opened")
    for name, finding, changed in (
        ("20 % slower", "latency_shift", {"slower": 1.2}),
        ("50 % slower", "latency_shift", {"slower": 1.5}),
        ("twice as slow", "latency_shift", {"slower": 2.0}),
        ("10 % fail", "error_burst", {"failing": 0.1}),
        ("all fail", "error_burst", {"failing": 1.0}),
        ("inputs 4 times as long", "input_shift", {"sizes": (256, 512, 1024, 2048)}),
        ("calls wait", "bottleneck:queue", {"queue_s": 0.25}),
        ("40 % are turned away", "bottleneck:queue", {"rejected": 0.4}),
        ("no calls", "throughput_drop", {"calls": 0.0, "active_calls": 0}),
        ("a call hangs", "stall", {"oldest_active_s": 31.0}),
    ):
        delays: list[float] = []
        others: Counter[str] = Counter()
        for seed in range(seeds):
            stream = Stream(during(BEGIN_S, 1e9, Load(), **changed), seed=seed)
            told, _ = run(stream, BEGIN_S + 300, machine=Machine(), seed=seed)
            delays += [at_s - BEGIN_S for at_s in told.opened(finding)[:1]]
            others.update(each for each in told.names if not each.startswith(finding))
        shown = (f"{median(delays):.0f}", f"{max(delays):.0f}") if delays else ("-", "-")
        also = ", ".join(f"{each} {count}" for each, count in others.most_common()) or "-"
        table.add_row(name, finding, f"{len(delays)} of {seeds}", *shown, also)
    return table


def healthy_table(days: int, seeds: int, *, quick: bool) -> Table:
    """False findings of the whole diagnosis on healthy calls."""
    title = f"Healthy calls: false findings a day ({seeds} x {days} d each)"
    table = _table(title, "calls in 10 s", "sigma", "findings a day", "which", "target", "")
    for calls, sigma in ((20.0, 0.5),) if quick else ((5.0, 0.3), (5.0, 1.0), (20.0, 0.5), (20.0, 1.0), (100.0, 0.5)):
        opened: Counter[str] = Counter()
        for seed in range(seeds):
            stream = Stream(_healthy(calls, sigma, seed), seed=seed)
            told, _ = run(stream, days * DAY_S, machine=Machine(), step_s=10.0, seed=seed)
            opened.update(
                f"{change.finding.kind.value}" for _, change in told.changes if change.event is FindingEvent.OPENED
            )
        rate = opened.total() / (days * seeds)
        which = ", ".join(f"{kind} {count}" for kind, count in opened.most_common()) or "-"
        table.add_row(f"{calls:.0f}", f"{sigma}", f"{rate:.2f}", which, "1", _verdict(rate <= HEALTHY_TARGET))
    return table


def _healthy(calls: float, sigma: float, seed: int) -> Callable[[float], Load]:
    """A daily cycle of 40 %, work that drifts by 5 % with autocorrelation, sizes that grow by half; 1 in 200 fails."""
    drift = list(_autocorrelated(random.Random(seed)))

    def load(at_s: float) -> Load:
        cycle = 1 + 0.4 * math.sin(2 * math.pi * at_s / DAY_S)
        grown = 1 + 0.5 * at_s / DAY_S
        return Load(
            calls=calls * cycle,
            failing=0.005,
            sigma=sigma,
            slower=math.exp(drift[int(at_s // 10) % len(drift)]),
            sizes=tuple(round(size * grown) for size in (64, 128, 256, 512)),
        )

    return load


def _autocorrelated(rng: random.Random) -> Iterator[float]:
    value = 0.0
    for _ in range(8640):
        value = 0.5 * value + rng.gauss(0, 0.05)
        yield value


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def _verdict(ok: bool) -> str:  # noqa: FBT001
    return "ok" if ok else "MISSED"


if __name__ == "__main__":
    main()
