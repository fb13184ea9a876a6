"""The report as tables on a terminal. Needs `rich`; import it late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.table import Table
from rich.text import Text

from otel_inference.cli.screen import screen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from otel_inference.cli.report import CallFigures, ErrorFigures, Figures, LoadFigures

_NOTHING: Final = "-"


def show(figures: Figures, file: IO[str] | None = None) -> None:
    """Print the tables that have lines.

    Args:
        figures: What to print.
        file: Where to; default: standard output.
    """
    console = screen(file)
    if figures.calls:
        console.print(_calls_table(figures.calls, is_estimate=figures.is_estimate))
    if figures.loads:
        console.print(_loads_table(figures.loads))
    if figures.errors:
        console.print(_errors_table(figures.errors))


def duration(seconds: float | None) -> str:
    """Seconds with three digits, in a unit that suits them.

    >>> duration(0.01234), duration(12.345), duration(0.0000071), duration(None)
    ('12.3 ms', '12.3 s', '7.10 us', '-')
    """
    if seconds is None:
        return _NOTHING
    if seconds >= 1:
        return f"{_three_digits(seconds)} s"
    if seconds >= 0.001:  # noqa: PLR2004 - a millisecond
        return f"{_three_digits(seconds * 1e3)} ms"
    return f"{_three_digits(seconds * 1e6)} us"


def _three_digits(number: float | None) -> str:
    if number is None:
        return _NOTHING
    return next(
        (f"{number:.{digits}f}" for limit, digits in ((9.995, 2), (99.95, 1)) if number < limit), f"{number:.0f}"
    )


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _calls_table(lines: Sequence[CallFigures], *, is_estimate: bool) -> Table:
    """The calls; where spans were sampled, also how many spans a line rests on."""
    table = _table(
        "Calls, estimated from sampled spans" if is_estimate else "Calls",
        ("model", "operation"),
        (
            *(("spans",) if is_estimate else ()),
            *("calls", "errors", "calls/s", "p50", "p90", "p99", "tokens/s", "1st token"),
        ),
    )
    for line in lines:
        table.add_row(
            Text(line.model),
            Text(line.operation),
            *((str(line.spans),) if is_estimate else ()),
            str(line.calls),
            Text(str(line.errors), style="red" if line.errors else ""),
            _three_digits(line.calls_per_s),
            duration(line.p50_s),
            duration(line.p90_s),
            duration(line.p99_s),
            _three_digits(line.tokens_per_s),
            duration(line.time_to_first_token_s),
        )
    return table


def _loads_table(lines: Sequence[LoadFigures]) -> Table:
    table = _table("Loads", ("model", "engine"), ("loads", "errors", "longest load"))
    for line in lines:
        table.add_row(Text(line.model), Text(line.engine), str(line.loads), str(line.errors), duration(line.longest_s))
    return table


def _errors_table(lines: Sequence[ErrorFigures]) -> Table:
    table = _table("Errors", ("model", "operation", "error"), ("count",))
    for line in lines:
        table.add_row(Text(line.model), Text(line.operation), Text(line.error_type), str(line.count))
    return table
