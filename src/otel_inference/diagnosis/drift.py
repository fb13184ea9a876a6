"""Whether the level of a stream has shifted: the latency of calls, say, one value per stretch of ten seconds."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference.diagnosis.usual import Learner, Sample, Usual, median
from otel_inference.diagnosis.watch import LONGEST_RUN, RETURN_RUN, RUNS, THRESHOLD, Watch, spare

if TYPE_CHECKING:
    from collections.abc import Sequence

_GATE: Final = 0.75
"""Share of the least effect that a run must lie above it; of shifts just as large, half are estimated lower."""
_DRIFT: Final = 1 / 6
"""Share of the least effect that the level may have drifted since it was learned."""
_RETURN_THRESHOLD: Final = 3.1
"""Standard errors by which a run must lie below half the shift, for the shift to be over."""
_CUT: Final = 1.5
"""Two windows cut off to the most that counts are so many times what a shift takes."""


class _Judged(NamedTuple):
    """A window beside what is usual, upwards being the direction that is looked for."""

    at_s: float
    excess: float
    """Value above the usual level, cut off so that a few outliers do not decide."""
    surprise: float
    """Excess that the window before did not foretell, times the precision."""
    precision: float
    """1 for a window with as many samples behind it as usual or more, less for fewer."""


class ShiftDetector(Watch[Sample]):
    """Finds a lasting shift of a stream's level, in one direction.

    A window is compared with what is usual: the median of the last 90 windows (at least 30, none older than two
    hours), without the latest 12, moved on by the drift of the last hour. Runs of 2 to 36 latest windows are tested
    for a shift at their beginning, by generalised least squares under autocorrelation of first order: a
    window-limited likelihood ratio (Lai, JRSS B 57, 1995). A shift is found when a run lies 4.5 standard errors above what is usual, and three quarters of the
    least effect, and holds up without its most extreme window, so that one outlier is not a shift.

    While a shift lasts, what is usual is frozen. It is over when a run of three windows or more has returned below
    half of it, or after 30 minutes, when its level is accepted as the usual one. After a gap of more than 30 minutes
    the detector starts anew, in silence.

    Simulated, with logarithms of latency and this least effect (`python -m benchmarks.detection`): one false alarm in
    nine days, with daily cycles of 40 % and an autocorrelation of 0.5. Where a window's mean scatters by up to 0.07
    (ln, such as sigma 0.3 over 20 calls) a step by half is found in two windows and one by a fifth in four; with that
    autocorrelation in two and in seven to eight. At 0.11 (sigma 0.5) it is three and ten; at 0.22 (sigma
    1) even the most powerful test finds a fifth in ten windows in one case of three only. One slow window is taken for
    a shift in 0 or 1 of 100 cases, with five calls in a window in 1 to 4.

    Args:
        direction: 1 finds rises, -1 finds falls.
        min_effect: Smallest shift worth finding, in units of the values; default: ln 1.2, which is a fifth more
            where the values are natural logarithms.
        noise_floor: Smallest standard deviation of a window that is believed, in units of the values.
        phase: Detectors of different phases learn what is usual at different times, so that no evaluation of many
            models is long.

    Attributes:
        shifted: Whether the level is shifted now.
        since_s: When the first shifted window began, as far as can be told; `None` unless shifted.
        accepted_s: When a shifted level was last accepted as the usual one; `None` if it never was.

    Raises:
        ValueError: If the direction is not 1 or -1, or a size is not positive.
    """

    def __init__(
        self, *, direction: int = 1, min_effect: float = math.log(1.2), noise_floor: float = 0.02, phase: int = 0
    ) -> None:
        if direction not in {1, -1} or not (min_effect > 0 and noise_floor > 0):
            given = f"direction={direction!r}, min_effect={min_effect!r}, noise_floor={noise_floor!r}"
            msg = f"{given}; expected 1 or -1, and positive sizes"
            raise ValueError(msg)
        self._direction = direction
        self._min_effect = min_effect
        self._learner = Learner(noise_floor, most_drift=_DRIFT * min_effect)
        self._usual: Usual | None = None
        self._recent: deque[_Judged] = deque(maxlen=LONGEST_RUN)
        super().__init__(phase)

    @property
    def baseline(self) -> float | None:
        """What is usual, in units of the values; `None` while that is not known."""
        return None if self._usual is None else self._direction * self._usual.level

    @property
    def shift(self) -> float:
        """How far the level has moved from the baseline, with its sign; 0 unless shifted."""
        return self._direction * self._size(self._usual) if self.shifted and self._usual is not None else 0.0

    def update(self, value: float, at_s: float, *, weight: float = 1.0) -> float:
        """Take one window's value; idle windows are left out.

        Args:
            value: Best a natural logarithm, so that shifts add. One that is not finite is ignored.
            at_s: When the window ended.
            weight: Samples behind the value; windows with fewer than usual count as noisier.

        Returns:
            How surely the level has shifted: 0 for not at all, 0.5 where a shift is found, below 1 however sure it
            is; e² / (e² + 4.5²) for a run that lies e standard errors above what is usual. 0 while warming up.
        """
        if not (math.isfinite(value) and weight > 0):
            return self._sureness
        return self._take(Sample(at_s, self._direction * value, weight))

    def _forget(self) -> None:
        self._learner.forget()
        self._usual = None
        self._clear()

    def _clear(self) -> None:
        self._recent.clear()

    def _learn(self, windows: Sequence[Sample], at_s: float) -> None:
        self._usual = self._learner.learn(windows, at_s)

    def _evidence(self, window: Sample) -> tuple[float, int]:
        usual = self._usual
        if usual is None:
            return 0.0, 0
        self._recent.append(self._judged(window, usual))
        return self._scan(usual)

    def _judged(self, sample: Sample, usual: Usual) -> _Judged:
        before = self._recent[-1] if self._recent else None
        follows = before is not None and usual.adjacent(before.at_s, sample.at_s)
        precision = usual.precision(sample.weight)
        cut = max(_cut(usual) / math.sqrt(precision), 2.0 * _GATE * self._min_effect)
        excess = max(-cut, min(cut, sample.value - usual.level))
        foretold = usual.autocorrelation * before.excess if before is not None and follows else 0.0
        return _Judged(sample.at_s, excess, precision * (excess - foretold), precision)

    def _scan(self, usual: Usual) -> tuple[float, int]:
        """Standard errors that the most telling run lies above what is usual, and its length.

        A step at the beginning of a run shows in full in the first surprise, and in each later one by what the
        window before leaves of it. A run tells no more than what it does without its most extreme window bears out,
        and in proportion less if that lies below the gate.
        """
        best, best_length = 0.0, 0
        left, gate = 1.0 - usual.autocorrelation, _GATE * self._min_effect
        level_variance = math.pi / 2 / usual.windows  # of a median, in units of the stream's long-run variance
        surprise = precision = effect = extreme = 0.0
        for length, each in enumerate(reversed(self._recent), 1):
            weighted = each.precision * each.excess
            effect += weighted
            extreme = max(extreme, weighted)
            if length in _TESTED and effect > 0:
                known = left * precision + each.precision
                variance = left * left * precision + each.precision + known * known * level_variance
                found = (left * surprise + each.surprise) / (usual.noise * math.sqrt(variance))
                if found > best:
                    rest, of_rest = effect - extreme, (precision + each.precision) * (1.0 - 1.0 / length)
                    found = min(found, spare(length) * rest / (_scatter(usual, length - 1) * math.sqrt(of_rest)))
                    found *= min(1.0, max(0.0, rest) / (gate * of_rest))
                if found > best:
                    best, best_length = found, length
            surprise += each.surprise
            precision += each.precision
        return best, best_length

    def _size(self, usual: Usual) -> float:
        return median([each.value for each in self._during]) - usual.level

    def _returned(self) -> bool:
        """Whether a run of latest windows has returned below half of the shift, and below the gate."""
        usual = self._usual
        if usual is None:
            return True
        half = max(self._size(usual), _GATE * self._min_effect) / 2
        noise = usual.noise / (1.0 - usual.autocorrelation)  # of each, in a mean of many
        precision = below = excess = 0.0
        for length, each in enumerate(reversed(self._during), 1):
            weight = usual.precision(each.weight)
            cut = _cut(usual) / math.sqrt(weight)
            precision += weight
            excess += weight * (each.value - usual.level)
            below += weight * max(-cut, min(cut, half - (each.value - usual.level)))
            if length >= RETURN_RUN and below >= _RETURN_THRESHOLD * noise * math.sqrt(precision):
                return excess < _GATE * self._min_effect * precision
            if length == LONGEST_RUN:
                break
        return False


_TESTED: Final = frozenset(RUNS)


def _cut(usual: Usual) -> float:
    """Excess that a window counts for at most, where it is more than what is worth finding."""
    return _CUT * THRESHOLD * usual.noise / math.hypot(1.0, 1.0 - usual.autocorrelation)


def _scatter(usual: Usual, length: int) -> float:
    """Standard deviation of the sum of so many windows in a row, over the root of their number."""
    r = usual.autocorrelation
    inflation = (1.0 + r) / (1.0 - r) - 2.0 * r * (1.0 - r**length) / ((1.0 - r) ** 2 * length)
    return usual.noise * math.sqrt(inflation / (1.0 - r * r))
