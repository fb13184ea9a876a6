"""A shift of a stream's level: when it is found, how large it is said to be, and when it is over."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.diagnosis.drift import ShiftDetector
from otel_inference.diagnosis.usual import as_normal, median

STEP_S = 10.0
NOISE = 0.05
RISE = math.log(1.5)


class Stream:
    """Feeds a detector windows of a level, with noise."""

    def __init__(self, detector=None, seed=1, noise=NOISE):
        self.detector = detector or ShiftDetector()
        self.rng = random.Random(seed)
        self.noise = noise
        self.at_s = 0.0

    def feed(self, windows, level=0.0, *, weight=20.0, until=lambda _: False):
        """Feed windows until the detector is as wanted; returns how many there were, and the sureness of each."""
        seen = []
        for _ in range(windows):
            self.at_s += STEP_S
            seen.append(self.detector.update(level + self.rng.gauss(0, self.noise), self.at_s, weight=weight))
            if until(self.detector):
                break
        return seen


def is_shifted(detector):
    """Whether it found a shift."""
    return detector.shifted


def test_finds_a_step_says_when_it_began_and_how_large_it_is():
    """A rise by half is found after two windows, dated to the first of them and sized to a few percent."""
    stream = Stream()
    stream.feed(100)
    before_s = stream.at_s
    seen = stream.feed(10, RISE, until=is_shifted)

    assert len(seen) == 2
    assert stream.detector.since_s == before_s
    assert seen[-1] >= 0.5
    stream.feed(10, RISE)
    assert stream.detector.shift == pytest.approx(RISE, abs=0.06)
    assert stream.detector.baseline == pytest.approx(0.0, abs=0.05)


def test_is_surer_the_longer_a_shift_lasts_and_never_quite():
    """The score tells half of a shift from a whole one and a long one from a short one, and stays below 1."""
    sureness = {}
    for level in (0.0, RISE / 4, RISE, 4.0):
        stream = Stream()
        stream.feed(100)
        seen = stream.feed(20, level)
        sureness[level] = (seen[2], seen[-1])

    assert sureness[0.0][-1] < 0.5 <= sureness[RISE][0] < sureness[RISE][-1]
    assert sureness[0.0][-1] < sureness[RISE / 4][-1] < sureness[RISE][-1] < 1.0
    assert sureness[4.0][-1] < 1.0


@pytest.mark.parametrize("direction", [1, -1])
def test_looks_in_one_direction(direction):
    """A detector of rises is silent about falls, and the other way round."""
    stream = Stream(ShiftDetector(direction=direction))
    stream.feed(100)
    stream.feed(20, -direction * RISE)
    assert not stream.detector.shifted

    stream = Stream(ShiftDetector(direction=direction))
    stream.feed(100, 3.0)
    stream.feed(20, 3.0 + direction * RISE)
    assert stream.detector.shifted
    assert stream.detector.shift == pytest.approx(direction * RISE, abs=0.06)
    assert stream.detector.baseline == pytest.approx(3.0, abs=0.05)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), spike=st.floats(0.2, 10), before=st.integers(60, 150))
def test_takes_one_window_for_no_shift(seed, spike, before):
    """However high one window is, it is no shift."""
    stream = Stream(seed=seed)
    stream.feed(before)
    stream.feed(1, spike)
    stream.feed(40, until=is_shifted)

    assert not stream.detector.shifted


def test_takes_two_outliers_in_five_minutes_for_no_shift():
    """However high, single windows that are well apart are no shift together."""
    stream = Stream()
    stream.feed(100)
    for _ in range(3):
        stream.feed(1, 50.0)
        stream.feed(15, until=is_shifted)
        assert not stream.detector.shifted


def test_needs_more_than_an_outlier_among_slightly_high_windows():
    """Four windows that are a little high are no shift, and one very high one among them does not make them one."""
    stream = Stream(noise=0.1)
    stream.feed(100)
    stream.noise = 0.0
    stream.feed(2, 0.15)
    stream.feed(1, 5.0)
    stream.feed(2, 0.15)
    assert not stream.detector.shifted

    stream.feed(10, 0.15)
    assert stream.detector.shifted


@pytest.mark.parametrize("ratio", [1.05, 1.1])
def test_finds_no_effect_that_is_too_small(ratio):
    """A rise by a twentieth or a tenth is seen plainly in a quiet stream, and is not worth finding, however sure it is."""
    stream = Stream(noise=0.01)
    stream.feed(100)
    stream.feed(100, math.log(ratio), until=is_shifted)
    assert not stream.detector.shifted

    fine = Stream(ShiftDetector(min_effect=math.log(1.04), noise_floor=0.01), noise=0.01)
    fine.feed(100)
    fine.feed(20, math.log(1.05))
    assert fine.detector.shifted


def test_closes_on_return_and_not_for_one_window():
    """One ordinary window does not end a shift; some in a row do, and the old level is the usual one again."""
    stream = Stream()
    stream.feed(100)
    stream.feed(20, RISE)
    stream.feed(1)
    assert stream.detector.shifted
    stream.feed(3, RISE)
    back = stream.feed(20, until=lambda detector: not detector.shifted)

    assert 2 <= len(back) <= 4
    assert (stream.detector.since_s, stream.detector.shift) == (None, 0.0)
    assert stream.detector.baseline == pytest.approx(0.0, abs=0.05)
    stream.feed(200, until=is_shifted)
    assert not stream.detector.shifted


@pytest.mark.parametrize(("noise", "within"), [(0.07, 4), (0.11, 6)])
def test_closes_soon_after_a_short_shift(noise, within):
    """A shift of half a minute is over within a minute, though little is known of how large it was."""
    for seed in range(10):
        stream = Stream(seed=seed, noise=noise)
        stream.feed(100)
        stream.feed(4, math.log(1.7))
        assert stream.detector.shifted
        assert len(stream.feed(20, until=lambda detector: not detector.shifted)) <= within


def test_does_not_flap_while_a_shift_lasts():
    """A rise by a fifth, hardly more than the noise, opens once or twice in 29 minutes."""
    openings = []
    for seed in range(10):
        stream = Stream(seed=seed, noise=0.11)
        stream.feed(200)
        was = [
            stream.detector.shifted,
            *(stream.feed(1, math.log(1.2)) and stream.detector.shifted for _ in range(174)),
        ]
        openings.append(sum(now and not before for before, now in pairwise(was)))

    assert max(openings) <= 2
    assert sum(openings) <= 12


@pytest.mark.parametrize("seed", range(5))
def test_finds_a_doubling_after_four_minutes(seed):
    """In a process of four minutes that is all there is to compare with, and it is enough."""
    stream = Stream(seed=seed, noise=0.11)
    stream.feed(24)
    assert not stream.detector.shifted
    assert len(stream.feed(20, math.log(2), until=is_shifted)) <= 10


def test_sizes_a_shift_by_all_windows_since_it_began():
    """Where a shift takes some windows to be found, those count for it, and not for what is usual."""
    detector, rng, values = ShiftDetector(), random.Random(7), []
    while not detector.shifted:
        values.append(rng.gauss(0, 0.1) + (0.2 if len(values) >= 100 else 0.0))
        detector.update(values[-1], len(values) * STEP_S)
    since = round(detector.since_s / STEP_S)

    assert len(values) - since >= 4
    assert detector.shift == pytest.approx(median(values[since:]) - detector.baseline)


def test_stays_open_when_a_shift_becomes_smaller():
    """From three times as slow to half as slow again is still a shift."""
    stream = Stream()
    stream.feed(100)
    stream.feed(20, math.log(3))
    for _ in range(60):
        stream.feed(1, RISE)
        assert stream.detector.shifted
    assert stream.detector.shift == pytest.approx(RISE, abs=0.06)


def test_is_not_over_where_it_is_still_worth_finding():
    """Where windows are noisy, calls four times as slow that come to be 1.7 times as slow are still slow."""
    for seed in range(10):
        stream = Stream(seed=seed, noise=0.2)
        stream.feed(100)
        stream.feed(8, math.log(4))
        stream.feed(60, math.log(1.7), until=lambda detector: not detector.shifted)
        assert stream.detector.shifted


def test_accepts_a_level_after_half_an_hour():
    """What has lasted for 30 minutes is how it is now: the baseline moves, and a further rise is found again."""
    stream = Stream()
    stream.feed(100)
    stream.feed(10, RISE, until=is_shifted)
    opened_s = stream.at_s
    stream.feed(300, RISE, until=lambda detector: not detector.shifted)

    assert stream.at_s - opened_s == 1800.0
    assert stream.detector.accepted_s == stream.at_s
    assert stream.detector.baseline == pytest.approx(RISE, abs=0.05)
    stream.feed(100, RISE, until=is_shifted)
    assert not stream.detector.shifted
    assert len(stream.feed(10, 2 * RISE, until=is_shifted)) == 2


def test_follows_a_slow_drift_and_finds_a_ramp():
    """The steepest part of a daily cycle of 40 % is no shift; a rise by half in half an hour is."""
    drifting = Stream()
    for window in range(-1200, 1200):
        drifting.feed(1, math.log(1 + 0.4 * math.sin(2 * math.pi * window / 8640)))
        assert not drifting.detector.shifted

    ramp = Stream()
    ramp.feed(100)
    for window in range(180):
        ramp.feed(1, RISE * window / 180)
    assert ramp.detector.shifted


def test_warms_up_in_silence():
    """Until 12 windows have settled nothing is judged, however much the stream jumps: that takes three minutes."""
    stream = Stream(noise=2.0)
    seen = stream.feed(16)

    assert set(seen) == {0.0}
    assert stream.detector.baseline is None
    stream.feed(1)
    assert stream.detector.baseline is not None


def test_starts_anew_after_a_long_gap_and_goes_on_after_a_short_one():
    """After half an hour of nothing another level is no shift; after a minute it is."""
    stream = Stream()
    stream.feed(100)
    stream.at_s += 1800.0
    stream.feed(60, RISE, until=is_shifted)
    assert not stream.detector.shifted

    stream = Stream()
    stream.feed(100)
    stream.at_s += 60.0
    before_s = stream.at_s
    assert len(stream.feed(10, RISE, until=is_shifted)) == 2
    assert stream.detector.since_s == before_s


def test_forgets_a_shift_over_a_long_gap():
    """A restart of traffic closes what was open, without calling it accepted."""
    stream = Stream()
    stream.feed(100)
    stream.feed(10, RISE)
    stream.at_s += 3600.0
    stream.feed(1, RISE)

    assert (stream.detector.shifted, stream.detector.accepted_s, stream.detector.baseline) == (False, None, None)


@pytest.mark.parametrize("seed", [0, 2, 4])
def test_weighs_a_run_by_generalised_least_squares(seed):
    """The score is that of a step in autocorrelated noise around a level that is itself estimated."""
    rng, detector, value, values = np.random.default_rng(seed), ShiftDetector(noise_floor=1e-3), 0.0, []
    for index in range(122):  # what is usual is learned for the last time at 112
        value = 0.5 * value + rng.normal(0, 0.1)
        values.append(value + (0.3 if index >= 114 else 0.0))
        sureness = detector.update(values[-1], index * STEP_S)
    usual = detector._usual
    found = []
    for length in (2, 3, 4, 5, 6, 8):
        excess = np.array(values[-length - 1 :]) - usual.level
        surprises = excess[1:] - usual.autocorrelation * excess[:-1]
        step = np.full(length, 1 - usual.autocorrelation)
        by_level = step.copy()
        step[0] = 1.0
        level_variance = usual.level_variance / (1 - usual.autocorrelation) ** 2
        variance = step @ step + (step @ by_level) ** 2 * level_variance
        size, error = step @ surprises / (step @ step), usual.noise * math.sqrt(variance) / (step @ step)
        short = max(0.0, math.log(1.2) - size)
        found.append(math.sqrt(size**2 - short**2) / error)

    score = 4.2 * math.sqrt(sureness / (1 - sureness))
    assert score == pytest.approx(as_normal(max(found), usual.degrees), rel=1e-6)


def test_says_nothing_of_three_windows_an_hour():
    """What comes so rarely is never judged, as nothing recent is known."""
    detector = ShiftDetector()
    values = [detector.update(index % 7, index * 1200.0) for index in range(200)]

    assert set(values) == {0.0}


def test_holds_windows_of_few_calls_for_noisier():
    """Two windows that would be a shift with as many calls as usual are none with a few."""
    levels = {}
    for weight in (20.0, 1.0):
        stream = Stream()
        stream.feed(100)
        levels[weight] = stream.feed(2, RISE, weight=weight)[-1]

    assert levels[1.0] < 0.5 <= levels[20.0]


def test_does_not_take_a_wandering_stream_for_independent():
    """Where windows take after one another, runs of high ones come by chance: of eight times three hours two are not silent at most."""
    found = 0
    for seed in range(8):
        detector, rng, value = ShiftDetector(), random.Random(seed), 0.0
        for index in range(1080):
            value = 0.8 * value + rng.gauss(0, 0.12)
            was = detector.shifted
            detector.update(value, index * STEP_S)
            found += detector.shifted and not was

    assert found <= 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_ignores_what_is_no_number(value):
    """A value that is not finite changes nothing."""
    stream = Stream()
    stream.feed(100)
    before = stream.feed(1)[-1]

    assert stream.detector.update(value, stream.at_s + STEP_S) == before
    assert stream.detector.update(1.0, stream.at_s + STEP_S, weight=0.0) == before


@pytest.mark.parametrize("arguments", [{"direction": 0}, {"min_effect": 0.0}, {"noise_floor": -1.0}])
def test_refuses_what_means_nothing(arguments):
    """A direction is up or down, and sizes are positive."""
    with pytest.raises(ValueError, match="expected 1 or -1"):
        ShiftDetector(**arguments)


def test_learns_at_different_times_by_phase():
    """Detectors of different phases update what is usual at different windows, and find the same shift."""
    changes = {}
    for phase in (0, 3):
        stream = Stream(ShiftDetector(phase=phase))
        baselines = [stream.feed(1) and stream.detector.baseline for _ in range(100)]
        changes[phase] = {i for i in range(60, 100) if baselines[i] != baselines[i - 1]}
        assert len(stream.feed(10, RISE, until=is_shifted)) == 2

    assert changes[0]
    assert changes[0].isdisjoint(changes[3])
