"""Kinds of options: how their text in the environment is read, and which values mean something in code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otel_inference.address import EXPECTED, Address
from otel_inference.objective import parse_error_objective, parse_latency_objective

if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS: Final = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of option."""

    expected: str
    """What a value has to be, as the end of a sentence."""
    parse: Callable[[str], Any]
    """The value of a text; raises `ValueError` where it has none."""
    valid: Callable[[Any], bool]
    """Whether a value means something."""
    secret: bool = False
    """Whether a value is never to be shown."""

    def read(self, text: str) -> Any:
        """The value of `text`.

        Raises:
            ValueError: If it has none, or one that means nothing; its text says what was expected.
        """
        try:
            value = self.parse(text)
        except (ValueError, KeyError):
            value = None
        if value is None or not self.valid(value):
            raise ValueError(self.expected)
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(low: float, high: float, expected: str) -> Kind:
    """A number from `low` to `high`."""
    return Kind(expected=expected, parse=float, valid=lambda value: _is_number(value) and low <= value <= high)


def choice(*names: str) -> Kind:
    """One of a few names."""
    expected = f"{', '.join(names[:-1])} or {names[-1]}"
    return Kind(expected=expected, parse=str, valid=lambda value: value in names)


def names_of(what: str, example: str) -> Kind:
    """A list of names, in the environment separated by commas."""
    return Kind(
        expected=f"{what} separated by commas, such as {example}",
        parse=lambda text: tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip())),
        valid=lambda value: (
            isinstance(value, (tuple, list)) and len(value) > 0 and all(isinstance(name, str) for name in value)
        ),
    )


def objective(parse: Callable[[str], object], expected: str) -> Kind:
    """A service level objective: one for every model, in code also one by model name."""

    def valid(value: Any) -> bool:
        texts = value.values() if isinstance(value, Mapping) else (value,)
        try:
            return all(isinstance(text, str) and parse(text) is not None for text in texts)
        except ValueError:
            return False

    return Kind(expected=expected, parse=str, valid=valid)


def _is_address(text: str) -> bool:
    try:
        Address.of(text)
    except ValueError:
        return False
    return True


FLAG: Final = Kind(
    expected="true or false", parse=lambda text: _FLAGS[text.lower()], valid=lambda value: isinstance(value, bool)
)
COUNT: Final = Kind(
    expected="a whole number of at least 1",
    parse=int,
    valid=lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
)
URL: Final = Kind(
    expected=EXPECTED,
    parse=str,
    valid=lambda value: isinstance(value, str) and _is_address(value),
    secret=True,  # its path or its query may be a password
)
PATH: Final = Kind(
    expected="the path of a file", parse=str, valid=lambda value: isinstance(value, str) and value.strip() != ""
)
LATENCY_OBJECTIVE: Final = objective(
    parse_latency_objective, "a share of calls and a time, such as 0.99<0.5s or 0.95<200ms"
)
ERROR_OBJECTIVE: Final = objective(
    parse_error_objective, "a share of calls that succeeds, above 0 and below 1, such as 0.999"
)
