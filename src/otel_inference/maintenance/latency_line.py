"""The 95th percentile that each level of a knob had, and the line through them."""

from __future__ import annotations

from typing import Final

_MEMORY: Final = 20
"""Windows after which an earlier one has faded by 1/e."""


class LatencyLine:
    """Says what latency to expect of a level that was not tried, so that it need not be tried to break an objective.

    A batch of n items takes about a n + b, so a line it is; weighted by the windows seen of each level and by their
    relative precision, which is the same for all. Where latency does not follow the level like that, a wrong guess costs
    a trial that is not made, until speed drifts.

    Source: least squares as in BentoML's dispatcher, over percentiles instead of single batches.

    >>> line = LatencyLine()
    >>> line.add(1, 0.5)
    >>> line.add(3, 0.7)
    >>> round(line.expected(5), 3)
    0.9
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[float, tuple[int, float]] = {}
        """Windows, and mean in seconds, by level."""

    def add(self, level: float, p95_s: float) -> None:
        """Add a window's 95th percentile."""
        count, mean_s = self._seen.get(level, (0, 0.0))
        count = min(count + 1, _MEMORY)
        self._seen[level] = (count, mean_s + (p95_s - mean_s) / count)

    def scale(self, factor: float) -> None:
        """Expect all levels to take `factor` times as long as they did."""
        self._seen = {level: (count, mean_s * factor) for level, (count, mean_s) in self._seen.items()}

    def expected(self, level: float) -> float | None:
        """Seconds on the line at `level`; `None` while fewer than two levels were seen."""
        if len(self._seen) < 2:  # noqa: PLR2004 - two points make a line
            return None
        weights = [(count / mean_s**2, at, mean_s) for at, (count, mean_s) in self._seen.items()]
        total = sum(weight for weight, _, _ in weights)
        centre = sum(weight * at for weight, at, _ in weights) / total
        centre_s = sum(weight * mean_s for weight, _, mean_s in weights) / total
        spread = sum(weight * (at - centre) ** 2 for weight, at, _ in weights)
        slope = sum(weight * (at - centre) * (mean_s - centre_s) for weight, at, mean_s in weights) / spread
        return centre_s + slope * (level - centre)
