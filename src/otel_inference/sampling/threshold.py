"""Probability sampling by threshold: the arithmetic, and the `ot` entry of a tracestate that tells of it.

OpenTelemetry specification, "TraceState: Probability Sampling" and "TraceState Handling": of every
trace 56 bits are random, those at the end of its id, or the value of `rv` where that is given. A
sampler with probability p keeps the trace if these bits are not below its threshold
(1 - p) * 2**56, and says so as `th`. Whoever decides so keeps a trace that anybody with a smaller
probability keeps, and a span that was kept stands for 2**56 / (2**56 - threshold).
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final

RANDOM_BITS: Final = 56
MAX_THRESHOLD: Final = 1 << RANDOM_BITS
"""Above all random values: keeps nothing."""
RANDOM_MASK: Final = MAX_THRESHOLD - 1

_DIGITS: Final = RANDOM_BITS // 4
_HEXADECIMAL: Final = frozenset(string.hexdigits)
_MAX_ENTRY: Final = 256
"""Characters of a tracestate entry's value (W3C Trace Context)."""


def threshold_of(probability: float) -> int:
    """The threshold below which random values are not kept.

    Args:
        probability: From 0 to 1; what lies outside counts as the nearer of them.

    >>> [f"{threshold_of(p):014x}" for p in (1.0, 0.5, 0.25)]
    ['00000000000000', '80000000000000', 'c0000000000000']
    """
    return MAX_THRESHOLD - round(min(1.0, max(0.0, probability)) * MAX_THRESHOLD)


def probability_of(threshold: int) -> float:
    """The share of traces that a threshold keeps.

    >>> probability_of(threshold_of(0.125))
    0.125
    """
    return (MAX_THRESHOLD - threshold) / MAX_THRESHOLD


def format_threshold(threshold: int) -> str:
    """A threshold as `th` gives it: up to 14 hexadecimal digits, without zeros at their end.

    >>> [format_threshold(threshold_of(p)) for p in (1.0, 0.25, 2 / 3)]
    ['0', 'c', '55555555555558']
    """
    return f"{threshold:014x}".rstrip("0") or "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtEntry:
    """The value of the tracestate entry `ot`."""

    threshold: int | None = None
    """`th`; `None` where there is none, or one that means nothing."""
    random_value: int | None = None
    """`rv`; `None` where the trace id has the random bits."""
    others: tuple[str, ...] = ()
    """The rest of its members, as they were."""

    @classmethod
    def parse(cls, text: str) -> OtEntry:
        """Read the entry's value; a member that means nothing is left out.

        >>> OtEntry.parse("th:c;rv:0123456789abcd;x:y").others
        ('x:y',)
        """
        threshold = random_value = None
        others = []
        for member in text.split(";"):
            key, _, value = member.partition(":")
            if key == "th":
                threshold = _hexadecimal(value.ljust(_DIGITS, "0")) if value else None
            elif key == "rv":
                random_value = _hexadecimal(value)
            elif member:
                others.append(member)
        return cls(threshold=threshold, random_value=random_value, others=tuple(others))

    def format(self) -> str:
        """The entry's value; empty where nothing is to be said, in which case there is no entry.

        A threshold that keeps nothing cannot be written, and is left out.

        >>> OtEntry(threshold=threshold_of(0.25), others=("x:y",)).format()
        'th:c;x:y'
        """
        members = []
        if self.threshold is not None and self.threshold < MAX_THRESHOLD:
            members.append(f"th:{format_threshold(self.threshold)}")
        if self.random_value is not None:
            members.append(f"rv:{self.random_value:014x}")
        members.extend(self.others)
        text = ";".join(members)
        while len(text) > _MAX_ENTRY:
            text = text.rpartition(";")[0]
        return text


def _hexadecimal(text: str) -> int | None:
    """The number that exactly 14 hexadecimal digits give, else `None`."""
    return int(text, 16) if len(text) == _DIGITS and _HEXADECIMAL.issuperset(text) else None
