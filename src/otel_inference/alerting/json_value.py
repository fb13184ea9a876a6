"""What JSON can hold."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def finite(value: object) -> object:
    """The same, with `None` for every number that JSON cannot write.

    >>> finite({"p99_s": float("inf"), "calls": 3})
    {'p99_s': None, 'calls': 3}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return value


def rfc3339(at: datetime) -> str:
    """A time, to the millisecond, in UTC.

    >>> rfc3339(datetime(2026, 8, 1, 12, tzinfo=UTC))
    '2026-08-01T12:00:00.000Z'
    """
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
