"""What is usual of a stream: its level, its noise, and how windows take after one another."""

from __future__ import annotations

import random

import pytest

from otel_inference.diagnosis.usual import Learner, Sample, as_normal

STEP_S = 10.0


def samples_of(values, weight=20.0):
    """Windows in a row."""
    return [Sample(index * STEP_S, value, weight) for index, value in enumerate(values)]


def test_learns_noise_without_outliers():
    """Three spikes in ninety windows move neither the level nor, by much, the noise."""
    rng = random.Random(3)
    samples = [Sample(index * STEP_S, rng.gauss(2.0, 0.1), 10.0) for index in range(90)]
    spiked = [each._replace(value=50.0) if index % 30 == 5 else each for index, each in enumerate(samples)]
    quiet, usual = (Learner(0.001, 0.0).learn(each, 900.0) for each in (samples, spiked))

    assert usual.level == pytest.approx(2.0, abs=0.03)
    assert quiet.noise == pytest.approx(0.1, abs=0.02)
    assert usual.noise == pytest.approx(quiet.noise, rel=0.35)


def test_learns_autocorrelation_only_from_neighbours():
    """Windows with a gap between them tell nothing about how one takes after the other."""
    rng = random.Random(5)
    values = [rng.gauss(0, 0.1) for _ in range(46)]
    # Two windows in a row differ, and the one after each gap is like the one before it.
    pairs = [(values[index // 2 + index % 2], 30.0 * (index // 2) + 10.0 * (index % 2)) for index in range(90)]
    apart = [Sample(at_s, value, 1.0) for value, at_s in pairs]
    in_a_row = [Sample(index * STEP_S, value, 1.0) for index, (value, _) in enumerate(pairs)]

    assert Learner(0.02, 0.0).learn(apart, 1350.0).autocorrelation < 0.2
    assert Learner(0.02, 0.0).learn(in_a_row, 900.0).autocorrelation > 0.4


def test_learns_how_the_level_drifts_and_believes_a_little_of_it():
    """After an hour of steady drift the level is that of now, not of ten minutes ago, as far as drift is believed."""
    for most_drift in (1.0, 0.01):
        learner = Learner(0.001, most_drift)
        for begin in range(0, 400, 10):
            samples = [Sample(w * STEP_S, 1e-3 * w, 1.0) for w in range(begin, begin + 90)]
            usual = learner.learn(samples, (begin + 94.5) * STEP_S)
        assert usual.level - 1e-3 * (begin + 44.5) == pytest.approx(min(most_drift, 0.05), abs=1e-6)


def test_takes_a_few_windows_for_autocorrelated_and_many_for_what_they_are():
    """Twelve windows cannot tell that they are independent, so they are not believed to be; an hour can."""
    rng, learner, windows = random.Random(7), Learner(0.001, 0.0), []
    found = []
    for _ in range(36):
        windows += [Sample((len(windows) + index) * STEP_S, rng.gauss(0, 0.1), 20.0) for index in range(12)]
        found.append(learner.learn(windows[-180:], windows[-1].at_s))

    assert found[0].autocorrelation > 0.2
    assert found[-1].autocorrelation < 0.1
    assert found[0].degrees < 10
    assert found[-1].degrees > 300


def test_takes_windows_of_fewer_calls_for_noisier_at_once():
    """When half as many calls come, their means scatter more, before an average over hours shows it."""
    rng, learner = random.Random(9), Learner(0.001, 0.0)
    for _ in range(20):
        busy = learner.learn(samples_of([rng.gauss(0, 0.1) for _ in range(90)], weight=40.0), 900.0)
    quiet = learner.learn(samples_of([rng.gauss(0, 0.1) for _ in range(90)], weight=10.0), 900.0)

    assert quiet.noise == pytest.approx(2 * busy.noise, rel=0.15)


def test_does_not_believe_a_few_windows_to_scatter_less_than_their_calls():
    """Twelve windows that happen to be alike are as noisy as the calls behind them say; of sixty that is no chance."""
    alike = [Sample(index * STEP_S, 0.01 * (index % 3), 20.0, 0.1) for index in range(60)]
    few, many = (Learner(0.001, 0.0).learn(each, 600.0) for each in (alike[:12], alike))

    assert few.noise > 0.08
    assert many.noise < 0.02


def test_a_score_of_few_windows_is_worth_less():
    """Six standard errors by a noise of five degrees of freedom are not even four by a known one."""
    assert as_normal(6.0, 5.0) < 4.0 < as_normal(6.0, 50.0) < as_normal(6.0, 5000.0) < 6.0
