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
    changes=st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=40),
    idle_s=st.floats(0, 300),
    born_s=st.floats(0, 100),
)
def test_equals_a_recomputation(changes, idle_s, born_s):
    """The mean is the area under the number in flight, over the time the window covers."""
    concurrency, now_s, in_flight, steps = Concurrency(born_s=born_s), born_s, 0, []
    for step_s, begins in changes:
        now_s += step_s
        by = 1 if begins or in_flight == 0 else -1
        steps.append((now_s, in_flight))
        in_flight += by
        concurrency.change(now_s, by)
    now_s += idle_s
    steps.append((now_s, in_flight))

    start_s = max((math.floor(now_s / 10) - 5) * 10, born_s)
    area, last_s = 0.0, born_s
    for at_s, number in steps:
        area += number * max(0.0, at_s - max(last_s, start_s))
        last_s = at_s
    if now_s > start_s:
        assert concurrency.mean(now_s) == pytest.approx(area / (now_s - start_s), abs=1e-6)
    assert concurrency.in_flight == in_flight


def test_agrees_with_littles_law():
    """In a steady stream the mean in flight is throughput times mean duration."""
    rng = random.Random(3)
    arrivals = sorted(rng.uniform(0, 300) for _ in range(6000))
    calls = [(at_s, at_s + rng.lognormvariate(-1, 0.7)) for at_s in arrivals]
    concurrency, window = Concurrency(), SlidingWindow()
    events = sorted([(start, 1, 0.0) for start, _ in calls] + [(end, -1, end - start) for start, end in calls])
    for at_s, by, duration_s in events:
        if at_s > 290:
            break
        concurrency.change(at_s, by)
        if by < 0:
            window.add(at_s, duration_s)
    snapshot = window.snapshot(290.0)

    assert concurrency.mean(290.0) == pytest.approx(snapshot.throughput * snapshot.mean_s, rel=0.1)
