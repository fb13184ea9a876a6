"""The results in words and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from results import Run

OVERLOAD = "overload x5"
AFTER = "after it"


def figures_of(run: Run) -> dict[str, dict[str, float]]:
    """The figures of each phase."""
    return {
        result.phase.name: {
            "asked_per_s": len(result.answers) / result.seconds,
            "goodput_per_s": result.goodput,
            "goodput_over_best": result.goodput / run.best.per_s,
            "goodput_over_best_by_cpu": result.good / max(result.cpu_s, 1e-9) / run.best.per_cpu_s,
            "p99_s": result.p99_s,
            "turned_away_ratio": result.share(503),
            "unanswered_ratio": result.share(0),
            "rss_bytes": result.rss_bytes,
        }
        for result in run.results
    }


def table(run: Run) -> Table:
    """One run, phase by phase."""
    shown = Table(title=run.name, title_justify="left")
    columns = ("phase", "asked/s", "goodput/s", "of best", "by CPU", "p99 served", "turned away", "no answer", "memory")
    for column in columns:
        shown.add_column(column, justify="left" if column == "phase" else "right")
    for phase, figures in figures_of(run).items():
        shown.add_row(
            phase,
            f"{figures['asked_per_s']:.0f}",
            f"{figures['goodput_per_s']:.1f}",
            f"{figures['goodput_over_best']:.2f}",
            f"{figures['goodput_over_best_by_cpu']:.2f}",
            f"{figures['p99_s'] * 1000:,.0f} ms",
            f"{figures['turned_away_ratio']:.1%}",
            f"{figures['unanswered_ratio']:.1%}",
            f"{figures['rss_bytes'] / 2**20:.0f} MiB",
        )
    return shown


def events_table(run: Run) -> Table:
    """What was found and done, and in which phase."""
    shown = Table(title=f"{run.name}: findings and actions", title_justify="left")
    for column in ("phase", "after", "what", "which", "why, or what helps"):
        shown.add_column(column, overflow="fold")
    for event in run.events:
        place = run.place_of(event.at_s)
        where = ("warm-up", "") if place is None else (place[0].phase.name, f"{place[1]:.0f} s")
        shown.add_row(*where, event.what, event.which, event.detail)
    return shown


def summary(with_: Run, without: Run) -> str:
    """The overload and what came after it."""
    good, bad = with_.of(OVERLOAD), without.of(OVERLOAD)
    lines = [
        (
            f"At five times what it can do goodput is {good.goodput / with_.best.per_s:.2f} of the best "
            f"({good.good / good.cpu_s / with_.best.per_cpu_s:.2f} by second of its CPU time), "
            f"{good.goodput / max(bad.goodput, 1 / bad.seconds):.0f} times that without."
        )
    ]
    for run in (with_, without):
        step, growth = run.grown_bytes("half", "overload x2"), run.grown_bytes("overload x2", "recovered")
        after_s = run.recovered_after_s(OVERLOAD, AFTER)
        again = "not" if after_s is None else f"{after_s:.1f} s after the overload"
        lines.append(
            f"{run.name}: memory {step / 2**20:+.0f} MiB with the first overload and {growth / 2**20:+.0f} MiB after that; "
            f"nine of ten requests answered in time again: {again}."
        )
    return "\n".join(lines)
