"""How long a model works on calls of each size: as usual, and now."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis.drift import ShiftDetector
from otel_inference.diagnosis.mix import Baseline, compare, merged
from otel_inference.diagnosis.profile import Profile
from otel_inference.diagnosis.scan import RECENT_S, Slowdown

if TYPE_CHECKING:
    from otel_inference.diagnosis.mix import MixComparison
    from otel_inference.health.stretch import Exemplar, Stretch

_HALF_LIFE_STRETCHES: Final = 60
_KEEP: Final = math.exp2(-1 / _HALF_LIFE_STRETCHES)
_UNSURE: Final = 6
"""Stretches that wait before they count as usual: a shift is found some time after it began."""
_AT_ONCE: Final = 6
"""Stretches that are learned together."""
_FIRST_STRETCHES: Final = 12
_FIRST_CALLS: Final = 30
"""What is usual rests on so much before anything is judged by it ..."""
_HELD: Final = 36
"""... and so many stretches at most are then looked at again, so that they need not pass in vain."""
_COMPARE_EVERY: Final = 3
_ENOUGH_CALLS: Final = 100
_OLDEST_S: Final = 3600.0
_COURSE: Final = 150


class Work:
    """What is learned from a model's stretches, and whether calls of one size take longer than usual.

    What costs most, comparing sizes and learning what is usual for them, is not done for all models at one time.

    Args:
        phase: Differs from model to model.
    """

    def __init__(self, phase: int = 0) -> None:
        self.recent: deque[Stretch] = deque()
        """The stretches with calls of the last minute; of up to an hour where there were fewer than 100 calls."""
        self.comparison: MixComparison | None = None
        """The latest; `None` with too few calls."""
        self.usual = Profile()
        """Calls that neither were slow nor stood in a queue, those of the last ten minutes counting most."""
        self._detector = ShiftDetector()
        self._baseline = Baseline()
        self._course: deque[tuple[float, float]] = deque(maxlen=_COURSE)
        self._unsure: deque[tuple[Stretch, bool]] = deque()
        self._learned = 0
        """Stretches that the baseline was learned from."""
        self._held: deque[Stretch] | None = deque(maxlen=_HELD)
        """The stretches so far, until enough is known to judge them; then `None`."""
        self._learn_from = _UNSURE + 1 + phase % _AT_ONCE
        self._turns = phase

    def add(self, stretch: Stretch, *, waits: bool = False) -> None:
        """Take a stretch that was completed.

        Args:
            stretch: Not older than the one before.
            waits: Whether calls stand in a queue, so that this is not how things usually are.
        """
        self._trim(stretch.ended_s)
        if not stretch.calls:
            self._detector.idle(stretch.ended_s)
            return
        self.recent.append(stretch)
        if self._held is None:
            self._judge(stretch)
        else:
            self._held.append(stretch)
        self._learn(stretch, waits=waits)

    @property
    def is_slow(self) -> bool:
        """Whether calls of one size take longer than usual."""
        return self._detector.shifted

    @property
    def since_s(self) -> float:
        """When that began."""
        return self._detector.since_s or 0.0

    @property
    def ratio(self) -> float:
        """Work on a call of one size, now over usual; 1 while it is not slow."""
        return math.exp(self._detector.shift)

    def compare(self, *, at_once: bool = False) -> bool:
        """Compare the recent calls, or those since it became slow, with the usual ones; every third time it is asked.

        Args:
            at_once: Whether it is the time for that.

        Returns:
            Whether `comparison` is a new one.
        """
        self._turns += not at_once
        if not self.recent or not (at_once or self._turns % _COMPARE_EVERY == 0):
            return False
        self.comparison = compare(self._baseline.totals, merged(each.by_size for each in self._now()))
        return True

    def slowdown(self, at_s: float) -> Slowdown:
        """What attribution needs to know, while it is slow."""
        comparison = self.comparison
        return Slowdown(
            since_s=self.since_s,
            at_s=at_s,
            ratio=self.ratio,
            input_ratio=1.0 if comparison is None else comparison.input_ratio,
            before=self.usual,
            after=Profile.of(self._now()),
            course=tuple(self._course),
        )

    def slowest(self) -> Exemplar | None:
        """The longest of the recent calls that can be shown."""
        shown = [each for each in self._now() if each.slowest is not None]
        return max(shown, key=lambda each: each.max_s).slowest if shown else None

    def _now(self) -> list[Stretch]:
        recent = [*self.recent]
        return [each for each in recent if each.ended_s > self.since_s] or recent if self.is_slow else recent

    def _judge(self, stretch: Stretch) -> None:
        residual = self._baseline.residual(stretch.by_size)
        if residual is not None:
            self._detector.update(residual.mean, stretch.ended_s, weight=residual.calls, error=residual.error)
            self._course.append((stretch.ended_s, residual.mean))

    def _learn(self, stretch: Stretch, *, waits: bool) -> None:
        if self.is_slow:
            self._unsure.clear()
            return
        self._unsure.append((stretch, waits))
        if len(self._unsure) < self._learn_from:
            return
        self._learn_from = _UNSURE + _AT_ONCE
        sure = [self._unsure.popleft() for _ in range(len(self._unsure) - _UNSURE)]
        self._baseline.add(merged(each.by_size for each, _ in sure), sure[-1][0].ended_s)
        for each, waited in sure:
            if not waited:
                self.usual.add(each, keep=_KEEP)
        self._learned += len(sure)
        if self._held is not None and self._learned >= _FIRST_STRETCHES and self._baseline.calls >= _FIRST_CALLS:
            held, self._held = self._held, None
            for each in held:
                self._judge(each)

    def _trim(self, at_s: float) -> None:
        recent = self.recent
        calls = sum(each.calls for each in recent)
        while recent:
            age_s = at_s - recent[0].started_s
            calls -= recent[0].calls
            if age_s < RECENT_S or (age_s < _OLDEST_S and calls < _ENOUGH_CALLS):
                return
            recent.popleft()
