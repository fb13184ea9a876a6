"""The results as a picture."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("agg")
from typing import TYPE_CHECKING

from matplotlib import pyplot as plt
from results import DEADLINE_S, Run, in_time, p99

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

COLOURS = ("tab:blue", "tab:red")


def draw(path: Path, runs: list[Run]) -> None:
    """Goodput, latency, refusals, findings and actions of both runs, phase by phase on one time axis."""
    ratios = [3, 2, 2, 1.6]
    figure, axes = plt.subplots(4, 1, figsize=(11, 11), sharex=True, layout="constrained", height_ratios=ratios)
    for run, colour in zip(runs, COLOURS, strict=True):
        draw_answers(axes[:3], run, colour)
    draw_events(axes[3], runs)
    results = runs[0].results
    for index, result in enumerate(results):
        start_s = index * result.seconds
        for each in axes:
            each.axvspan(start_s, start_s + result.seconds, color="black", alpha=0.035 * (index % 2), linewidth=0)
        label = f"{result.phase.name}\n{len(result.answers) / result.seconds:.0f}/s asked"
        axes[0].annotate(label, (start_s + 0.2, 1.02), xycoords=("data", "axes fraction"), fontsize=8)
    axes[0].axhline(runs[0].best.per_s, color="grey", linestyle=":", label="best without overload")
    axes[0].set_ylabel(f"goodput\n(answers within {DEADLINE_S} s, per second)")
    axes[1].axhline(DEADLINE_S, color="grey", linestyle=":", label="deadline")
    axes[1].set_yscale("log")
    axes[1].set_ylabel("99th percentile of\nwhat was served (s)")
    axes[2].set_ylabel("turned away (full)\nand unanswered (dashed)\nper second")
    axes[3].set_xlabel("time (s); waits for late answers between two phases are left out")
    axes[0].set_xlim(0, len(results) * results[0].seconds)
    for each in axes[:2]:
        each.set_ylim(bottom=0 if each is axes[0] else None)
        each.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=110)


def draw_answers(axes: list[Axes], run: Run, colour: str) -> None:
    """What became of the requests of each second."""
    seconds = int(len(run.results) * run.results[0].seconds)
    counts = {name: [0] * seconds for name in ("good", "away", "none")}
    served: list[list[float]] = [[] for _ in range(seconds)]
    for index, result in enumerate(run.results):
        for answer in result.answers:
            second = min(int(index * result.seconds + answer.at_s - result.began_s), seconds - 1)
            counts["good"][second] += in_time(answer)
            counts["away"][second] += answer.status == 503
            counts["none"][second] += answer.status == 0
            if answer.status == 200:
                served[second].append(answer.took_s)
    middle = [second + 0.5 for second in range(seconds)]
    axes[0].plot(middle, counts["good"], label=run.name, color=colour)
    axes[1].plot(middle, [p99(each) for each in served], label=run.name, color=colour, marker=".", markersize=3)
    axes[2].plot(middle, counts["away"], color=colour)
    axes[2].plot(middle, counts["none"], color=colour, linestyle="--")


def draw_events(axes: Axes, runs: list[Run]) -> None:
    """A bar for each finding while it was open, and a mark for each action."""
    rows: list[str] = []
    for run, colour in zip(runs, COLOURS, strict=True):
        opened: dict[str, float] = {}
        end_s = len(run.results) * run.results[0].seconds
        for event in run.events:
            at_s = time_of(run, event.at_s)
            # The model is the same in all.
            row = f"{event.which.rpartition(':')[0] or event.which} ({run.name})"
            if row not in rows:
                rows.append(row)
            if event.what == "finding opened":
                opened[row] = at_s
            elif event.what == "finding closed":
                axes.barh(row, at_s - opened.get(row, 0.0), left=opened.pop(row, 0.0), color=colour, height=0.5)
            else:
                axes.plot([at_s], [row], marker="D", color=colour, markersize=6)
        for row, at_s in opened.items():
            axes.barh(row, end_s - at_s, left=at_s, color=colour, height=0.5)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylabel("findings (bars)\nand actions (marks)")


def time_of(run: Run, at_s: float) -> float:
    """A time on the axis of the picture, where phases follow each other at once."""
    place = run.place_of(at_s)
    if place is None:
        return 0.0
    result, after_s = place
    return run.results.index(result) * result.seconds + min(after_s, result.seconds)
