"""Whether things happen more often, or more rarely, than they did: errors among calls, or calls in a time."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference.diagnosis.usual import median
from otel_inference.diagnosis.watch import LONGEST_RUN, RETURN_RUN, RUNS, Watch, spare

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_THRESHOLD: Final = 4.5
_LEARNED_FROM: Final = (30, 90)
_FEWEST: Final = 5
"""Events that a rise takes at least."""
_RETURN_THRESHOLD: Final = 2.6
"""Standard errors by which a run must lie beyond half of the change, for the change to be over."""
_BLOCK: Final = 6
"""Windows that are taken together to see how much more than chance they scatter."""
_MEMORY: Final = 36
"""Times that it was learned how much they scatter, that is averaged over."""
_MEDIAN_SQUARE: Final = 0.455
"""Median of the square of a standard normal value."""
_MOST_RATIO: Final = 16.0
_TESTED: Final = frozenset(RUNS)


class _Counted(NamedTuple):
    at_s: float
    events: float
    exposure: float


class _Usual(NamedTuple):
    rate: float
    exposure: float
    """What it was learned from."""
    dispersion: float
    """Variance of counts over their mean: 1 if events are independent of one another."""


class RateDetector(Watch[_Counted]):
    """Finds that a rate has risen, or fallen, for good: exact for few events, where values are far from normal.

    Runs of 2 to 36 latest windows are compared with 30 to 90 windows before by the likelihood ratio of two Poisson
    rates, with variance beyond Poisson's learned from blocks of six windows (quasi-likelihood, McCullagh and Nelder,
    1989). A change is found when the signed root of the ratio is 4.5, the rates differ by the least ratio and
    excess, and that holds up without the most extreme window of the run. A rise takes five events.

    How long a change lasts, and when the detector starts anew, is as in `ShiftDetector`.

    Simulated (`python -m benchmarks.detection`): one false alarm of errors, and none of calls, in 36 days of 5 to 200
    calls in ten seconds with daily cycles of 40 %. From 1 % to all calls failing is found in two windows at five calls
    a window, in six at one; that no call comes in three at five, in two at twenty, and not at all at 0.2.

    Args:
        direction: 1 finds rises, -1 finds falls.
        min_ratio: Smallest ratio of the higher to the lower rate worth finding.
        min_excess: Smallest difference of rates worth finding.
        phase: Detectors of different phases learn what is usual at different times, so that no evaluation of many
            models is long.

    Attributes:
        shifted: Whether the rate differs now.
        since_s: When the first window that differs began, as far as can be told; `None` unless one does.
        accepted_s: When a rate was last accepted as the usual one; `None` if none ever was.

    Raises:
        ValueError: If the direction is not 1 or -1, the ratio not more than 1, or the excess negative.
    """

    def __init__(self, *, direction: int = 1, min_ratio: float = 2.0, min_excess: float = 0.0, phase: int = 0) -> None:
        if direction not in {1, -1} or not (min_ratio > 1 and min_excess >= 0):
            given = f"direction={direction!r}, min_ratio={min_ratio!r}, min_excess={min_excess!r}"
            msg = f"{given}; expected 1 or -1, a ratio above 1 and no negative excess"
            raise ValueError(msg)
        self._direction = direction
        self._min_ratio = min_ratio
        self._min_excess = min_excess
        self._usual: _Usual | None = None
        self._recent: deque[_Counted] = deque(maxlen=LONGEST_RUN)
        super().__init__(threshold=_THRESHOLD, learned_from=_LEARNED_FROM, phase=phase)

    @property
    def baseline(self) -> float | None:
        """The usual count per exposure; `None` while that is not known."""
        return None if self._usual is None else self._usual.rate

    @property
    def rate(self) -> float:
        """Count per exposure since the change began; 0 unless there is one."""
        return _rate(self._during) if self.shifted else 0.0

    def update(self, count: float, exposure: float, at_s: float) -> float:
        """Take one window.

        Args:
            count: Events.
            exposure: What they are counted against: the calls, for errors among them; the seconds, for calls. A
                window without any is left out.
            at_s: When the window ended.

        Returns:
            How surely the rate differs: 0 for not at all, 0.5 where a change is found, below 1 however sure it is.
            0 while warming up.
        """
        if not (exposure > 0 and count >= 0 and math.isfinite(count)):
            return self._sureness
        return self._take(_Counted(at_s, count, exposure))

    def _forget(self) -> None:
        self._usual = None
        self._times_learned = 0
        self._dispersion = 0.0
        self._clear()

    def _clear(self) -> None:
        self._recent.clear()

    def _learn(self, windows: Sequence[_Counted], at_s: float) -> None:  # noqa: ARG002 - traffic is let drift
        blocks = [_together(windows[first : first + _BLOCK]) for first in range(0, len(windows), _BLOCK)]
        everything = _together(windows)
        rate = everything.events / everything.exposure
        if self._direction < 0:  # a few busy windows do not make the others few
            rate = min(rate, median([each.events / each.exposure for each in blocks]))
        self._times_learned += 1
        share = 1.0 / min(self._times_learned, _MEMORY)
        self._dispersion += share * (_dispersion(blocks, rate) - self._dispersion)
        self._usual = _Usual(rate, everything.exposure, max(1.0, self._dispersion))

    def _evidence(self, window: _Counted) -> tuple[float, int]:
        usual = self._usual
        if usual is None:
            return 0.0, 0
        self._recent.append(window)
        return self._scan(usual)

    def _scan(self, usual: _Usual) -> tuple[float, int]:
        """Standard errors that the most telling run differs from what is usual, and its length."""
        best, best_length = 0.0, 0
        events = exposure = 0.0
        most, extreme = -math.inf, self._recent[-1]
        for length, each in enumerate(reversed(self._recent), 1):
            events += each.events
            exposure += each.exposure
            excess = self._direction * (each.events - usual.rate * each.exposure)
            if excess > most:
                most, extreme = excess, each
            if length in _TESTED:
                found = self._standard_errors(events, exposure, usual)
                if self._direction > 0:
                    found *= min(1.0, events / _FEWEST)
                if found > best and self._size(events, exposure, usual) >= 1.0:
                    rest = self._standard_errors(events - extreme.events, exposure - extreme.exposure, usual)
                    found = min(found, spare(length) * rest)
                    if found > best:
                        best, best_length = found, length
        return best, best_length

    def _standard_errors(self, events: float, exposure: float, usual: _Usual) -> float:
        if self._direction * (events - usual.rate * exposure) <= 0:
            return 0.0
        usual_events = usual.rate * usual.exposure
        pooled = (usual_events + events) / (usual.exposure + exposure)
        deviance = _deviance(usual_events, usual.exposure, pooled) + _deviance(events, exposure, pooled)
        return math.sqrt(max(0.0, deviance) / usual.dispersion)

    def _size(self, events: float, exposure: float, usual: _Usual) -> float:
        """1 or more for a difference worth finding, less for a smaller one, 0 for one in the other direction."""
        rate = events / exposure
        excess = self._direction * (rate - usual.rate)
        if excess <= 0:
            return 0.0
        low, high = min(rate, usual.rate), max(rate, usual.rate)
        size = math.log(high / low) / math.log(self._min_ratio) if low > 0 else 1.0
        return min(size, excess / self._min_excess) if self._min_excess else size

    def _returned(self) -> bool:
        """Whether a run of latest windows lies on the usual side of the middle, and is no change worth finding."""
        usual = self._usual
        if usual is None:
            return True
        middle = (usual.rate + self.rate) / 2
        events = exposure = 0.0
        for length, each in enumerate(reversed(self._during), 1):
            events += each.events
            exposure += each.exposure
            back = self._direction * (middle * exposure - events)
            if length >= RETURN_RUN and back > 0:
                deviance = _deviance(events, exposure, middle) + 2 * (middle * exposure - events)
                if deviance >= _RETURN_THRESHOLD**2 * usual.dispersion:
                    return self._size(events, exposure, usual) < 1.0
            if length == LONGEST_RUN:
                break
        return False


def _together(windows: Sequence[_Counted]) -> _Counted:
    return _Counted(windows[-1].at_s, sum(each.events for each in windows), sum(each.exposure for each in windows))


def _rate(windows: Iterable[_Counted]) -> float:
    together = _together(list(windows))
    return together.events / together.exposure


def _deviance(events: float, exposure: float, rate: float) -> float:
    """Twice the logarithm of the likelihood at the events' own rate over that at `rate`, but for terms that cancel."""
    return 2 * events * math.log(events / (rate * exposure)) if events > 0 else 0.0


def _dispersion(blocks: Sequence[_Counted], rate: float) -> float:
    """Variance over mean of the blocks' counts, not led astray by a few of them."""
    if rate <= 0:
        return 1.0
    ratios = [(each.events - rate * each.exposure) ** 2 / (rate * each.exposure) for each in blocks]
    mean = sum(min(each, _MOST_RATIO) for each in ratios) / len(ratios)
    return max(mean, median(ratios) / _MEDIAN_SQUARE)
