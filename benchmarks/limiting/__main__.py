"""Simulate and print: about half an hour, or half a minute with `--quick`."""

from __future__ import annotations

import argparse
import itertools

from rich.console import Console

from benchmarks.limiting import contenders, report
from benchmarks.limiting.bars import Bar, bars, longer_bar
from benchmarks.limiting.cell import FIFO, SHARING, Cell, chosen
from benchmarks.limiting.contended import in_time
from benchmarks.limiting.workload import SERVICES


def main() -> None:
    """Run the chosen cells and print their tables."""
    options = _options()
    console = Console(width=210, highlight=False)
    seeds = range(1 if options.quick else options.seeds)
    cells = _cells(options)
    judged: list[tuple[str, Bar]] = []
    for cell in cells:
        scores, limits = cell.run(seeds, chosen(cell.station))
        console.print(report.table_of(cell, scores, limits))
        for name in scores:
            judged += [(f"{_place(cell)}, {name}", bar) for bar in bars(cell, name, scores)]
    longer = {_place(cell): cell.longer(seeds, chosen(cell.station)) for cell in cells if cell.workers > 1}
    for place, shares in longer.items():
        judged += [(f"{place}, {name}", longer_bar(shares[name])) for name in shares if name in contenders.JUDGED]
    console.print(report.longer_table(longer))
    console.print(report.hog_table(in_time(seeds)))
    console.print(report.bars_table(judged))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limiting", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, four workers, lognormal service")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--station", nargs="*", choices=(FIFO, SHARING), default=[FIFO, SHARING])
    parser.add_argument("--service", nargs="*", choices=list(SERVICES), default=list(SERVICES))
    return parser.parse_args()


def _cells(options: argparse.Namespace) -> list[Cell]:
    if options.quick:
        return [Cell(station=station, workers=4, service="lognormal") for station in (FIFO, SHARING)]
    every = itertools.product(options.workers, options.station, options.service)
    return [Cell(station=station, workers=workers, service=service) for workers, station, service in every]


def _place(cell: Cell) -> str:
    return f"{cell.station} c={cell.workers} {cell.service}"


if __name__ == "__main__":
    main()
