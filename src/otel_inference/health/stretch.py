"""What ended in one stretch of ten seconds: the unit that shifts are looked for in."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, log2
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

STRETCH_S: Final = 10.0
MAX_SIZES: Final = 16
"""Classes kept apart in one stretch, so that its memory is bounded; calls of further ones are of unknown size."""
_SHORTEST_S: Final = 1e-9
_UNKNOWN: Final = -1


class Exemplar(NamedTuple):
    """A call to look at."""

    trace_id: int
    span_id: int


class SizeKey(NamedTuple):
    """Class of a call's size: `size_class` of its input, and of its output tokens.

    Where both are known both are rounded down to even ones, whole powers of two, for pairs are many.
    """

    input_class: int
    output_class: int


@dataclass(slots=True)
class SizeTotals:
    """Successful warm calls of one class of sizes."""

    calls: int = 0
    service_s: float = 0.0
    """Sum of the time they were worked on: duration without waiting for a place."""
    log_service: float = 0.0
    """Sum of the natural logarithms of it."""
    log_square: float = 0.0
    """Sum of the squares of the logarithms."""


class Stretch:
    """Counts and sums of the calls that ended from `started_s` to `ended_s`.

    Attributes:
        started_s: Begin, on the clock of whoever adds.
        ended_s: End; `started_s + STRETCH_S` for a full one.
        calls: Calls that ended, failed and rejected ones included.
        errors: Calls that failed, rejected ones included.
        rejected: Calls that a limiter turned away.
        cold: Successful first calls.
        duration_s: Sum of the durations of successful warm calls.
        queue_s: Sum of the time that calls waited before they were worked on; not of those that were turned away.
        max_s: Longest successful warm call.
        by_size: Successful warm calls by size.
        stage_s: Seconds spent in the stages of calls (`preprocess`, `prefill`, `decode`, ...), where engines tell them.
        device_s: Seconds an accelerator worked on calls, where it is timed.
        slowest: The longest call of those with a span context.
        failed: A failed call of those with a span context.
    """

    __slots__ = (
        "by_size", "calls", "cold", "device_s", "duration_s", "ended_s", "errors", "failed", "max_s", "queue_s",
        "rejected", "slowest", "stage_s", "started_s",
    )  # fmt: skip

    def __init__(self, started_s: float, ended_s: float) -> None:
        self.started_s = started_s
        self.ended_s = ended_s
        self.calls = self.errors = self.rejected = self.cold = 0
        self.duration_s = self.queue_s = self.max_s = self.device_s = 0.0
        self.by_size: dict[SizeKey, SizeTotals] = {}
        self.stage_s: dict[str, float] = {}
        self.slowest: Exemplar | None = None
        self.failed: Exemplar | None = None

    def add(
        self,
        duration_s: float,
        *,
        failed: bool = False,
        rejected: bool = False,
        cold: bool = False,
        input_size: int | None = None,
        output_tokens: int | None = None,
        queue_s: float = 0.0,
        exemplar: Exemplar | None = None,
    ) -> None:
        """Count one ended call; see the attributes."""
        self.calls += 1
        if queue_s and not rejected:
            self.queue_s += queue_s
        if failed:
            self.errors += 1
            self.rejected += rejected
            if not (rejected and self.failed):  # a call that was turned away shows nothing of the model's own failures
                self.failed = exemplar or self.failed
        elif cold:
            self.cold += 1
        else:
            self.duration_s += duration_s
            if duration_s > self.max_s:
                self.max_s = duration_s
                self.slowest = exemplar or self.slowest
            if output_tokens is None:
                key = (size_class(input_size), _UNKNOWN)
            else:
                key = (_UNKNOWN if input_size is None else size_class(input_size) & ~1, size_class(output_tokens) & ~1)
            # A plain tuple is equal to a named one, and cheaper to make.
            totals = self.by_size.get(key)  # type: ignore[call-overload]
            if totals is None:
                totals = self._totals_of(SizeKey(*key))
            service_s = duration_s - queue_s
            logarithm = log(service_s if service_s > _SHORTEST_S else _SHORTEST_S)  # noqa: FURB136 - half the time of max()
            totals.calls += 1
            totals.service_s += service_s
            totals.log_service += logarithm
            totals.log_square += logarithm * logarithm

    def _totals_of(self, key: SizeKey) -> SizeTotals:
        if len(self.by_size) >= MAX_SIZES:
            key = SizeKey(_UNKNOWN, _UNKNOWN)
        return self.by_size.setdefault(key, SizeTotals())

    def add_stages(self, stage_ns: Mapping[str, int]) -> None:
        """Add the nanoseconds that one call spent in its stages."""
        for stage, spent_ns in stage_ns.items():
            self.stage_s[stage] = self.stage_s.get(stage, 0.0) + spent_ns / 1e9


def size_class(size: int | None) -> int:
    """Class of a size, each 1.41 times as large as the one before: floor(2 log2 size); -1 where unknown.

    >>> [size_class(size) for size in (None, 0, 1, 2, 3, 4)]
    [-1, 0, 0, 2, 3, 4]
    """
    if size is None:
        return _UNKNOWN
    return int(2 * log2(size)) if size >= 1 else 0
