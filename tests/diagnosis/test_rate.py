"""Errors among calls, and calls in a time: when their rate has changed."""

from __future__ import annotations

import math
import random

import pytest

from otel_inference.diagnosis.rate import RateDetector

STEP_S = 10.0


class Counts:
    """Feeds a detector windows of random counts."""

    def __init__(self, detector, seed=1):
        self.detector = detector
        self.rng = random.Random(seed)
        self.at_s = 0.0

    def errors(self, windows, *, calls, ratio):
        """Windows with so many calls, of which a share fails; returns after how many a change was found."""
        return self._feed(windows, lambda: (sum(self.rng.random() < ratio for _ in range(calls)), calls))

    def calls(self, windows, mean):
        """Windows of ten seconds with Poisson counts of calls."""
        return self._feed(windows, lambda: (self._poisson(mean), STEP_S))

    def _feed(self, windows, draw):
        found = None
        for index in range(windows):
            self.at_s += STEP_S
            count, exposure = draw()
            self.detector.update(count, exposure, self.at_s)
            if self.detector.shifted and found is None:
                found = index + 1
        return found

    def _poisson(self, mean):
        count, left = 0, math.exp(-mean)
        product = self.rng.random()
        while product > left:
            count += 1
            product *= self.rng.random()
        return count


def errors_detector():
    """As the rule for bursts of errors makes it."""
    return RateDetector(min_excess=0.01)


def test_finds_a_burst_of_errors():
    """From one in a hundred to one in five is found in three windows, dated, and told with both rates."""
    stream = Counts(errors_detector())
    assert stream.errors(150, calls=20, ratio=0.01) is None
    before_s = stream.at_s

    assert stream.errors(20, calls=20, ratio=0.2) <= 5
    assert stream.detector.since_s == pytest.approx(before_s, abs=20.0)
    assert stream.detector.rate == pytest.approx(0.2, abs=0.05)
    assert stream.detector.baseline == pytest.approx(0.01, abs=0.01)


def test_takes_one_bad_window_for_no_burst():
    """Twenty failures in one window, and none around it, is no burst."""
    stream = Counts(errors_detector())
    stream.errors(100, calls=20, ratio=0.0)
    stream.errors(1, calls=20, ratio=1.0)

    assert stream.errors(50, calls=20, ratio=0.0) is None


def test_takes_a_few_failures_for_no_burst():
    """Where nothing ever failed, four failures are none; the fifth in a few calls is."""
    detector = errors_detector()
    for index in range(60):
        detector.update(0, 5, index * STEP_S)
    seen = [detector.update(1, 2, (60 + index) * STEP_S) for index in range(5)]

    assert seen == sorted(seen)
    assert seen[3] < 0.5 <= seen[4] < 1.0
    assert detector.shifted


def test_needs_an_excess_worth_finding():
    """Three times as many errors, but still hardly any, is not found, nor is half as many again, however many they are."""
    stream = Counts(errors_detector())
    stream.errors(120, calls=1000, ratio=0.001)
    assert stream.errors(60, calls=1000, ratio=0.003) is None

    busy = Counts(errors_detector())
    busy.errors(120, calls=20_000, ratio=0.02)
    assert busy.errors(60, calls=20_000, ratio=0.03) is None


def test_closes_when_calls_succeed_again():
    """A burst ends after some windows without errors, and not after one."""
    stream = Counts(errors_detector())
    stream.errors(100, calls=10, ratio=0.01)
    stream.errors(20, calls=10, ratio=0.5)
    stream.errors(1, calls=10, ratio=0.0)
    assert stream.detector.shifted
    stream.errors(6, calls=10, ratio=0.01)

    assert not stream.detector.shifted
    assert (stream.detector.since_s, stream.detector.rate) == (None, 0.0)


def test_stays_open_while_fewer_calls_fail_but_too_many():
    """From all calls failing to one in five is still a burst."""
    stream = Counts(errors_detector())
    stream.errors(100, calls=20, ratio=0.01)
    stream.errors(10, calls=20, ratio=1.0)
    for _ in range(40):
        stream.errors(1, calls=20, ratio=0.2)
        assert stream.detector.shifted


def test_accepts_a_rate_after_half_an_hour():
    """Errors that go on for half an hour are usual then."""
    stream = Counts(errors_detector())
    stream.errors(100, calls=20, ratio=0.01)
    stream.errors(200, calls=20, ratio=0.3)

    assert not stream.detector.shifted
    assert stream.detector.accepted_s is not None
    assert stream.detector.baseline == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(("mean", "most"), [(5.0, 6), (20.0, 2), (200.0, 2)])
def test_finds_that_calls_stop(mean, most):
    """The more calls there usually are, the sooner their absence is found; with five in a window, in a minute."""
    stream = Counts(RateDetector(direction=-1))
    assert stream.calls(150, mean) is None

    assert stream.calls(10, 0.0) <= most
    assert stream.detector.rate <= 0.1 * mean / STEP_S


@pytest.mark.parametrize("mean", [3 / 360, 0.5, 3.0, 5.0])
def test_is_silent_about_few_calls(mean):
    """From three calls an hour to five in ten seconds, empty windows come by chance and are no drop."""
    stream = Counts(RateDetector(direction=-1))

    assert stream.calls(2000, mean) is None


def test_learns_how_much_bursty_traffic_scatters():
    """Where calls come in bursts of fifty, a quiet minute is usual; where they come alone it is not."""
    sureness = {}
    for burst in (1, 50):
        stream = Counts(RateDetector(direction=-1), seed=2)
        for _ in range(200):
            stream.at_s += STEP_S
            stream.detector.update(burst * stream._poisson(50 / burst), STEP_S, stream.at_s)
        assert not stream.detector.shifted
        sureness[burst] = stream.detector.update(0, STEP_S, stream.at_s + STEP_S)
        sureness[burst] = stream.detector.update(0, STEP_S, stream.at_s + 2 * STEP_S)

    assert sureness[50] < 0.5 <= sureness[1]


def test_is_not_led_astray_by_one_busy_window():
    """A window with a hundred times the calls does not make the others few."""
    stream = Counts(RateDetector(direction=-1))
    stream.calls(60, 20.0)
    stream.at_s += STEP_S
    stream.detector.update(2000, STEP_S, stream.at_s)

    assert stream.calls(100, 20.0) is None
    assert stream.detector.baseline == pytest.approx(2.0, rel=0.15)


def test_leaves_out_what_is_no_count():
    """A window without exposure, or a count that is none, changes nothing."""
    detector = errors_detector()

    assert [detector.update(*arguments, 1.0) for arguments in ((0, 0), (-1, 5), (math.nan, 5))] == [0.0, 0.0, 0.0]
    assert detector.baseline is None


@pytest.mark.parametrize("arguments", [{"direction": 2}, {"min_ratio": 1.0}, {"min_excess": -0.1}])
def test_refuses_what_means_nothing(arguments):
    """A direction is up or down, a ratio above 1, an excess not negative."""
    with pytest.raises(ValueError, match="expected 1 or -1"):
        RateDetector(**arguments)
