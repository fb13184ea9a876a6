"""Limits and estimates of rates, with the clock passed in."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.sampling.budget import Budget, Rate, fair_level


def taken(budget, arrivals):
    """Which of the arrivals (when, who) find room."""
    found = []
    for at_s, key in arrivals:
        if budget.has_room(key, at_s):
            budget.take(key, at_s)
            found.append((at_s, key))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0.5, 1.0, 2.5, 7.0, 40.0]),
    st.lists(st.tuples(st.floats(0, 0.3), st.sampled_from("abc")), max_size=150),
)
def test_never_exceeds_its_rate(per_second, steps):
    """No stretch as long as the budget's own, wherever it begins, has more than its places."""
    at_s, arrivals = 0.0, []
    for step_s, key in steps:
        at_s += step_s
        arrivals.append((at_s, key))
    times = [at_s for at_s, _ in taken(Budget(per_second), arrivals)]
    places = math.ceil(per_second)

    for first, last in zip(times, times[places:], strict=False):
        assert last - first >= places / per_second - 1e-9


def test_gives_what_it_has():
    """A flood gets all but the places kept for newcomers; a steady stream below the rate gets everything."""
    flood = [(number / 2000, "a") for number in range(20_000)]
    assert len(taken(Budget(100.0), flood)) == pytest.approx(100 * 0.9 * 10, rel=0.02)

    steady = [(number / 50, "a") for number in range(500)]
    assert taken(Budget(100.0), steady) == steady


def test_leaves_something_to_others():
    """One that takes all it can get leaves places for one that begins later, at once."""
    arrivals = [(number / 2000, "greedy") for number in range(4000)]
    late = [(1.5 + number / 10, "late") for number in range(5)]
    found = taken(Budget(50.0), sorted(arrivals + late))

    assert [entry for entry in found if entry[1] == "late"] == late


def test_shares_equally_among_equals():
    """Four that all want everything get a quarter each."""
    source = random.Random(3)
    arrivals = [(number / 4000, source.choice("abcd")) for number in range(40_000)]
    found = [key for _, key in taken(Budget(40.0), arrivals)]

    assert all(found.count(key) == pytest.approx(len(found) / 4, rel=0.3) for key in "abcd")
    assert len(found) == pytest.approx(400, rel=0.2)


def test_of_nothing_has_no_room():
    """A budget of zero turns everything away."""
    assert not Budget(0.0).has_room("a", 5.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1000), min_size=1, max_size=20), st.floats(0.1, 1000))
def test_fair_level_spends_what_there_is(wants, total):
    """Below the level all get what they want, and together they get the total or all they want."""
    level = fair_level(wants, total)

    assert sum(min(want, level) for want in wants) == pytest.approx(min(total, sum(wants)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("per_second", "excess"), [(0.5, 1.0), (20.0, 0.25), (2000.0, 0.05)])
def test_rate_is_right_when_steady(per_second, excess):
    """After a while the estimate is that of the arrivals; few of them are rather taken for more than for fewer."""
    rate, source, at_s, arrivals = Rate(0.0), random.Random(5), 0.0, 0
    estimates = []
    for tick in range(1, 600):
        while at_s < tick / 10:
            at_s += source.expovariate(per_second)
            arrivals += 1
        estimates.append(rate.add(arrivals, tick / 10))
        arrivals = 0

    assert 0.95 <= sum(estimates[100:]) / 499 / per_second <= 1 + excess


def test_rate_believes_a_rise_soon_and_a_fall_later():
    """A hundredfold rise is seen within half a second, and forgotten after some more."""
    rate = Rate(0.0)
    for tick in range(1, 200):
        rate.add(2, tick / 10)
    rise = [rate.add(200, 20 + tick / 10) for tick in range(5)]
    fall = [rate.add(2, 20.5 + tick / 10) for tick in range(200)]

    assert rise[4] > 1000
    assert fall[5] > 100
    assert fall[-1] == pytest.approx(20, rel=0.3)


def test_rate_bears_a_clock_that_stands_or_goes_back():
    """No time passed is no division by zero, and time that goes back is none."""
    rate = Rate(10.0)

    assert rate.add(1, 10.0) == 10.0
    assert rate.add(1, 9.0) == 20.0
