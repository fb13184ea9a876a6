"""What is to be done as soon as no lock is held."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

_Item = TypeVar("_Item")


def each(items: deque[_Item]) -> Iterator[_Item]:
    """One after the other, each taken off only when it has been dealt with: an interruption loses none.

    Two threads may come upon the same one, to whom nothing happens the second time.
    """
    while items:
        try:
            item = items[0]
        except IndexError:
            return
        yield item
        with suppress(ValueError):
            items.remove(item)
