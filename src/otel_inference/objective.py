"""What a user promises of a model: service level objectives, as written in the environment and in code."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

_LATENCY: Final = re.compile(r"\s*([0-9.]+)\s*<\s*([0-9.]+)\s*(s|ms|us)\s*")
_SECONDS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyObjective:
    """A share of the calls that takes less than a time."""

    ratio: float
    """Between 0 and 1."""
    threshold_s: float
    """More than 0."""

    def __post_init__(self) -> None:
        """Refuse what is no objective."""
        check_ratio(self.ratio)
        if not (self.threshold_s > 0 and math.isfinite(self.threshold_s)):
            msg = f"threshold_s is {self.threshold_s!r}; expected a positive number of seconds"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorObjective:
    """A share of the calls that succeeds."""

    ratio: float
    """Between 0 and 1."""

    def __post_init__(self) -> None:
        """Refuse what is no objective."""
        check_ratio(self.ratio)


def check_ratio(ratio: float) -> None:
    """Refuse what is no share of calls that may be promised.

    Raises:
        ValueError: If it is not above 0 and below 1.
    """
    if not 0 < ratio < 1:
        msg = f"ratio is {ratio!r}; expected a share of calls between 0 and 1, such as 0.99"
        raise ValueError(msg)


def parse_latency_objective(text: str) -> LatencyObjective:
    """Read an objective such as `0.99<0.5s`: 99 % of the calls take less than half a second.

    Raises:
        ValueError: If it is none; its text is what was expected.

    >>> parse_latency_objective("0.95 < 250ms")
    LatencyObjective(ratio=0.95, threshold_s=0.25)
    """
    match = _LATENCY.fullmatch(text)
    try:
        if match is not None:
            share, number, unit = match.groups()
            return LatencyObjective(ratio=float(share), threshold_s=float(number) * _SECONDS[unit])
    except ValueError:
        pass
    msg = "a share of calls between 0 and 1 and a time in s, ms or us, such as 0.99<0.5s"
    raise ValueError(msg)


def parse_error_objective(text: str) -> ErrorObjective:
    """Read an objective such as `0.999`: 99.9 % of the calls succeed.

    Raises:
        ValueError: If it is none; its text is what was expected.

    >>> parse_error_objective("0.999")
    ErrorObjective(ratio=0.999)
    """
    try:
        return ErrorObjective(ratio=float(text))
    except ValueError:
        msg = "a share of calls between 0 and 1, such as 0.999"
        raise ValueError(msg) from None
