"""Whether the level of a stream has shifted: the latency of calls, say, one value per stretch of ten seconds."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference.diagnosis.usual import Learner, Sample, Usual, as_normal, as_score, median
from otel_inference.diagnosis.watch import LONGEST_RUN, RETURN_RUN, RUNS, Watch, spare

if TYPE_CHECKING:
    from collections.abc import Sequence

_THRESHOLD: Final = 4.2
_LEARNED_FROM: Final = (12, 180)
_GATE: Final = 0.75
"""Share of the least effect that a run must lie above it; of shifts just as large, half are estimated lower."""
_NEARLY: Final = 0.99
"""Share of what a shift takes that a smaller one tells at most."""
_DRIFT: Final = 1 / 6
"""Share of the least effect that the level may have drifted since it was learned."""
_OVER: Final = 7.0
"""Logarithm of how many times as likely the latest windows must be without the shift as with it, for it to be over."""
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

    A window is compared with what is usual: the mean of the last 180 windows (at least 12, none older than two
    hours), without the latest third or 12 of them, moved on by the drift of the last two hours. Runs of 2 to 36
    latest windows are tested for a shift at their beginning: a window-limited generalised likelihood ratio (Lai, JRSS
    B 57, 1995), of a shift of the least effect or more against none. Its root is how many standard errors a run lies
    above what is usual, by generalised least squares under autocorrelation of first order. The errors are those of
    the run and of what is usual; that the noise is only estimated is allowed for by Student's distribution, which
    matters while few windows are known. A shift is found at 4.2 standard errors, with an estimate of three quarters
    of the least effect or more, if the run without its most extreme window bears that out, so that one outlier is not
    a shift.

    While a shift lasts, what is usual is frozen. It is over when the latest three windows or more are e⁷ times as
    likely without it as with it, or after 30 minutes, when its level is accepted as the usual one. After a gap of
    more than 30 minutes the detector starts anew, in silence.

    Simulated, with logarithms of latency and this least effect (`python -m benchmarks.detection`), with daily cycles
    of 40 % and an autocorrelation of 0.5: about one false alarm in two days where windows are noisy, none where they
    are not. Where a window's mean scatters by up to 0.07 (ln, such as sigma 0.3 over 20 calls) a step by half is
    found in two windows and one by a fifth in three; with that autocorrelation in two and in seven. At 0.11 (sigma 0.5)
    it is two and eight: nine in ten steps by half are found in three windows, and two in three steps by a fifth in
    ten, where the best possible test, which knows what is usual and the step's size, would find 99 % and 93 %. At
    0.22 (sigma 1) even that finds a fifth in ten windows in one case of six. One slow window is taken for a shift in
    0 to 2 of 100 cases.

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
        self._needed = math.inf
        """Standard errors that a shift takes, by Student's distribution."""
        self._recent: deque[_Judged] = deque(maxlen=LONGEST_RUN)
        super().__init__(threshold=_THRESHOLD, learned_from=_LEARNED_FROM, phase=phase)

    @property
    def baseline(self) -> float | None:
        """What is usual, in units of the values; `None` while that is not known."""
        return None if self._usual is None else self._direction * self._usual.level

    @property
    def shift(self) -> float:
        """How far the level has moved from the baseline, with its sign; 0 unless shifted."""
        return self._direction * self._size(self._usual) if self.shifted and self._usual is not None else 0.0

    def update(self, value: float, at_s: float, *, weight: float = 1.0, error: float = 0.0) -> float:
        """Take one window's value; idle windows are left out.

        Args:
            value: Best a natural logarithm, so that shifts add. One that is not finite is ignored.
            at_s: When the window ended.
            weight: Samples behind the value; windows with fewer than usual count as noisier.
            error: Standard error of the value by the scatter of these samples, where that is known: while there are
                few windows, they are held to scatter at least as much.

        Returns:
            How surely the level has shifted: 0 for not at all, 0.5 where a shift is found, below 1 however sure it
            is; e² / (e² + 4.2²) for a run that lies e standard errors above what is usual. 0 while warming up.
        """
        if not (math.isfinite(value) and weight > 0):
            return self._sureness
        return self._take(Sample(at_s, self._direction * value, weight, error))

    def _forget(self) -> None:
        self._learner.forget()
        self._usual = None
        self._clear()

    def _clear(self) -> None:
        self._recent.clear()

    def _learn(self, windows: Sequence[Sample], at_s: float) -> None:
        self._usual = self._learner.learn(windows, at_s)
        self._needed = as_score(self._threshold, self._usual.degrees)

    def _evidence(self, window: Sample) -> tuple[float, int]:
        usual = self._usual
        if usual is None:
            return 0.0, 0
        self._recent.append(self._judged(window, usual))
        return self._scan(usual)

    def _judged(self, sample: Sample, usual: Usual) -> _Judged:
        before = self._recent[-1] if self._recent else None
        follows = before is not None and usual.adjacent(before.at_s, sample.at_s)
        precision, excess = self._weighed(sample, usual, self._needed)
        foretold = usual.autocorrelation * before.excess if before is not None and follows else 0.0
        return _Judged(sample.at_s, excess, precision * (excess - foretold), precision)

    def _scan(self, usual: Usual) -> tuple[float, int]:
        """Standard errors that the most telling run lies above what is usual, and its length.

        A step at the beginning of a run shows in full in the first surprise, and in each later one by what the
        window before leaves of it; the step is estimated by generalised least squares from the surprises. A run tells
        no more than what it does without its most extreme window bears out.
        """
        best, best_length = 0.0, 0
        left, gate = 1.0 - usual.autocorrelation, _GATE * self._min_effect
        surprise = precision = effect = extreme = 0.0
        for length, each in enumerate(reversed(self._recent), 1):
            weighted = each.precision * each.excess
            effect += weighted
            extreme = max(extreme, weighted)
            if length in _TESTED and effect > 0:
                information = left * left * precision + each.precision
                known = left * precision + each.precision
                step = (left * surprise + each.surprise) / information
                error = usual.noise * math.sqrt(information + known * known * usual.level_variance) / information
                found = self._told(step, error)
                if step < gate:  # however sure it is, it is not worth finding
                    found = min(found * step / gate, _NEARLY * self._needed)
                if found > best:
                    of_rest = (precision + each.precision) * (1.0 - 1.0 / length)
                    rest_error = _scatter(usual, length - 1) / math.sqrt(of_rest)
                    found = min(found, spare(length) * self._told((effect - extreme) / of_rest, rest_error))
                    if found > best:
                        best, best_length = found, length
            surprise += each.surprise
            precision += each.precision
        return as_normal(best, usual.degrees), best_length

    def _told(self, step: float, error: float) -> float:
        """Signed root of twice the logarithm of the likelihood ratio: a shift of the least effect or more, or none.

        For an estimate above the least effect that is how many standard errors it is; one that is short of it counts
        for less, as the shift would have to be at least that.
        """
        short = max(0.0, self._min_effect - step)
        return math.sqrt(max(0.0, step * step - short * short)) / error if step > 0 else 0.0

    def _size(self, usual: Usual) -> float:
        return median([each.value for each in self._during]) - usual.level

    def _returned(self) -> bool:
        """Whether the shift is over: a run of latest windows is too unlikely with it, and lies below the gate.

        The likelihood ratio of no shift to one as large as the windows before the run were (Wald, Sequential
        Analysis, 1947). Of shifts hardly larger than the noise, one in ten is taken for over once in half an hour.
        """
        usual = self._usual
        if usual is None:
            return True
        gate = _GATE * self._min_effect
        variance = (usual.noise / (1.0 - usual.autocorrelation)) ** 2  # of each, in a mean of many
        # Not by Student's distribution: that would let single windows say more, and a chance dip among them end it.
        windows = [self._weighed(each, usual, self._threshold) for each in self._during]
        before = sum(weight for weight, _ in windows)
        excess_before = sum(weight * excess for weight, excess in windows)
        precision = excess = 0.0
        for length, (weight, each) in enumerate(reversed(windows), 1):
            precision += weight
            excess += weight * each
            before -= weight
            excess_before -= weight * each
            if length == LONGEST_RUN or before <= 0:
                break
            shift = max(gate, excess_before / before)
            likelier = shift * (shift / 2 * precision - excess) / variance
            if length >= RETURN_RUN and likelier >= _OVER and excess < gate * precision:
                return True
        return False

    def _weighed(self, window: Sample, usual: Usual, score: float) -> tuple[float, float]:
        """Precision of a window, and its excess, cut off so that two of them tell at most 1.5 times `score`."""
        precision = usual.precision(window.weight)
        noise = usual.noise / math.hypot(1.0, 1.0 - usual.autocorrelation)
        # More than chance, and more than what is worth finding.
        cut = max(_CUT * score * noise / math.sqrt(precision), 2.0 * _GATE * self._min_effect)
        return precision, max(-cut, min(cut, window.value - usual.level))


_TESTED: Final = frozenset(RUNS)


def _scatter(usual: Usual, length: int) -> float:
    """Standard deviation of the sum of so many windows in a row, over the root of their number."""
    r = usual.autocorrelation
    inflation = (1.0 + r) / (1.0 - r) - 2.0 * r * (1.0 - r**length) / ((1.0 - r) ** 2 * length)
    return usual.noise * math.sqrt(inflation / (1.0 - r * r))
