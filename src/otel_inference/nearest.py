"""Which name may have been meant where one is given that nobody knows."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, whatever the case of their letters; `None` where none is like it.

    >>> nearest("Trch", ["torch", "onnxruntime"]), nearest("fish", ["torch", "onnxruntime"])
    ('torch', None)
    """
    by_folded = {each.casefold(): each for each in known}
    matches = difflib.get_close_matches(name.casefold(), list(by_folded), n=1)
    return by_folded[matches[0]] if matches else None


def hint(name: str, known: Iterable[str]) -> str:
    """The same as a part of a sentence, with a space before it; empty where no name is like it."""
    meant = nearest(name, known)
    return "" if meant is None else f" (did you mean {meant}?)"
