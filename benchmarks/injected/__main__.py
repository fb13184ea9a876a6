"""Put real causes into a real process, and see what is found: half an hour a round; root and control groups needed.

    python -m benchmarks.injected --rounds 1 --causes "CPU hog" lock

A torch model is served by a process in control groups of its own, alone on one core. After some minutes in which it
learns what is usual, each cause is there for a while, with a quiet stretch after each. The first bottleneck that opens
after the beginning of a cause counts. Other work on the machine is noise in the figures: its load is printed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.injected.causes import CAUSES, CauseEndedError
from benchmarks.injected.groups import NoGroupsError
from benchmarks.injected.subject import Subject

if TYPE_CHECKING:
    from benchmarks.injected.subject import Change

RIGHT_TARGET = 0.9
QUIET_TARGET = 0.95
SETTLE_S = 240.0
GO_ON_S = 25.0
"""How long a cause goes on after it was named, to see what becomes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What was found of one cause."""

    named: str | None
    """Subject of the first bottleneck."""
    after_s: float


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.injected", description=__doc__)
    parser.add_argument("--causes", nargs="+", choices=[*CAUSES], default=[*CAUSES])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=100.0, help="for which a cause is there at most")
    parser.add_argument("--quiet", type=float, default=90.0, help="seconds of a quiet stretch")
    parser.add_argument("--learn", type=float, default=300.0, help="seconds at first, to learn what is usual")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    console = Console(width=150, highlight=False, emoji=False)
    try:
        subject = Subject(options.core)
    except NoGroupsError as error:
        sys.exit(str(error))
    rounds: dict[str, list[Round]] = defaultdict(list)
    quiet: list[tuple[str, ...]] = []
    try:
        with subject:
            console.print(f"load of the machine {os.getloadavg()[0]:.1f}; learning for {options.learn:.0f} s")
            subject.rest(options.learn)
            for _ in range(options.rounds):
                for cause in random.sample(options.causes, len(options.causes)):
                    try:
                        rounds[cause].append(_inject(subject, cause, options.seconds, console))
                    except CauseEndedError as error:
                        console.print(f"{cause}: {error}, and does not count")
                    quiet.append(_quiet(subject, options.quiet))
                    console.print(f"quiet: {', '.join(quiet[-1]) or '-'}; load {os.getloadavg()[0]:.1f}")
    finally:  # stopped early, it tells what there is
        console.print(_table(rounds, quiet))


def _stop(*_: object) -> None:
    """End, but not without cleaning up, which a second signal does not interrupt."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit("stopped")


def _inject(subject: Subject, cause: str, seconds: float, console: Console) -> Round:
    with CAUSES[cause][1](subject):
        began_s = time.monotonic()
        first: Change | None = None
        while first is None and time.monotonic() - began_s < seconds:
            subject.rest(1.0)
            first = next((each for each in _opened(subject, began_s) if each.key.startswith("bottleneck")), None)
        if first is not None:
            subject.rest(GO_ON_S)
        seen = subject.changes(began_s)
    for change in seen:
        console.print(
            f"  {change.at_s - began_s:4.0f} s {change.event} {change.key} {change.severity}"
            f" <- {change.explained_by}: {change.evidence}"
        )
    named = None if first is None else first.key.split(":")[1]
    after_s = seconds if first is None else first.at_s - began_s
    others = ", ".join(each.key for each in seen if each.event == "opened" and each is not first)
    console.print(f"{cause}: {named} after {after_s:.0f} s; also {others or '-'}")
    return Round(named=named, after_s=after_s)


def _quiet(subject: Subject, seconds: float) -> tuple[str, ...]:
    """What opens in a quiet stretch, which begins when nothing of the cause before is open any more."""
    until_s = time.monotonic() + SETTLE_S
    while subject.open and time.monotonic() < until_s:
        subject.rest(1.0)
    still = tuple(f"still {key}" for key in subject.open)
    began_s = time.monotonic()
    subject.rest(seconds)
    return still + tuple(change.key for change in _opened(subject, began_s))


def _opened(subject: Subject, since_s: float) -> list[Change]:
    return [change for change in subject.changes(since_s) if change.event == "opened"]


def _table(rounds: dict[str, list[Round]], quiet: list[tuple[str, ...]]) -> Table:
    table = Table(title="Injected causes: the first bottleneck that is found", title_justify="left")
    for column in ("cause", "is to be found as", "right first", "else", "s until named, median and most", "target", ""):
        table.add_column(column, justify="left" if column == "cause" else "right")
    for cause, seen in rounds.items():
        subject = CAUSES[cause][0]
        right = [each for each in seen if each.named == subject]
        others = ", ".join(str(each.named) for each in seen if each.named != subject) or "-"
        delays = [each.after_s for each in right] or [0.0]
        row = (f"{len(right)} of {len(seen)}", others, f"{median(delays):.0f}, {max(delays):.0f}")
        table.add_row(cause, subject, *row, f"{RIGHT_TARGET:.0%}", _verdict(len(right), len(seen), RIGHT_TARGET))
    silent = sum(not each for each in quiet)
    loud = ", ".join(key for each in quiet for key in each) or "-"
    row = (f"{silent} of {len(quiet)}", loud, "", f"{QUIET_TARGET:.0%}", _verdict(silent, len(quiet), QUIET_TARGET))
    table.add_row("quiet stretches", "nothing", *row)
    return table


def _verdict(hits: int, of: int, target: float) -> str:
    return "ok" if hits >= target * of else "MISSED"


if __name__ == "__main__":
    main()
