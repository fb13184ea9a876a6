"""The scores as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks.limiting.bars import Bar, bars
from benchmarks.limiting.contended import HOGGED
from benchmarks.limiting.workload import DEADLINE_S, STEPS

if TYPE_CHECKING:
    from benchmarks.limiting.cell import Cell, Score

_STATIONS = {"fifo": "first come first served", "sharing": "processor sharing, thrash 0.15"}


def title(cell: Cell, limits: list[list[int]]) -> str:
    """What a table is of."""
    chosen = ", ".join(f"{min(phase)}-{max(phase)}" for phase in zip(*limits, strict=True))
    return f"{_STATIONS[cell.station]}, c = {cell.workers}, {cell.service}; limits of hindsight by phase: {chosen}"


def table_of(cell: Cell, scores: dict[str, Score], limits: list[list[int]]) -> Table:
    """One row for each contender, with the aims that it misses, in brackets those above the bound."""
    table = Table(title=title(cell, limits), title_justify="left")
    table.add_column("limiter", no_wrap=True)
    columns = ("goodput", "work", "p99 / D", *(f"away {phase.title}" for phase in STEPS))
    for column in (*columns, "away by quarter of size; top tenth", "back after steps, s", "misses"):
        table.add_column(column, justify="right")
    for name, score in scores.items():
        missed = [bar for bar in bars(cell, name, scores) if not bar.reached]
        titles = ", ".join(bar.title if bar.possible else f"({bar.title})" for bar in missed)
        table.add_row(name, *_figures(score), titles)
    return table


def _figures(score: Score) -> list[str]:
    if score.p99_s is None:
        return [f"{score.goodput:.3f}", f"{score.work:.3f}", *[""] * (len(STEPS) + 3)]
    *quarters, tenth = (f"{100 * share:.0f}" for share in score.by_size)
    return [
        f"{score.goodput:.3f}",
        f"{score.work:.3f}",
        f"{score.p99_s / DEADLINE_S:.2f}",
        *(f"{100 * share:.1f} %" for share in score.rejected),
        f"{' '.join(quarters)}; {tenth} %",
        " ".join("-" if late > 60 else f"{late:g}" for late in score.back_s),
    ]


def longer_table(shares: dict[str, dict[str, float]]) -> Table:
    """Share turned away after inputs became three times as long, by contender and cell."""
    table = Table(
        title="turned away after inputs became 3 times as long, load 0.7 throughout; aim 0.5 %", title_justify="left"
    )
    table.add_column("limiter", no_wrap=True)
    for cell in shares:
        table.add_column(cell, justify="right")
    for name in next(iter(shares.values()), {}):
        table.add_row(name, *(f"{100 * cell[name]:.2f} %" if name in cell else "" for cell in shares.values()))
    return table


def hog_table(shares: dict[str, list[float]]) -> Table:
    """Share of the calls done in time beside a process that wants the same processor."""
    table = Table(
        title="done in time, of those that came: one worker, lognormal, and a hog that takes its turn with the calls",
        title_justify="left",
    )
    table.add_column("limiter", no_wrap=True)
    for phase in HOGGED:
        table.add_column(phase.title, justify="right")
    for name, each in shares.items():
        table.add_row(name, *(f"{100 * share:.1f} %" for share in each))
    return table


def bars_table(judged: list[tuple[str, Bar]]) -> Table:
    """Every aim with how often it can be reached and is, and of where it can be the cell farthest from it."""
    table = Table(title="aims", title_justify="left")
    for column in ("aim", "cells", "within the bound in", "reached in", "worst of these", "where"):
        table.add_column(column)
    groups: dict[str, list[tuple[str, Bar]]] = {}
    for where, bar in judged:
        sign = ">=" if bar.at_least else "<="
        groups.setdefault(f"{bar.title} {sign} {bar.aim:g}", []).append((where, bar))
    for aim, members in groups.items():
        possible = [member for member in members if member[1].possible]
        reached = sum(bar.reached for _, bar in members)
        where, worst = min(possible or members, key=lambda member: member[1].value * (1 if member[1].at_least else -1))
        table.add_row(aim, str(len(members)), str(len(possible)), str(reached), f"{worst.value:.3f}", where)
    return table
