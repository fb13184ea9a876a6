"""A sliding window against a recomputation from all calls."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.health.horizon import HORIZONS_S, HorizonCounts
from otel_inference.health.window import SlidingWindow, wilson_interval

WIDTH_S, SLOTS = 60.0, 6
SLOT_S = WIDTH_S / SLOTS

CALL = st.tuples(
    st.one_of(st.floats(0, 5), st.floats(-20, 0), st.sampled_from([0.0, 59.9, 60.0, 61.0, 400.0])),
    st.floats(1e-4, 100),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 10_000)),
)


def slot_of(at_s):
    """Index of the sub-window of a time."""
    return math.floor(at_s / SLOT_S)


@settings(max_examples=300, deadline=None)
@given(calls=st.lists(CALL, max_size=60), idle_s=st.floats(0, 200), born_s=st.floats(0, 1000))
def test_equals_a_recomputation(calls, idle_s, born_s):
    """After any stream with gaps and clock steps the window holds what a recomputation finds."""
    window = SlidingWindow(width_s=WIDTH_S, slots=SLOTS, born_s=born_s)
    clock_s = now_s = born_s
    seen = []
    for step_s, duration_s, failed, cold, size in calls:
        clock_s += step_s
        now_s = max(now_s, clock_s)
        window.add(clock_s, duration_s, failed=failed, cold=cold, size=size)
        seen.append((now_s, duration_s, failed, cold, size))
    now_s += idle_s
    snapshot = window.snapshot(now_s)

    kept = [call for call in seen if slot_of(call[0]) > slot_of(now_s) - SLOTS]
    warm = [call for call in kept if not call[3]]
    assert snapshot.calls == len(kept)
    assert snapshot.errors == sum(call[2] for call in kept)
    assert snapshot.warm_calls == snapshot.sketch.count == len(warm)
    assert snapshot.warm_total_s == pytest.approx(sum(call[1] for call in warm), abs=1e-7)
    assert snapshot.max_s == max((call[1] for call in warm), default=0.0)
    sized = [call for call in warm if call[4] is not None]
    assert sum(size.calls for size in snapshot.by_size) == len(sized)
    assert sum(size.total_s for size in snapshot.by_size) == pytest.approx(sum(call[1] for call in sized), abs=1e-6)
    oldest_s = (slot_of(now_s) - SLOTS + 1) * SLOT_S
    assert snapshot.covered_s == pytest.approx(now_s - max(oldest_s, born_s))


def test_divides_a_young_window_by_its_age():
    """Ten calls in the first two seconds are five calls a second."""
    window = SlidingWindow(born_s=100.0)
    for number in range(10):
        window.add(100.2 + 0.2 * number, 0.1)

    assert window.snapshot(102.0).throughput == pytest.approx(5.0)


def test_lets_old_calls_leave():
    """A minute after the last call nothing is left, and a later call starts anew."""
    window = SlidingWindow()
    for number in range(1000):
        window.add(number / 10, 0.1, failed=True)
    assert window.snapshot(99.9).throughput == pytest.approx(10.0, rel=0.02)

    empty = window.snapshot(160.0)
    assert (empty.calls, empty.errors, empty.warm_total_s, empty.throughput) == (0, 0, 0.0, 0.0)
    assert empty.error_ratio == 0.0
    assert math.isnan(empty.mean_s)


def test_keeps_cold_calls_out_of_latency():
    """A cold call counts, and a failed cold call is an error; latencies are of warm ones."""
    window = SlidingWindow()
    window.add(1.0, 30.0, cold=True, failed=True)
    window.add(2.0, 0.1)
    snapshot = window.snapshot(2.0)

    assert (snapshot.calls, snapshot.errors, snapshot.max_s) == (2, 1, 0.1)
    assert snapshot.mean_s == pytest.approx(0.1)


def test_tells_sizes_apart():
    """Calls are kept by the size of their input, so that long inputs are not slowness."""
    window = SlidingWindow()
    for size, duration_s in ((10, 0.1), (10, 0.3), (1000, 5.0), (0, 0.01)):
        window.add(1.0, duration_s, size=size)

    classes = window.snapshot(1.0).by_size
    assert [size.calls for size in classes] == [1, 2, 1]
    assert [size.mean_s for size in classes] == pytest.approx([0.01, 0.2, 5.0])
    assert [size.at_least <= real < 1.42 * size.at_least for size, real in zip(classes[1:], (10, 1000), strict=True)]


@settings(deadline=None)
@given(
    ones=st.lists(st.tuples(st.floats(0, 59), st.floats(1e-3, 10), st.booleans()), max_size=30),
    others=st.lists(st.tuples(st.floats(0, 59), st.floats(1e-3, 10), st.booleans()), max_size=30),
)
def test_merges_like_one_process(ones, others):
    """Snapshots of two processes merge into that of one process with all calls."""
    windows = [SlidingWindow(), SlidingWindow(), SlidingWindow()]
    for window, calls in zip(windows, (ones, others, ones + others), strict=True):
        for at_s, duration_s, failed in sorted(calls):
            window.add(at_s, duration_s, failed=failed, size=int(duration_s * 1000))
    first, second, both = (window.snapshot(59.0) for window in windows)
    merged = first.merged(second)

    assert (merged.calls, merged.errors, merged.max_s) == (both.calls, both.errors, both.max_s)
    assert merged.warm_total_s == pytest.approx(both.warm_total_s)
    assert merged.sketch.quantiles((0.0, 0.5, 1.0)) == pytest.approx(
        both.sketch.quantiles((0.0, 0.5, 1.0)), nan_ok=True
    )
    assert [size.calls for size in merged.by_size] == [size.calls for size in both.by_size]


def test_covers_the_true_ratio():
    """The Wilson interval of 95 % holds the true ratio in about 95 % of simulated samples."""
    rng = random.Random(1)
    for ratio in (0.02, 0.1, 0.5):
        for trials in (30, 300):
            hits = 0
            for _ in range(2000):
                low, high = wilson_interval(sum(rng.random() < ratio for _ in range(trials)), trials)
                hits += low <= ratio <= high
            assert hits / 2000 == pytest.approx(0.95, abs=0.03)


def test_knows_the_edges_of_a_ratio():
    """No trial says nothing; none or all failed leave 0 and 1 possible; one of three is no verdict."""
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == 1.0
    assert wilson_interval(1, 3) == pytest.approx((0.061, 0.792), abs=0.001)


@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(st.tuples(st.floats(0, 4000), st.booleans()), max_size=60),
    horizon_s=st.sampled_from(HORIZONS_S),
)
def test_counts_over_every_horizon(calls, horizon_s):
    """Each horizon holds what a recomputation finds, to the resolution of its sub-windows."""
    counts, clock_s, seen = HorizonCounts(), 0.0, []
    for step_s, failed in calls:
        clock_s += step_s
        counts.add(clock_s, failed=failed)
        seen.append((clock_s, failed))

    slot_s = 10.0 if horizon_s <= 300 else 60.0
    first = math.floor(clock_s / slot_s) - round(horizon_s / slot_s)
    kept = [failed for at_s, failed in seen if math.floor(at_s / slot_s) > first]
    assert counts.counts(horizon_s, clock_s) == (len(kept), sum(kept))


@pytest.mark.parametrize("arguments", [{"width_s": 0}, {"slots": 0}])
def test_refuses_a_window_without_width(arguments):
    """A window has a width and sub-windows."""
    with pytest.raises(ValueError, match="expected"):
        SlidingWindow(**arguments)


def test_refuses_a_horizon_out_of_reach():
    """Beyond six hours nothing is known."""
    with pytest.raises(ValueError, match="21600"):
        HorizonCounts().counts(86400.0, 0.0)
