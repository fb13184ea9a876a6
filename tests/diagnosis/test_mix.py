"""Longer inputs told apart from slowness, by what is usual for each size."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.diagnosis.expectation import Expectation, _non_negative
from otel_inference.diagnosis.mix import Baseline, WeightedTotals, compare, growing_share, merged
from otel_inference.health.stretch import SizeKey, SizeTotals, Stretch

PER_CALL_S, PER_TOKEN_S, PER_OUTPUT_S = 0.01, 1e-4, 2e-3
SIZES = (64, 128, 256, 512)


def stretch(sizes, *, slower=1.0, outputs=None, noise=0.1, seed=1):
    """A stretch of calls with these input sizes, which cost a constant time per token."""
    rng, made = random.Random(seed), Stretch(0.0, 10.0)
    for index, size in enumerate(sizes):
        output = None if outputs is None else outputs[index]
        seconds = PER_CALL_S + PER_TOKEN_S * (size or 0) + PER_OUTPUT_S * (output or 0)
        factor = slower(size) if callable(slower) else slower
        made.add(seconds * factor * math.exp(rng.gauss(0, noise)), input_size=size, output_tokens=output)
    return made.by_size


def mixed(count, sizes=SIZES):
    """Sizes in turn."""
    return [sizes[index % len(sizes)] for index in range(count)]


def test_finds_neither_where_nothing_changed():
    """The same inputs at the same speed are neither larger nor slower."""
    found = compare(stretch(mixed(200)), stretch(mixed(100), seed=2))

    assert (found.inputs_grew, found.slowed) == (False, False)
    assert (found.input_ratio, found.slow_ratio, found.time_ratio) == pytest.approx((1.0, 1.0, 1.0), abs=0.05)
    assert (found.base_calls, found.now_calls) == (200, 100)
    assert (found.slow_range, found.growing) == (None, None)


def test_finds_that_inputs_grew():
    """Inputs twice as long are larger inputs, and no slowness, though calls take much longer."""
    found = compare(stretch(mixed(200)), stretch(mixed(100, [2 * size for size in SIZES]), seed=2))

    assert (found.inputs_grew, found.slowed) == (True, False)
    assert found.slow_ratio == pytest.approx(1.0, abs=0.06)
    assert found.input_ratio * found.slow_ratio == pytest.approx(found.time_ratio, rel=0.15)


def test_finds_that_calls_slowed():
    """A third more time for the same inputs is slowness."""
    found = compare(stretch(mixed(200)), stretch(mixed(100), slower=1.33, seed=2))

    assert (found.inputs_grew, found.slowed) == (False, True)
    assert found.slow_ratio == pytest.approx(1.33, abs=0.05)
    assert found.slow_range is None


def test_finds_no_slowness_that_is_too_small():
    """Calls that surely take 9 % longer are not slow."""
    found = compare(stretch(mixed(2000)), stretch(mixed(2000), slower=1.09, seed=2))

    assert found.slow_z > 5
    assert not found.slowed


def test_tells_slow_from_not_slow_by_few_calls():
    """By forty calls that scatter by a factor of 1.6, of calls 1.3 times as slow three in four are slow, of others one in ten."""
    base = stretch(mixed(2000), noise=0.5)
    slow, usual = (
        [compare(base, stretch(mixed(40), slower=slower, noise=0.5, seed=seed)).slowed for seed in range(100)]
        for slower in (1.3, 1.0)
    )

    assert sum(slow) >= 75
    assert sum(usual) <= 10


@pytest.mark.parametrize("sizes", [SIZES, (100,)])
def test_expects_a_constant_cost_per_token_of_sizes_never_seen(sizes):
    """Inputs four times as long as any before are not slowness, even if all were of one size."""
    base = stretch(mixed(300, sizes))
    now = stretch(mixed(100, [8 * size for size in sizes]), seed=2)
    found = compare(base, now)

    assert (found.inputs_grew, found.slowed) == (True, False)
    assert found.input_ratio > 4
    if len(sizes) > 1:
        assert found.slow_ratio == pytest.approx(1.0, abs=0.1)


def test_is_less_sure_of_sizes_never_seen():
    """A quarter more than the line foretells is slowness for sizes that are known, and may be the line's fault for others."""
    base = stretch(mixed(400), noise=0.02)
    known, unseen = (
        compare(base, stretch(mixed(400, sizes), slower=1.25, noise=0.02, seed=2)) for sizes in (SIZES, (2048, 4096))
    )

    assert known.slowed
    assert not unseen.slowed
    assert unseen.slow_ratio > 1.15
    assert unseen.slow_z < known.slow_z / 3
    assert unseen.input_z < 30


def test_knows_that_sizes_move_inside_their_classes_too():
    """Where classes are whole octaves, inputs and outputs twice as large are no slowness to within three percent."""
    rng = random.Random(1)

    def calls(count, longer):
        parts = []
        for seed in range(count // 20):
            sizes, outputs = ([round(longer * rng.lognormvariate(5, 0.5)) for _ in range(20)] for _ in range(2))
            parts.append(stretch(sizes, outputs=outputs, noise=0.02, seed=seed))
        return merged(parts)

    found = compare(calls(2000, 1.0), calls(1000, 2.0))
    assert found.slow_ratio == pytest.approx(1.0, abs=0.03)


def test_is_not_fooled_by_more_of_the_large_ones():
    """A mix that moves to the large sizes is larger inputs; Simpson's paradox is none here."""
    small, large = [64] * 90 + [1024] * 10, [64] * 10 + [1024] * 90
    found = compare(stretch(small * 3), stretch(large, seed=2))
    assert (found.inputs_grew, found.slowed) == (True, False)

    found = compare(stretch(large * 3), stretch(small, slower=1.5, seed=2))
    assert (found.inputs_grew, found.slowed) == (False, True)
    assert found.time_ratio < 1.0


def test_normalises_generation_by_both_sizes():
    """Longer outputs are as little slowness as longer inputs."""
    rng = random.Random(3)
    base = merged(stretch(mixed(20), outputs=[rng.randint(20, 200) for _ in range(20)], seed=s) for s in range(20))
    now = merged(stretch(mixed(20), outputs=[rng.randint(60, 600) for _ in range(20)], seed=s) for s in range(50, 55))
    found = compare(base, now)

    assert (found.inputs_grew, found.slowed) == (True, False)
    assert found.slow_ratio == pytest.approx(1.0, abs=0.1)


def test_says_nothing_of_few_calls():
    """With fewer than thirty calls on one side there is no comparison."""
    assert compare(stretch(mixed(29)), stretch(mixed(100))) is None
    assert compare(stretch(mixed(100)), stretch(mixed(29))) is None
    assert compare({}, {}) is None


def test_compares_calls_of_unknown_size():
    """Where no size is known there is no mix: all that calls take longer is slowness."""
    found = compare(stretch([None] * 100), stretch([None] * 100, slower=2.0, seed=2))

    assert (found.inputs_grew, found.slowed) == (False, True)
    assert found.slow_ratio == pytest.approx(2.0, rel=0.05)


def test_leaves_out_the_few_of_unknown_size():
    """Where most sizes are known, the others say nothing; they may be of any size."""
    base = stretch(mixed(100) + [None] * 20)
    now = stretch(mixed(100) + [None] * 50, slower=lambda size: 30.0 if size is None else 1.0, seed=2)
    found = compare(base, now)

    assert (found.base_calls, found.now_calls) == (100, 100)
    assert not found.slowed


@pytest.mark.parametrize(("bad", "at_least", "below"), [((256, 512), 256, 1024), ((64,), 64, 91)])
def test_finds_the_sizes_that_slowed(bad, at_least, below):
    """If only some sizes slowed, it is said which, how much, and that the others did not."""
    now = stretch(mixed(160), slower=lambda size: 2.0 if size in bad else 1.0, seed=2)
    found = compare(stretch(mixed(400)), now).slow_range

    assert found.at_least <= at_least < found.below <= below
    assert found.ratio == pytest.approx(2.0, abs=0.15)
    assert found.others_ratio == pytest.approx(1.0, abs=0.05)
    assert found.calls == 40 * len(bad)


def test_takes_chance_for_no_slow_sizes():
    """Five calls that scatter widely and took 60 % longer may have done so by chance."""
    base = stretch(mixed(400), noise=0.5)
    now = merged([stretch(mixed(95, (128, 256, 512)), noise=0.5, seed=2), stretch([64] * 5, slower=1.6, noise=0.5)])

    assert compare(base, now).slow_range is None


def test_takes_most_sizes_for_no_exception():
    """If all but one size slowed, the system did."""
    now = stretch(mixed(160), slower=lambda size: 2.0 if size != 64 else 1.0, seed=2)
    found = compare(stretch(mixed(400)), now)

    assert found.slow_range is None
    assert found.slowed


def test_finds_a_size_that_takes_more_and_more_of_the_time():
    """One size of input that came rarely and now comes often is named, with its share of the time."""
    found = compare(stretch([64] * 190 + [4096] * 10), stretch([64] * 50 + [4096] * 50, seed=2)).growing

    assert found.at_least <= 4096 < found.below
    assert (found.base_share, found.now_share) == pytest.approx((0.58, 0.96), abs=0.05)


def test_finds_a_model_that_takes_more_and_more_of_the_time():
    """The same holds for models that share a process; a few calls are not sure enough."""
    base = {"ranker": WeightedTotals(100, 10.0), "encoder": WeightedTotals(100, 10.0)}
    now = {"ranker": WeightedTotals(100, 10.0), "encoder": WeightedTotals(400, 40.0)}
    few = {"ranker": WeightedTotals(2, 0.2), "encoder": WeightedTotals(8, 0.8)}

    assert growing_share(base, now) == ("encoder", 0.5, 0.8)
    assert growing_share(now, base) is not None
    assert growing_share(base, few) is None
    assert growing_share(base, base) is None
    assert growing_share(base, {**base, "encoder": WeightedTotals(250, 25.0)}) is None
    assert growing_share({}, now) is None


@settings(max_examples=50, deadline=None, derandomize=True)
@given(slower=st.floats(0.5, 4), longer=st.sampled_from([1, 2, 4]), seed=st.integers(0, 100))
def test_parts_make_the_whole(slower, longer, seed):
    """Both ratios together are the ratio of the geometric means of now and then."""
    base, now = stretch(mixed(120)), stretch([longer * size for size in mixed(120)], slower=slower, seed=seed)
    found = compare(base, now)
    means = [
        sum(each.log_service for each in side.values()) / sum(each.calls for each in side.values())
        for side in (base, now)
    ]

    whole = math.log(found.input_ratio * found.slow_ratio)
    assert whole == pytest.approx(means[1] - means[0], abs=0.02)


def test_knows_the_residual_of_a_stretch():
    """A stretch a fifth slower than usual for its sizes has a mean residual of ln 1.2, whatever the sizes."""
    baseline = Baseline()
    baseline.add(stretch(mixed(400)), 10.0)
    for sizes in (mixed(100), [64] * 100, [1024] * 100):
        residual = baseline.residual(stretch(sizes, slower=1.2, seed=2))
        assert residual.mean == pytest.approx(math.log(1.2), abs=0.06)
        assert residual.error == pytest.approx(0.1 / math.sqrt(100), rel=0.2)
        assert residual.calls == 100


def test_knows_no_residual_before_it_knows_what_is_usual():
    """Thirty calls are needed to know what is usual, and one to compare."""
    baseline = Baseline()
    assert baseline.residual(stretch(mixed(10))) is None
    baseline.add(stretch(mixed(28)), 10.0)
    assert baseline.residual(stretch(mixed(10))) is None
    baseline.add(stretch(mixed(28)), 20.0)
    assert baseline.residual(stretch(mixed(10))).calls == 10
    assert baseline.residual({}) is None
    baseline.reset()
    assert (baseline.calls, baseline.residual(stretch(mixed(10)))) == (0.0, None)


def test_forgets_at_its_half_life():
    """After an hour a call counts half, and after a day nothing is left."""
    baseline = Baseline(half_life_s=3600.0)
    baseline.add(stretch(mixed(100)), 0.0)
    baseline.add({}, 3600.0)
    assert baseline.calls == pytest.approx(50.0)
    baseline.add({}, 0.0)
    assert baseline.calls == pytest.approx(50.0)
    baseline.add({}, 86400.0)
    assert baseline.totals == {}


def test_learns_what_has_become_usual():
    """A baseline that is given slower stretches comes to expect them."""
    baseline = Baseline(half_life_s=600.0)
    baseline.add(stretch(mixed(400)), 0.0)
    assert baseline.residual(stretch(mixed(20), slower=2.0)).mean > math.log(1.8)
    for index in range(360):
        baseline.add(stretch(mixed(20), slower=2.0, seed=index), 10.0 * index)

    for sizes in (mixed(100), [1024] * 100):  # the latter were never seen
        residual = baseline.residual(stretch(sizes, slower=2.0, seed=999))
        assert residual.mean == pytest.approx(0.0, abs=0.1)


def test_bounds_the_classes():
    """However many sizes there are, the most frequent 128 classes are kept."""
    baseline = Baseline()
    for output in range(200):
        totals = SizeTotals(1 + (output >= 50), 1.0, 0.0, 0.0)
        baseline.add({SizeKey(0, output): totals}, 1.0)

    assert len(baseline.totals) == 128
    assert all(key.output_class >= 50 for key in baseline.totals)


def test_draws_rare_classes_towards_the_line():
    """One odd call of a size is not what is usual for it; thirty are."""
    expected = {}
    for odd in (1, 30):
        base = merged([stretch(mixed(200), noise=0.0), stretch([2048] * odd, slower=5.0, noise=0.0)])
        usual = Expectation(base)
        expected[odd] = usual.of(SizeKey(22, -1)) - math.log(PER_CALL_S + PER_TOKEN_S * 2048)

    assert expected[1] < math.log(5) / 2 < expected[30]


def test_takes_any_sizes():
    """Also those of a model that was told its input's time stamp for its size: others are judged in the same round."""
    cells = {(0, 88): (1000, 3.15), (22, 8): (2, -4.33), (6, 80): (1000, 3.93), (19, 78): (1000, -4.25)}
    base = {
        SizeKey(*key): WeightedTotals(calls, calls * math.exp(log), calls * log, calls * log * log)
        for key, (calls, log) in cells.items()
    }

    assert all(math.isfinite(Expectation(base).of(key)) for key in base)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=6),
    target=st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(-5, 5)),
)
def test_solves_least_squares_without_negative_parts(rows, target):
    """No nearby point without negative parts is better than the one found."""
    size = range(3)
    matrix = [[sum(row[i] * row[j] for row in rows) + (i == j) for j in size] for i in size]

    def loss(x):
        return sum(x[i] * matrix[i][j] * x[j] for i in size for j in size) / 2 - sum(
            t * e for t, e in zip(target, x, strict=True)
        )

    found = _non_negative(matrix, list(target))
    assert min(found) >= 0
    for i in size:
        for step in (-0.01, 0.01):
            near = [max(0.0, each + step * (i == j)) for j, each in enumerate(found)]
            assert loss(near) >= loss(found) - 1e-9


def test_compares_with_calls_that_took_no_time():
    """Spans of another instrumentation may have no length; nothing is so many times as long as they are."""
    base = {SizeKey(2, -1): SizeTotals(50, 0.0, -1000.0, 20000.0)}

    assert compare(base, stretch(mixed(100))).time_ratio == 1.0
