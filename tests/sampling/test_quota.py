"""Probabilities by model: what is kept, how much of it, and whether counts can be estimated from it."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest

from otel_inference.sampling.quota import Quotas
from otel_inference.sampling.threshold import MAX_THRESHOLD, probability_of, threshold_of


class Stream:
    """Traces of models that arrive at random, and what is kept of them."""

    def __init__(self, ratio, *, seed=0, unwell=(), boost=10.0, limit=100.0):
        self.quotas = Quotas(
            ratio, boost_per_second=boost, max_per_second=limit, is_unwell=lambda model: model in unwell
        )
        self.random = random.Random(seed)
        self.now_s = 1000.0
        self.began = 0
        self.estimate = 0.0
        self.kept = []

    def run(self, per_second, for_s, models=("ranker",)):
        """Let traces arrive for a while; gives how many per second were kept."""
        end_s, before = self.now_s + for_s, len(self.kept)
        while (wait_s := self.random.expovariate(per_second)) + self.now_s < end_s:
            self.now_s += wait_s
            self.began += 1
            self.arrive(self.random.choice(models))
        self.now_s = end_s
        return (len(self.kept) - before) / for_s

    def arrive(self, model, **more):
        """One trace now."""
        quota = self.quotas.of(model, self.now_s)
        if self.now_s >= self.quotas.due_s:
            self.quotas.refresh(self.now_s)
        quota.arrivals += 1
        kept = self.quotas.decide(quota, self.random.getrandbits(56), self.now_s, **more)
        if kept is not None:
            self.kept.append((self.now_s, model))
            if kept.adjusted_count is not None:
                self.estimate += kept.adjusted_count
            elif kept.threshold < MAX_THRESHOLD:
                self.estimate += 1 / probability_of(kept.threshold)
        return kept

    def worst_second(self):
        """The most that any second has kept."""
        times = [at_s for at_s, _ in self.kept]
        return max(
            sum(first <= at_s < first + 1 for at_s in times[index : index + 300]) for index, first in enumerate(times)
        )


def test_follows_the_ratio_while_well():
    """Of a model that is well the ratio is kept, and one a minute besides."""
    stream = Stream(0.01)

    assert stream.run(400, 60) == pytest.approx(4, abs=1.2)


def test_keeps_more_of_a_model_that_is_not_well():
    """A model that is not well has the boost besides the ratio; the others go on as before."""
    stream = Stream(0.01, unwell={"ill"})
    stream.run(400, 60, ["ill", "well"])
    ill = sum(model == "ill" for _, model in stream.kept) / 60

    assert 6 <= ill <= 12
    assert (len(stream.kept) / 60) - ill == pytest.approx(2, abs=0.9)


def test_keeps_all_of_a_slow_stream_that_is_not_well():
    """Where all of it fits into the boost, all of it is kept."""
    stream = Stream(0.01, unwell={"ill"})
    stream.run(2, 30, ["ill"])

    assert len(stream.kept) >= 0.95 * stream.began


def test_shares_the_boost_fairly():
    """A model with few traces has all of them kept beside one with many."""
    stream = Stream(0.001, unwell={"busy", "quiet"})
    stream.run(402, 40, ["busy"] * 200 + ["quiet"])
    quiet = sum(model == "quiet" for _, model in stream.kept) / 40

    assert quiet >= 1.4
    assert len(stream.kept) / 40 <= 12


def test_keeps_one_a_minute_of_a_rare_model():
    """A model called every 20 s has one of three calls kept at any ratio, and the first."""
    stream = Stream(0.0001)
    for _ in range(30):
        stream.arrive("rare")
        stream.now_s += 20

    assert len(stream.kept) == 10
    assert stream.kept[0][0] == 1000.0


def test_keeps_first_calls_within_the_boost():
    """First calls are kept surely while the boost has room, and as all others when it has none."""
    stream = Stream(0.0, boost=3.0)
    kept = [stream.arrive(f"model {number}", cold=True) for number in range(8)]

    assert [None if one is None else one.threshold for one in kept] == [0, 0, 0, None, None, None, None, None]


@pytest.mark.parametrize("boost", [0.0, 10.0])
def test_never_exceeds_the_limit(boost):
    """In no second is more kept than the limit, however suddenly traces come; in the mean it is used."""
    stream = Stream(1.0, limit=20.0, boost=boost, unwell={"ranker"})
    stream.run(5, 10)
    stream.run(2000, 8)
    stream.run(20, 5)

    assert stream.worst_second() <= 20
    stream.run(500, 15)
    assert stream.run(500, 20) == pytest.approx(14.5, abs=2)


@pytest.mark.parametrize("phases", [[(20, 4), (1000, 3)], [(500, 6)]], ids=["surge", "steady"])
@pytest.mark.parametrize(("ratio", "limit"), [(1.0, 20.0), (0.02, 100.0)], ids=["limited", "boosted"])
def test_estimates_without_bias(phases, ratio, limit):
    """What is kept stands for all there was: within three standard errors over 20 seeds."""
    shares = []
    for seed in range(20):
        stream = Stream(ratio, limit=limit, unwell={"ranker"}, seed=seed)
        for per_second, for_s in phases:
            stream.run(per_second, for_s)
        shares.append(stream.estimate / stream.began)

    assert abs(fmean(shares) - 1.0) <= 3 * stdev(shares) / len(shares) ** 0.5


def test_hands_on_the_weight_of_what_was_turned_away():
    """The next trace kept after some were turned away stands for them too, and has no threshold."""
    stream = Stream(1.0, limit=2.0, boost=0.0)
    kept = [stream.arrive("ranker") for _ in range(5)]
    stream.now_s += 0.05
    assert [one is not None for one in kept] == [True, True, False, False, False]
    stream.quotas.due_s = float("inf")
    stream.now_s += 2.0

    assert stream.arrive("ranker") == (None, 4.0)
    assert stream.arrive("ranker") == (0, None)


def test_leaves_traces_of_no_model_to_the_ratio():
    """What begins with no model's call is neither boosted nor kept for being rare."""
    stream = Stream(0.0, unwell={""})
    for _ in range(5):
        stream.arrive("")
        stream.now_s += 100

    assert stream.kept == []


def test_bounds_the_models_it_tells_apart():
    """Beyond a few hundred names models are decided about as if there were none, and memory stays flat."""
    stream = Stream(0.5)
    quotas = {id(stream.quotas.of(f"model {number}", 0.0)) for number in range(5000)}

    assert len(quotas) == 200
    assert stream.quotas.of("one more", 0.0) is stream.quotas.find("")


def test_adds_to_what_another_sampler_keeps():
    """What another sampler keeps is kept within the limit; the boost adds to it."""
    stream = Stream(None, limit=3.0)
    assert stream.arrive("ranker", base_keeps=True).threshold == 0  # the first of a minute, kept surely
    assert stream.arrive("ranker", base_keeps=True).threshold == MAX_THRESHOLD
    assert stream.arrive("ranker") is None
    assert stream.arrive("other").threshold == threshold_of(1.0)
    assert stream.arrive("ranker", base_keeps=True) is None
