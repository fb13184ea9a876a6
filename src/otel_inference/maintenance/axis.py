"""One knob as a search sees it: the levels, where it stands, and which of the others are worth a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.maintenance.latency_line import LatencyLine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.maintenance.tuning import TuningRules

UP: Final = 1

Place = int
"""Index of a level."""


class Axis:
    """Levels of one knob in ascending order, and what is known of each.

    Args:
        name: Of the knob.
        levels: At least one.
        level: The one in force; it is added to the others if it is none of them.
        lower_is_lighter: Whether a lower level makes calls shorter, so that it may be taken when they are too slow.
        brown_out: Whether lower levels give up quality: none is tried, and it goes up again whenever the objective lets it.
    """

    def __init__(
        self,
        name: str,
        levels: Sequence[float],
        level: float,
        *,
        lower_is_lighter: bool = True,
        brown_out: bool = False,
    ) -> None:
        self.name = name
        self.levels = tuple(levels)
        self.place: Place = 0
        self.brown_out = brown_out
        self.line = LatencyLine()
        self.enabled = True
        """Whether it may be moved at all."""
        self._lower_is_lighter = lower_is_lighter
        self._direction = UP
        self._stride = 1
        self._rejected: set[int] = set()
        """Directions."""
        self._blocked_until: dict[Place, int] = {}
        self._block_length: dict[Place, int] = {}
        self._relief_from = 0
        self.stand_at(level)

    @property
    def level(self) -> float:
        """The level in force."""
        return self.levels[self.place]

    def stand_at(self, level: float) -> None:
        """Take a level, known or not, as the one in force."""
        if level not in self.levels:
            self.levels = tuple(sorted({*self.levels, level}))
            self._blocked_until.clear()
            self._block_length.clear()
        self.place = self.levels.index(level)

    def proposal(self, now: int, p95_s: float | None, *, slo_p95_s: float, guard_p95_s: float) -> Place | None:
        """The next place worth a trial; `None` when there is none in either direction.

        A neighbour that the line puts over the objective is left out, and so is a farther one over the guard.

        Args:
            now: Windows so far.
            p95_s: What the level in force has lately, if that is known: the line is moved to go through it.
            slo_p95_s: The objective.
            guard_p95_s: The mean up to which a candidate is accepted.
        """
        if not self.enabled:
            return None
        here_s = self.line.expected(self.level)
        lately = 1.0 if p95_s is None or here_s is None or here_s <= 0 else p95_s / here_s
        for direction in (self._direction, -self._direction):
            if direction in self._rejected or (self.brown_out and direction != UP):
                continue
            for stride in range(self._stride, 0, -1):
                place = self.place + direction * stride
                limit_s = (slo_p95_s if stride == 1 else guard_p95_s) / lately
                if self._worth(place, now, limit_s, unknown=stride == 1):
                    self._direction = direction
                    return place
            self._rejected.add(direction)
        return None

    def _worth(self, place: Place, now: int, limit_s: float, *, unknown: bool) -> bool:
        if not 0 <= place < len(self.levels) or self._blocked_until.get(place, 0) > now:
            return False
        expected_s = self.line.expected(self.levels[place])
        return unknown if expected_s is None else expected_s <= limit_s

    def move(self, place: Place, max_stride: int) -> None:
        """Take a level that proved better: where it came from need not be tried, and the next move may be longer."""
        self._direction = UP if place > self.place else -UP
        self._rejected = {-self._direction}
        self._stride = min(2 * self._stride, max_stride)
        self.place = place

    def rejected(self, place: Place) -> None:
        """Look the other way; after a long move, look nearer first."""
        if abs(place - self.place) == 1:
            self._rejected.add(self._direction)
            self._direction = -self._direction
        self._stride = 1

    def block(self, place: Place, now: int, rules: TuningRules) -> None:
        """Leave a level alone for a while, the longer the more often this was said."""
        length = self._block_length.get(place, rules.hold if self.brown_out else rules.block)
        self._blocked_until[place] = now + length
        self._block_length[place] = min(2 * length, rules.max_block)

    def bar(self, place: Place, until: int) -> None:
        """Leave a level that made calls fail, and all beyond it, alone until so many windows."""
        beyond = range(place, len(self.levels)) if place > self.place else range(place + 1)
        self._blocked_until.update(dict.fromkeys(beyond, until))

    def can_relieve(self, now: int) -> bool:
        """Whether there is a lower level that may make calls shorter."""
        return self.enabled and self._lower_is_lighter and self.place > 0 and now >= self._relief_from

    def lower(self) -> None:
        """Take the next lower level."""
        self.place -= 1

    def put_back(self, place: Place, relief_from: int) -> None:
        """Take the level from before it was lowered, and do not lower it again before `relief_from` windows."""
        self.place = place
        self._relief_from = relief_from

    def restart(self) -> None:
        """Look in both directions again."""
        self._rejected.clear()
        self._stride = 1

    def forget(self, slower: float, direction: int) -> None:
        """Forget which levels were bad; expect each to take `slower` times as long, and look in `direction` first."""
        self.restart()
        self._blocked_until.clear()
        self._block_length.clear()
        self._relief_from = 0
        self._direction = direction
        self.line.scale(slower)
