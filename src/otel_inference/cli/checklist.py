"""The results of a check as a list on a terminal; plain where `rich` is not installed."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Final

from otel_inference.cli.check import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.cli.check import Result

_STYLES: Final = {
    Verdict.OK: "green",
    Verdict.SKIPPED: "dim",
    Verdict.WARNING: "yellow",
    Verdict.FAILED: "bold red",
}


def show(results: Sequence[Result]) -> None:
    """Print each result with what to do about it, and a line that counts them."""
    if importlib.util.find_spec("rich") is None:
        sys.stdout.write(plain(results))
    else:
        _print_table(results)
    counts = [f"{sum(result.verdict is verdict for result in results)} {verdict}" for verdict in Verdict]
    sys.stdout.write(", ".join(counts) + "\n")


def plain(results: Sequence[Result]) -> str:
    """The results as text."""
    lines = []
    for result in results:
        lines.append(f"{result.verdict:8} {result.subject:10} {result.found}")
        if result.remedy:
            lines.append(f"{'':19} -> {result.remedy}")
    return "".join(f"{line}\n" for line in lines)


def _print_table(results: Sequence[Result]) -> None:
    from rich import box  # noqa: PLC0415 - an extra
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from otel_inference.cli.screen import screen  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "what", "found, and what to do"):
        table.add_column(name, overflow="fold")
    for result in results:
        found = Text(result.found)
        if result.remedy:
            found.append(f"\n{result.remedy}", style="italic")
        table.add_row(Text(result.verdict, style=_STYLES[result.verdict]), Text(result.subject), found)
    screen().print(table)
