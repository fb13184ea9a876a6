"""Memory that grows steadily towards its limit."""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference.diagnosis.lifecycle import Latch, Verdict
from otel_inference.finding import FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_inference.resources.reading import Reading

_EVERY_S: Final = 30.0
_SPANS: Final = (10, 20, 60)
"""Samples that are looked at: of five and ten minutes, and of half an hour."""
_SHARE_PER_S: Final = 0.01 / 60
"""Of the limit: one percent a minute."""
_LEFT_S: Final = 3600.0
_SOON_S: Final = 600.0
_CRITICAL_LEFT_S: Final = 300.0
_LEAST_BYTES: Final = 64 << 20


class _Trend(NamedTuple):
    """How memory grows over some samples."""

    since_s: float
    slope: float
    """Bytes per second."""
    left_s: float
    """Until the limit is reached."""
    level: float
    """As a share of what is a finding."""


class MemoryGrowthRule:
    """Finds that resident memory grows by 1 % of its limit a minute, or will reach it within the hour.

    The slope is the median of the slopes between all pairs of samples, taken every 30 s (Theil 1950, Sen 1968). Both
    halves of the samples have to grow, so that one large allocation is no growth, and by 64 MiB in all. Half an hour
    is looked at, ten minutes, and five where less than ten are left.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SPANS[-1])
        self._latch = Latch()
        self._verdicts: Sequence[Verdict] = ()

    def judge(self, reading: Reading | None, at_s: float) -> Sequence[Verdict]:
        """What holds now."""
        if reading is None or reading.rss_bytes is None or not reading.memory_limit_bytes:
            return ()
        if not self._samples or at_s - self._samples[-1][0] >= _EVERY_S:
            self._samples.append((at_s, reading.rss_bytes))
            limit_bytes = min(reading.memory_limit_bytes, reading.memory_high_bytes or reading.memory_limit_bytes)
            trend = _worst([*self._samples], limit_bytes)
            if not self._latch.update(0.0 if trend is None else trend.level, at_s):
                self._verdicts = ()
            elif trend is not None:
                self._verdicts = (self._verdict(trend, reading.rss_bytes, limit_bytes, at_s),)
        return self._verdicts

    @staticmethod
    def _verdict(trend: _Trend, rss_bytes: int, limit_bytes: int, at_s: float) -> Verdict:
        return Verdict(
            kind=FindingKind.MEMORY_GROWTH,
            severity=Severity.CRITICAL if trend.left_s < _CRITICAL_LEFT_S else Severity.WARNING,
            since_s=trend.since_s,
            evidence={
                "growth_bytes_per_s": round(trend.slope),
                "rss_bytes": rss_bytes,
                "memory_limit_bytes": limit_bytes,
                "window_s": round(at_s - trend.since_s, 1),
            },
            advice="Memory grows and does not come back: collect_garbage and trim_heap; recycle_worker before the limit is reached.",
        )


def _worst(samples: Sequence[tuple[float, float]], limit_bytes: int) -> _Trend | None:
    """The trend that is worst among those that there are enough samples for."""
    trends = []
    for span in _SPANS:
        if len(samples) >= span:
            trend = _trend(samples[-span:], limit_bytes)
            if span > _SPANS[0] or trend.left_s < _SOON_S:
                trends.append(trend)
    return max(trends, key=lambda trend: trend.level, default=None)


def _trend(samples: Sequence[tuple[float, float]], limit_bytes: int) -> _Trend:
    half = len(samples) // 2
    slope = min(_slope(samples[:half]), _slope(samples[half:]), _slope(samples))
    left_bytes = max(0.0, limit_bytes - samples[-1][1])
    left_s = left_bytes / slope if slope > 0 else math.inf
    level = max(slope / (_SHARE_PER_S * limit_bytes), _LEFT_S / max(left_s, 1.0))
    if slope * (samples[-1][0] - samples[0][0]) < _LEAST_BYTES:
        level = 0.0
    return _Trend(samples[0][0], slope, left_s, level)


def _slope(samples: Sequence[tuple[float, float]]) -> float:
    """Median slope between all pairs.

    >>> _slope([(0.0, 0.0), (1.0, 2.0), (2.0, 4.0), (3.0, 6.0), (4.0, 80.0)])
    2.0
    """
    return median(_slopes(samples))


def _slopes(samples: Sequence[tuple[float, float]]) -> Iterable[float]:
    for index, (at_s, value) in enumerate(samples):
        for later_s, later in samples[index + 1 :]:
            yield (later - value) / (later_s - at_s)
