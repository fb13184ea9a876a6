"""Stretches as windows: what work is, and the 95th percentile of a mixture."""

from __future__ import annotations

import random

import pytest

from otel_inference.health.stretch import Stretch
from otel_inference.maintenance.workload import Workload, quantile


def _stretch_of(durations, index=0, **facts):
    stretch = Stretch(10.0 * index, 10.0 * index + 10)
    for size, duration_s in durations:
        stretch.add(duration_s, input_size=size, **facts)
    return stretch


def test_a_change_of_the_mix_is_no_change_of_the_speed():
    """Large inputs take longer, which is more work and not a slower machine."""
    workload = Workload()
    windows = [
        workload.window(_stretch_of([(10, 0.1)] * few + [(1000, 2.0)] * many, index))
        for index, (few, many) in enumerate([(90, 10), (10, 90), (100, 0)])
    ]

    assert [window.speed for window in windows] == pytest.approx([1.0, 1.0, 1.0])
    assert [window.calls for window in windows] == [100, 100, 100]


def test_a_slower_machine_is_a_change_of_the_speed():
    """At twice the time, half the work is done in a second, also of sizes that are seen for the first time."""
    workload = Workload()
    workload.window(_stretch_of([(10, 0.1)] * 50))
    slower = workload.window(_stretch_of([(10, 0.2)] * 50 + [(1000, 4.0)] * 50, 1))
    recovered = workload.window(_stretch_of([(1000, 2.0)] * 50, 2))

    assert (slower.speed, recovered.speed) == pytest.approx((0.5, 1.0))


def test_leaves_out_waiting_rejections_and_first_calls():
    """The service is what calls were worked on; failed calls count apart, those that a limiter turned away not at all."""
    stretch = _stretch_of([(10, 0.3)] * 4, queue_s=0.1)
    stretch.add(5.0, cold=True)
    stretch.add(0.1, failed=True)
    stretch.add(0.0, failed=True, rejected=True)
    window = Workload().window(stretch)

    assert (window.calls, window.errors) == (4, 1)
    assert window.mean_service_s == pytest.approx(0.2)
    assert window.p95_s == pytest.approx(0.3)
    assert window.usable


def test_takes_what_the_caller_knows_better():
    """Work in items, and a percentile, may be given."""
    window = Workload().window(_stretch_of([(10, 0.5)] * 10), work=80, p95_s=0.7)

    assert (window.work, window.speed, window.p95_s) == (80, 16.0, 0.7)


def test_an_idle_stretch_is_not_usable():
    """Without calls there is nothing to conclude."""
    assert not Workload().window(Stretch(0.0, 10.0)).usable


def test_estimates_the_percentile_of_a_mixture():
    """From sums alone the 95th percentile of lognormal classes is within 5 % of the one of the calls."""
    rng, stretch, durations = random.Random(2), Stretch(0.0, 10.0), []
    for _ in range(4000):
        size, mean = rng.choice([(10, -3.0), (100, -2.0), (1000, -0.5)])
        durations.append(rng.lognormvariate(mean, 0.4))
        stretch.add(durations[-1], input_size=size)
    empirical = sorted(durations)[int(0.95 * len(durations))]

    assert quantile(stretch.by_size, 0.95) == pytest.approx(empirical, rel=0.05)
