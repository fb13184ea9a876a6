"""How soon what is found, and how often nothing, on simulated streams: short versions of benchmarks/detection.py."""

from __future__ import annotations

from statistics import mean, median

import numpy as np
import pytest
from tests.diagnosis import simulation
from tests.diagnosis.simulation import DAY, Traffic

from otel_inference.diagnosis.slo import Tier


@pytest.mark.parametrize(("calls", "sigma", "seed"), [(5, 1.0, 1), (20, 0.5, 2), (200, 0.3, 3)])
def test_finds_nothing_in_healthy_traffic(calls, sigma, seed):
    """Hours of cycles, autocorrelation, growing inputs and usual errors raise at most one finding."""
    windows = 1000 if calls > 100 else 2000
    found = simulation.false_findings(seed, Traffic(calls=calls, sigma=sigma), windows)

    assert sum(found.values()) <= 1


@pytest.mark.parametrize(("calls", "sigma", "autocorrelation"), [(5, 0.3, 0.5), (20, 0.5, 0.5), (20, 1.0, 0.0)])
def test_finds_nothing_in_processes_that_have_just_begun(calls, sigma, autocorrelation):
    """Of 80 healthy processes three at most have a finding in their first quarter of an hour."""
    traffic = Traffic(calls=calls, sigma=sigma, autocorrelation=autocorrelation)
    found = [sum(simulation.false_findings([seed, calls], traffic, 90).values()) > 0 for seed in range(80)]

    assert sum(found) <= 3


@pytest.mark.parametrize(("ratio", "within", "share"), [(1.5, 3, 0.85), (1.2, 10, 0.65)])
def test_finds_a_step_hardly_larger_than_the_noise(ratio, within, share):
    """With twenty calls that scatter by sigma 0.5 most steps are found in time; the best possible test misses some too."""
    case = {"ratio": ratio, "calls": 20, "sigma": 0.5}
    delays = [simulation.step_delay([seed, 1], within=within + 1, **case) for seed in range(60)]

    assert share <= mean(0 < each <= within for each in delays)
    assert share <= simulation.best_share(within, autocorrelation=0.0, **case) < 1.0


@pytest.mark.parametrize(
    ("ratio", "sigma", "lasts", "within"), [(1.5, 0.5, 3, 6), (1.2, 0.3, 60, 8), (1.5, 0.5, 60, 6)]
)
def test_closes_a_slowdown_that_is_over(ratio, sigma, lasts, within):
    """Within a minute or so of its end, however long it was, and it opened once."""
    seen = [simulation.closing_delay(seed, ratio=ratio, calls=20, sigma=sigma, lasts=lasts) for seed in range(20)]
    found = [(openings, closed) for openings, closed in seen if closed]

    assert len(found) >= 15
    assert mean(closed <= within for _, closed in found) >= 0.9
    assert mean(openings for openings, _ in found) <= 1.1


@pytest.mark.parametrize(("calls", "sigma"), [(20, 0.3), (200, 0.5), (200, 1.0)])
@pytest.mark.parametrize(("ratio", "within"), [(1.5, 3), (1.2, 10)])
def test_finds_a_step_in_time(calls, sigma, ratio, within):
    """A step by half is found in three windows, one by a fifth in ten, nine times out of ten."""
    delays = [
        simulation.step_delay(seed, ratio=ratio, calls=calls, sigma=sigma, within=within + 1) for seed in range(20)
    ]

    assert mean(0 < each <= within for each in delays) >= 0.9


@pytest.mark.parametrize(("ratio", "autocorrelation", "share"), [(2.0, 0.0, 0.95), (2.0, 0.5, 0.85), (4.0, 0.5, 0.95)])
def test_finds_a_large_step_soon_though_little_is_known(ratio, autocorrelation, share):
    """In the sixth minute of a process calls that take twice, or four times, as long are found in half a minute."""
    case = {"calls": 20, "sigma": 0.3, "autocorrelation": autocorrelation, "before": 30}
    delays = [simulation.step_delay(seed, ratio=ratio, within=4, **case) for seed in range(40)]

    assert mean(0 < each <= 3 for each in delays) >= share


def test_finds_a_step_in_autocorrelated_latency():
    """Where windows take after one another a step by half is found as soon, and one by a fifth mostly."""
    case = {"calls": 20, "sigma": 0.3, "autocorrelation": 0.5}
    halves = [simulation.step_delay(seed, ratio=1.5, within=4, **case) for seed in range(20)]
    fifths = [simulation.step_delay(seed, ratio=1.2, within=30, **case) for seed in range(20)]

    assert mean(0 < each <= 3 for each in halves) >= 0.9
    assert median(fifths) <= 10


@pytest.mark.parametrize(("calls", "sigma"), [(5, 0.5), (200, 0.3)])
def test_takes_a_spike_for_no_shift(calls, sigma):
    """One window three times as slow is no shift, in autocorrelated latency too."""
    found = [simulation.spike_is_found(seed, ratio=3, calls=calls, sigma=sigma) for seed in range(20)]

    assert sum(found) <= 1


def test_knows_what_no_detector_can_find():
    """With calls that scatter by a factor of e, a fifth is not to be seen in ten windows of twenty."""
    case = {"calls": 20, "autocorrelation": 0.0}

    assert simulation.best_share(10, ratio=1.2, sigma=1.0, **case) < 0.4
    assert simulation.best_share(10, ratio=1.2, sigma=0.3, **case) > 0.99


@pytest.mark.parametrize("generates", [False, True])
@pytest.mark.parametrize(
    ("longer", "slower"), [(1.0, 1.0), (1.5, 1.0), (2.0, 1.0), (1.0, 1.3), (1.0, 2.0), (1.5, 1.3), (2.0, 2.0)]
)
def test_tells_inputs_from_slowness(longer, slower, generates):
    """By 100 calls it is told which of both changed, 19 times out of 20."""
    right = [
        simulation.mix_is_right(seed, longer=longer, slower=slower, base_calls=500, generates=generates)
        for seed in range(20)
    ]

    assert mean(right) >= 0.95


@pytest.mark.parametrize(("objective", "calls_per_minute"), [(0.999, 0.5), (0.99, 5), (0.95, 50)])
def test_pages_nobody_at_the_budget(objective, calls_per_minute):
    """Three days with exactly the errors that were promised raise no burn of any tier."""
    opened = simulation.burns(
        1, objective=objective, calls_per_minute=calls_per_minute, bad_ratios=np.full(2 * DAY, 1 - objective)
    )

    assert opened == {Tier.PAGE: [], Tier.CONTROL: []}


@pytest.mark.parametrize("objective", [0.999, 0.99])
def test_finds_a_total_outage_at_five_calls_a_minute(objective):
    """After hours without errors, two windows and two minutes of nothing else are enough."""
    bad_ratios = np.where(np.arange(1100) < 1080, (1 - objective) / 2, 1.0)
    for seed in range(10):
        opened = simulation.burns(seed, objective=objective, calls_per_minute=5, bad_ratios=bad_ratios)
        first = min(opened[Tier.PAGE] + opened[Tier.CONTROL])
        assert 1080 <= first <= 1080 + 14


def test_finds_errors_and_missing_calls():
    """With five calls in a window a failing model is found in a minute, and so is one that nobody calls."""
    failing = [simulation.burst_delay(seed, calls=5, usual=0.01, failing=1.0) for seed in range(10)]
    missing = [simulation.drop_delay(seed, calls=5, left=0.0) for seed in range(10)]

    assert max(failing) <= 6
    assert max(missing) <= 6
