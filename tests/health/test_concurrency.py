"""Calls in flight, against a recomputation and Little's law."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.health.concurrency import Concurrency
from otel_inference.health.window import SlidingWindow


@settings(deadline=None)
@given(
    calls=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 200), st.booleans()), max_size=30),
    idle_s=st.floats(0, 300),
    born_s=st.floats(0, 100),
)
def test_equals_a_recomputation(calls, idle_s, born_s):
    """The mean is the time that calls ran in the window, ended or not, over the time the window covers."""
    concurrency, now_s, intervals, running = Concurrency(born_s=born_s), born_s, [], []
    for step_s, duration_s, runs_on in calls:
        now_s += step_s
        started_s = max(born_s, now_s - duration_s)
        if runs_on:
            running.append(started_s)
        else:
            intervals.append((started_s, now_s))
            concurrency.add(started_s, now_s)
    now_s += idle_s

    start_s = max((math.floor(now_s / 10) - 5) * 10, born_s)
    every = intervals + [(started_s, now_s) for started_s in running]
    area = sum(max(0.0, ended_s - max(started_s, start_s)) for started_s, ended_s in every)
    if now_s > start_s:
        assert concurrency.mean(now_s, running) == pytest.approx(area / (now_s - start_s), abs=1e-6)


def test_has_no_mean_before_any_time():
    """In a window without age nothing has run yet."""
    assert Concurrency(born_s=5.0).mean(5.0, [5.0]) == 0.0


def test_agrees_with_littles_law():
    """In a steady stream the mean in flight is throughput times mean duration."""
    rng = random.Random(3)
    arrivals = sorted(rng.uniform(0, 300) for _ in range(6000))
    calls = sorted((at_s + rng.lognormvariate(-1, 0.7), at_s) for at_s in arrivals)
    concurrency, window = Concurrency(), SlidingWindow()
    for ended_s, started_s in calls:
        if ended_s < 290:
            concurrency.add(started_s, ended_s)
            window.add(ended_s, ended_s - started_s)
    running = [started_s for ended_s, started_s in calls if started_s < 290 <= ended_s]
    snapshot = window.snapshot(290.0)

    assert concurrency.mean(290.0, running) == pytest.approx(snapshot.throughput * snapshot.mean_s, rel=0.1)
