"""The promise of the sketch is the oracle: 1 % relative error, for whatever distribution."""

from __future__ import annotations

import math
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.health.sketch import BUCKETS, LARGEST_S, SMALLEST_S, QuantileSketch

QS = (0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
DISTRIBUTIONS = {
    "lognormal": lambda rng: rng.lognormvariate(-3, 1),
    "wide lognormal": lambda rng: rng.lognormvariate(-3, 3),
    "exponential": lambda rng: rng.expovariate(20),
    "uniform": lambda rng: rng.uniform(0.001, 2),
    "constant": lambda _: 0.25,
    "two modes": lambda rng: rng.gauss(0.01, 0.001) if rng.random() < 0.9 else rng.gauss(2, 0.1),
    "pareto": lambda rng: 0.001 * rng.paretovariate(1.2),
    "microseconds": lambda rng: rng.uniform(1e-6, 1e-5),
    "minutes": lambda rng: rng.uniform(60, 3600),
}


def exact(values, q):
    """The order statistic of rank floor(q (n - 1))."""
    return sorted(values)[math.floor(q * (len(values) - 1))]


def sketch_of(values):
    """A sketch of all values."""
    sketch = QuantileSketch()
    for value in values:
        sketch.add(value)
    return sketch


@pytest.mark.parametrize("size", [1, 2, 10, 1000, 20_000])
@pytest.mark.parametrize("draw", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_keeps_its_promise(draw, size):
    """Every quantile of every distribution is within 1 % of the exact one."""
    rng = random.Random(size)
    values = [min(max(draw(rng), SMALLEST_S), LARGEST_S) for _ in range(size)]
    sketch = sketch_of(values)

    for q, found in zip(QS, sketch.quantiles(QS), strict=True):
        assert found == pytest.approx(exact(values, q), rel=0.01 + 1e-9)
    assert sketch.count == size


VALUES = st.lists(st.floats(SMALLEST_S, LARGEST_S), min_size=1, max_size=50)


@settings(deadline=None)
@given(ones=VALUES, others=VALUES)
def test_merges_like_one(ones, others):
    """A merge is the sketch of all values, and taking it back leaves what was before."""
    merged = sketch_of(ones)
    merged.merge(sketch_of(others))
    assert merged.quantiles(QS) == sketch_of(ones + others).quantiles(QS)

    merged.subtract(sketch_of(others))
    assert merged.quantiles(QS) == sketch_of(ones).quantiles(QS)
    assert merged.count == len(ones)


def test_copies_apart():
    """A copy and its original go their own ways."""
    sketch = sketch_of([0.1])
    copy = sketch.copy()
    copy.add(1.0)

    assert (sketch.count, copy.count) == (1, 2)


@pytest.mark.parametrize(
    ("value", "reported"),
    [(0.0, 1e-6), (-1.0, 1e-6), (math.nan, 1e-6), (1e-9, 1e-6), (1e6, 3600.0), (math.inf, 3600.0)],
)
def test_clamps_what_is_out_of_range(value, reported):
    """What is no duration between 1 us and 1 h is counted at the near end, and breaks nothing."""
    assert sketch_of([value]).quantile(0.5) == pytest.approx(reported, rel=0.02)


def test_is_empty_without_values():
    """No values have no quantile."""
    assert math.isnan(QuantileSketch().quantile(0.5))


def test_refuses_what_is_no_quantile():
    """A quantile is between 0 and 1."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        sketch_of([1.0]).quantile(1.5)


def test_holds_a_fixed_memory():
    """A million values need no more memory than one."""
    one, many = sketch_of([0.5]), QuantileSketch()
    for number in range(10_000):
        many.add(1e-6 * 1.002**number)

    assert sys.getsizeof(many._counts) == sys.getsizeof(one._counts) <= 5 * BUCKETS
