"""Saying of a model that something was asked for and no call was seen of, which mostly is a name spelt otherwise."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from otel_inference.nearest import hint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_log = logging.getLogger("otel_inference")

_ENOUGH: Final = 1000
"""Calls of other models after which one of this name should have been seen."""
_NAMED: Final = 5
"""Models that the warning names."""


class Unheard:
    """Warns once of each such name."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def notice(self, asked: Iterable[tuple[str, str]], calls: Mapping[str, int]) -> None:
        """Look whether all names have been heard of.

        Args:
            asked: What was asked for and for which model, such as `("limit()", "ranker")`.
            calls: How many calls each model has ended.
        """
        silent = {model: what for what, model in asked if model not in calls and model not in self._told}
        if not silent or sum(calls.values()) < _ENOUGH:
            return
        most_called = sorted(calls, key=calls.__getitem__, reverse=True)
        others = ", ".join(map(repr, most_called[:_NAMED])) + (", ..." if len(calls) > _NAMED else "")
        for model, what in silent.items():
            self._told.add(model)
            _log.warning(
                "%s was asked for the model %r, of which no call has been seen%s; the models that are called: %s",
                what,
                model,
                hint(model, calls),
                others,
            )
