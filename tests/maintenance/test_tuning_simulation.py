"""The tuner against the simulated servers of `benchmarks/tuning.py`, in short: five seeds of each kind."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from benchmarks.tuning import FIXED, POLICIES, drawn, run


@pytest.mark.parametrize("is_drawn", [False, True])
def test_reaches_the_optimum_and_keeps_to_the_objective(is_drawn):
    """On average it does 0.95 of the optimum's work, soon again after the machine slowed, and seldom breaks the objective."""
    runs = [
        run(POLICIES["tuner"], drawn(random.Random(1000 + seed)) if is_drawn else FIXED, seed=seed, noise=0.08)
        for seed in range(5)
    ]

    assert fmean(one.of_optimum for one in runs) >= 0.95
    assert fmean(one.over for one in runs) <= 0.025
    assert fmean(one.after for one in runs) >= 0.90
    assert max(one.turns for one in runs) <= 2


@pytest.mark.parametrize("name", ["static, best before the change", "naive hill climb", "AIMD"])
def test_does_better_than_what_it_is_compared_with(name):
    """Each of the others does less, and breaks the objective more often."""
    other, tuner = (run(POLICIES[policy], FIXED, seed=0, noise=0.08) for policy in (name, "tuner"))

    assert other.of_optimum < 0.9 * tuner.of_optimum
    assert other.over > 5 * tuner.over
