"""What the gate is meant to reach."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.limiting import contenders
from benchmarks.limiting.cell import BOUND, BOUND_SMALL, FIFO, Cell, Score
from benchmarks.limiting.workload import DEADLINE_S

QUIET, RECOVERY = 3, 5
"""Phases of 0.7 of the load at full capacity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One aim, and how far from it a contender is.

    Attributes:
        title: What is looked at.
        value: What was reached.
        aim: What is to be reached.
        at_least: Whether more is better.
        most: What no limiter of the kind can exceed.
    """

    title: str
    value: float
    aim: float
    at_least: bool = True
    most: float = math.inf

    @property
    def reached(self) -> bool:
        return self.value >= self.aim if self.at_least else self.value <= self.aim

    @property
    def possible(self) -> bool:
        return self.aim <= self.most


def bars(cell: Cell, name: str, scores: dict[str, Score]) -> list[Bar]:
    """The aims for one of our contenders in one cell; none for the others."""
    score = scores[name]
    if name not in contenders.JUDGED or score.p99_s is None:
        return []
    return [
        *_goodput(cell, name, scores),
        Bar(title="p99 in deadlines", value=score.p99_s / DEADLINE_S, aim=1.1, at_least=False),
        Bar(
            title="turned away at 0.7x",
            value=max(score.rejected[QUIET], score.rejected[RECOVERY]),
            aim=0.07 if cell.workers == 1 else 0.015,
            at_least=False,
        ),
        Bar(title="back after a step, s", value=max(score.back_s), aim=2.0, at_least=False),
    ]


def _goodput(cell: Cell, name: str, scores: dict[str, Score]) -> list[Bar]:
    score, blind, best = scores[name], scores[BOUND].goodput, scores[BOUND_SMALL]
    if cell.station == FIFO:
        return [Bar(title="goodput", value=score.goodput, aim=0.97 if cell.workers == 1 else 0.98, most=blind)]
    if name == contenders.GIVEN:
        return [Bar(title="goodput", value=score.goodput, aim=1.05, most=blind)]
    if name in {contenders.FROM_2, contenders.FROM_4C}:
        return [
            Bar(title="goodput", value=score.goodput, aim=1.12, most=best.goodput),
            Bar(title="work", value=score.work, aim=1.08, most=best.work),
        ]
    return []


def longer_bar(share: float) -> Bar:
    """The aim for inputs that become three times as long."""
    return Bar(title="turned away, inputs 3x longer", value=share, aim=0.005, at_least=False)
