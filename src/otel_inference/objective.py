"""What a user promises of a model: service level objectives, as written in the environment and in code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_UNITS_S: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_LATENCY: Final = re.compile(r"\s*(?P<ratio>[0-9.]+)\s*<\s*(?P<amount>[0-9.]+)\s*(?P<unit>s|ms|us)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyObjective:
    """A share of successful calls that ends within a time."""

    ratio: float
    threshold_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorObjective:
    """A share of calls that succeeds."""

    ratio: float


def parse_latency_objective(text: str) -> LatencyObjective:
    """Read an objective such as `0.99<0.5s`: 99 % of successful calls end within half a second.

    Args:
        text: Ratio, `<`, and a time in `s`, `ms` or `us`.

    Raises:
        ValueError: If it means nothing; its text says what was expected.

    >>> parse_latency_objective("0.99<500ms")
    LatencyObjective(ratio=0.99, threshold_s=0.5)
    """
    match = _LATENCY.fullmatch(text)
    ratio = None if match is None else _ratio(match["ratio"])
    amount = None if match is None else _number(match["amount"])
    if match is None or ratio is None or not amount:
        msg = "a share of calls and a time, such as 0.99<0.5s or 0.95<200ms"
        raise ValueError(msg)
    return LatencyObjective(ratio=ratio, threshold_s=amount * _UNITS_S[match["unit"]])


def parse_error_objective(text: str) -> ErrorObjective:
    """Read an objective such as `0.999`: at most one call in a thousand fails.

    Raises:
        ValueError: If it means nothing; its text says what was expected.

    >>> parse_error_objective("0.999")
    ErrorObjective(ratio=0.999)
    """
    ratio = _ratio(text)
    if ratio is None:
        msg = "a share of calls that succeeds, above 0 and below 1, such as 0.999"
        raise ValueError(msg)
    return ErrorObjective(ratio=ratio)


def _ratio(text: str) -> float | None:
    number = _number(text)
    return number if number is not None and 0 < number < 1 else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
