"""Where tables are printed. Needs `rich`; import it late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from rich.console import Console

if TYPE_CHECKING:
    from typing import IO

_WIDTH: Final = 120
"""Columns where the output is no terminal, so that a line of a table stays a line."""


class _Screen(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command line how it ends, which `rich` would decide by itself."""
        raise BrokenPipeError


def screen(file: IO[str] | None = None) -> Console:
    """A console that is wide enough.

    Args:
        file: What it prints to; default: standard output.
    """
    console = _Screen(file=file, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    return console
