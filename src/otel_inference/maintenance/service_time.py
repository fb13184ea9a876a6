"""How long calls take, learned from those that ended."""

from __future__ import annotations

import math
from typing import Final

_MANY: Final = 50
_FADE: Final = 1 / _MANY
"""Weight of one more call in a fading mean."""
_HIGH: Final = 0.9
"""Quantile of the service time that a waiting call of unknown size is left in overload."""
_HIGH_UP: Final = 0.1 * _HIGH
_HIGH_DOWN: Final = 0.1 * (_HIGH - 1.0)
"""Steps of that quantile over the mean, which balance where one call in ten is slower."""
_SURE_UP: Final = 0.2 * _HIGH_UP
_SURE_DOWN: Final = 0.2 * _HIGH_DOWN
"""Steps of the same quantile of the time over what was expected of the size; shorter, for it is nearer to 1."""
_WARM_UP: Final = 3
"""First calls of each size class, which teach nothing: they compile, allocate and load."""
_OUTLIER: Final = 10.0
"""A service time counts for at most so many times what was expected."""
_ENOUGH: Final = 10
"""Calls to know before one can be an outlier."""
_SURE: Final = 1.2
_SUREST: Final = 1.5
"""What a sized call may need beyond what is expected of it, as a factor: at first, and at most."""
_VARIED: Final = 0.3
"""Standard deviation of what is expected of sized calls, over their mean, from which on sizes are looked at."""


class ServiceTime:
    """How long calls are worked on, and how that grows with their size.

    Of sized calls: least squares with fading weights of time = fixed + per_size * size, neither part negative. Of
    the others: the mean. The high quantile is kept as a multiple of the mean, so that it follows at once when the
    machine becomes slower; it moves by stochastic approximation (Robbins and Monro, 1951).

    Attributes:
        mean_s: Fading mean of all calls; 0 while none is known.
        mean_size: Fading mean of the known sizes; 0 while none is.
        varied: Whether calls are expected to take different times for their size.
        sure: 0.9 quantile of what a sized call takes over what was expected of it, at least 1 and at most 1.5.
    """

    __slots__ = (
        "_fitted", "_high", "_known", "_known_sized", "_seen", "_size_square", "_size_time", "_time", "_warm",
        "mean_s", "mean_size", "sure", "varied",
    )  # fmt: skip

    def __init__(self) -> None:
        self.mean_s = 0.0
        self._high = -math.log(1.0 - _HIGH)  # as of an exponential distribution
        self._known = self._known_sized = 0
        self.mean_size = self._time = self._size_square = self._size_time = 0.0
        self._fitted: tuple[float, float] | None = 0.0, 0.0
        self._seen: dict[int, int] = {}
        self._warm: set[int] = set()
        """Size classes of which more than the first calls have been seen."""
        self.varied = False
        self.sure = _SURE

    @property
    def high_s(self) -> float:
        """0.9 quantile of all calls."""
        return self._high * self.mean_s

    def expect(self, size: float | None) -> float:
        """Seconds that a call of this size takes; 0 while none is known."""
        if size is None or not self._known_sized:
            return self.mean_s
        fixed_s, per_size_s = self.fit()
        return fixed_s + per_size_s * size

    def fit(self) -> tuple[float, float]:
        """Seconds that a sized call takes whatever its size, and seconds per unit of size."""
        if self._fitted is None:
            size, time_s = self.mean_size, self._time
            spread = self._size_square - size * size
            # Sizes that are all alike say nothing of how time grows with them.
            alike = spread <= 1e-6 * self._size_square
            slope = 0.0 if alike else (self._size_time - size * time_s) / spread
            per_size_s = min(max(slope, 0.0), time_s / size)
            self._fitted = time_s - per_size_s * size, per_size_s
            self.varied = per_size_s * per_size_s * spread > _VARIED * _VARIED * time_s * time_s
        return self._fitted

    def doubt(self, service_s: float, size: float) -> None:
        """Learn from a sized call how far one may be above what is expected of it; before `learn`.

        Args:
            service_s: How long it was worked on.
            size: Its size.
        """
        expected_s = self.expect(size)
        if expected_s:
            step = _SURE_UP if service_s > self.sure * expected_s else _SURE_DOWN
            self.sure = min(_SUREST, max(1.0, self.sure + step))

    def learn(self, service_s: float, size: float | None) -> float:
        """Learn from a call.

        Args:
            service_s: How long it was worked on.
            size: Its size, where known.

        Returns:
            What it counted for: less than `service_s` for an outlier, 0 for one of the first of its size class.
        """
        kind = -1 if size is None else int(size).bit_length()
        if kind not in self._warm and not self._warms(kind):
            return 0.0
        mean_s = self.mean_s
        weight = _FADE
        if self._known < _MANY:
            self._known += 1
            weight = 1 / self._known
        if service_s > _OUTLIER * mean_s and self._known > _ENOUGH:
            service_s = min(service_s, _OUTLIER * self.expect(size))
        self._high += _HIGH_UP if service_s > self._high * mean_s else _HIGH_DOWN
        self.mean_s = mean_s + (service_s - mean_s) * weight
        if size is not None:
            self._learn_size(service_s, size)
        return service_s

    def _learn_size(self, service_s: float, size: float) -> None:
        weight = _FADE
        if self._known_sized < _MANY:
            self._known_sized += 1
            weight = 1 / self._known_sized
        self.mean_size += (size - self.mean_size) * weight
        self._time += (service_s - self._time) * weight
        self._size_square += (size * size - self._size_square) * weight
        self._size_time += (size * service_s - self._size_time) * weight
        self._fitted = None

    def _warms(self, kind: int) -> bool:
        """Whether enough of a size class have been seen for this one to count."""
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        if seen > _WARM_UP:
            self._warm.add(kind)
        return seen > _WARM_UP
