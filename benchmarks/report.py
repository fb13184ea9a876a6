"""The measurements as one table, each beside what it is meant to stay under."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks import startup, variants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.timing import Estimate, Timings

RATIO_TARGETS = {variants.SAMPLED: 1.0, variants.UNSAMPLED: 0.5}
NESTED_TARGET_NS = 50.0
IMPORT_TARGET_MS = 30.0
LAUNCHER_TARGET = 1.15


def calls_table() -> Table:
    """Empty, with the columns that `add_calls` fills."""
    table = Table(title="CPU time that one call costs more than the bare call", title_justify="left")
    table.add_column("subject")
    table.add_column("variant", no_wrap=True)
    for column in ("added us", "p10 - p90", "x by hand, sampled", "90 % interval", "target", "", "x with our thread"):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def add_calls(table: Table, title: str, timings: Timings) -> None:
    """One section: a subject with all its variants."""
    table.add_section()
    table.add_row(title, f"bare: {timings.bare_us():,.1f} us, {timings.rounds} rounds")
    for name in (
        variants.BY_HAND,
        variants.BY_HAND_UNSAMPLED,
        variants.SAMPLED,
        variants.UNSAMPLED,
        variants.METRICS_ONLY,
        variants.NO_SDK,
    ):
        added, ratio = timings.added_us(name), timings.ratio(name, variants.BY_HAND)
        row = [f"{added.value:.1f}", _range(added, 1)]
        if name != variants.BY_HAND:
            row += [f"{ratio.value:.2f}", _range(ratio, 2), *_judged(ratio, RATIO_TARGETS.get(name), "{:.2f}")]
            row.append(f"{timings.total_ratio(name, variants.BY_HAND).value:.2f}")
        table.add_row("", name, *row)


def others_table(title: str) -> Table:
    """Empty, for what is not a call."""
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    for column in ("measured", "90 % interval", "target", ""):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def add_nested(table: Table, timings: Timings, submodules: int) -> None:
    """Cost per submodule inside a call that is counted already."""
    added = timings.median_us(variants.NESTED)
    # The model itself is inside the call too.
    each_ns = added.scaled(1000 / (submodules + 1))
    table.add_row(
        f"submodule inside a call (1 of {submodules})",
        f"{each_ns.value:.0f} ns",
        f"{_range(each_ns, 0)} ns",
        *_judged(each_ns, NESTED_TARGET_NS, "{:.0f} ns"),
    )


def add_imports(table: Table, found: Mapping[str, Estimate]) -> None:
    """Imports, beyond OpenTelemetry's API."""
    for name, taken in found.items():
        row = (f"{taken.value:.1f} ms", f"{_range(taken, 1)} ms", *_judged(taken, IMPORT_TARGET_MS, "{:.0f} ms"))
        table.add_row(name, *row)


def add_launcher(table: Table, bare_ms: float, found: Mapping[str, Estimate]) -> None:
    """Starts under the launcher, as ratios to the one that does not see the package."""
    table.add_row("launcher without the package", f"{bare_ms:.0f} ms")
    for name, ratio in found.items():
        target = LAUNCHER_TARGET if name == startup.LAUNCHER else None
        row = (f"{ratio.value:.2f} x", f"{_range(ratio, 2)} x", *_judged(ratio, target, "{:.2f} x"))
        table.add_row(f"launcher {name}", *row)


def _range(estimate: Estimate, digits: int) -> str:
    return f"{estimate.low:.{digits}f} - {estimate.high:.{digits}f}"


def _judged(estimate: Estimate, target: float | None, form: str) -> tuple[str, str]:
    """The target and whether it is met, with a question mark where the interval lies on both sides."""
    if target is None:
        return "", ""
    verdict = "ok" if estimate.value <= target else "miss"
    unsure = estimate.low <= target < estimate.high
    return "<= " + form.format(target), verdict + "?" * unsure
