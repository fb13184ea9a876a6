"""Whether a run helped."""

from __future__ import annotations

import random

import pytest

from otel_inference.health.snapshot import ModelHealth, latency_of
from otel_inference.health.window import SlidingWindow
from otel_inference.maintenance.figures import Figures, figures_of
from otel_inference.maintenance.verdict import Verdict, judge
from otel_inference.resources.reading import Reading

IMPROVED, UNCHANGED, WORSE = Verdict.IMPROVED, Verdict.UNCHANGED, Verdict.WORSE


def window(calls=200, mean_s=0.1, *, failing=0.0, sizes=(None,), factor=0.0, seed=1):
    """Calls of a minute: lognormal durations, longer for larger inputs by `factor` seconds for each of its elements."""
    random_ = random.Random(seed)
    window = SlidingWindow()
    for index in range(calls):
        size = sizes[index % len(sizes)]
        duration_s = (mean_s + factor * (size or 0)) * random_.lognormvariate(-0.125, 0.5)
        window.add(59.0 * index / calls, duration_s, failed=index < failing * calls, size=size)
    return window.snapshot(59.0)


def figures(*args, model="ranker", active_calls=0, oldest_active_s=0.0, **options):
    """Health of one model."""
    return Figures(
        windows={model: window(*args, **options)}, active_calls=active_calls, oldest_active_s=oldest_active_s
    )


def verdict(kind, before, after, subject=None):
    """The verdict alone."""
    return judge(kind, subject, before, after).verdict


@pytest.mark.parametrize("kind", ["latency_shift", "bottleneck", "input_shift", "slo_burn"])
@pytest.mark.parametrize(("mean_s", "expected"), [(0.05, IMPROVED), (0.1, UNCHANGED), (0.11, UNCHANGED), (0.2, WORSE)])
def test_durations_decide_what_is_about_latency(kind, mean_s, expected):
    """Half is better, double is worse, and a tenth more is not much."""
    subject = "latency" if kind == "slo_burn" else None

    assert verdict(kind, figures(400), figures(400, mean_s, seed=2), subject) is expected


def test_chance_is_no_verdict():
    """Of a hundred pairs of windows with the same service at most five are taken to differ."""
    judged = [verdict("latency_shift", figures(60, seed=seed), figures(60, seed=seed + 1000)) for seed in range(100)]

    assert judged.count(UNCHANGED) >= 95


@pytest.mark.parametrize("kind", ["latency_shift", "error_burst", "input_shift", "throughput_drop", "slo_burn"])
def test_few_calls_are_no_verdict(kind):
    """With a handful of calls nothing is said, however different they are."""
    judgement = judge(kind, None, figures(10, 0.1), figures(10, 10.0, failing=1.0))

    assert judgement.verdict is UNCHANGED
    assert judgement.reason == "too few calls to compare: 10, before 10"


def test_larger_inputs_are_no_slowdown():
    """Calls that take longer because their inputs grew are not held against an action; slower ones are."""
    before = figures(400, 0.0, sizes=(10, 100), factor=0.001)
    grown = figures(400, 0.0, sizes=(10, 100, 100, 100), factor=0.001, seed=2)
    slowed = figures(400, 0.0, sizes=(10, 100, 100, 100), factor=0.0016, seed=2)

    assert verdict("latency_shift", before, grown) is UNCHANGED
    assert verdict("latency_shift", before, slowed) is WORSE


def test_another_mix_of_models_is_no_slowdown():
    """For the whole process each model is compared with itself."""
    before = Figures(windows={"small": window(300, 0.01), "large": window(100, 1.0)})
    after = Figures(windows={"small": window(100, 0.01, seed=3), "large": window(300, 1.0, seed=4)})

    assert verdict("bottleneck", before, after) is UNCHANGED


@pytest.mark.parametrize("subject", [None, "errors"])
@pytest.mark.parametrize(("failing", "expected"), [(0.0, IMPROVED), (0.3, UNCHANGED), (0.9, WORSE)])
def test_failures_decide_what_is_about_errors(subject, failing, expected):
    """Intervals that do not overlap are a change of the error ratio."""
    kind = "error_burst" if subject is None else "slo_burn"

    assert verdict(kind, figures(failing=0.3), figures(failing=failing), subject) is expected


def test_a_burn_without_a_subject_is_about_both():
    """Where the objective is not told, errors and latency are both looked at, and what is worse decides."""
    faster_but_failing = figures(400, 0.05, failing=0.5, seed=2)

    assert verdict("slo_burn", figures(400), figures(400, 0.05, seed=2)) is IMPROVED
    assert judge("slo_burn", None, figures(400), faster_but_failing).reason == "error ratio 0.5, before 0"


@pytest.mark.parametrize("kind", ["latency_shift", "saturation", "memory_growth", "stall", "throughput_drop"])
def test_failing_instead_is_worse(kind):
    """Whatever an action is about: calls that fail since then are worse than what it mended."""
    judgement = judge(kind, "cpu", figures(), figures(200, 0.01, failing=0.5, seed=2))

    assert (judgement.verdict, judgement.reason) == (WORSE, "error ratio 0.5, before 0")


@pytest.mark.parametrize("kind", ["saturation", "memory_growth", "stall"])
def test_slower_calls_are_worse_where_it_is_about_a_resource(kind):
    """An action on a resource that makes calls slower has hurt."""
    assert verdict(kind, figures(), figures(200, 0.3, seed=2)) is WORSE


def test_calls_that_succeed_again_may_take_longer():
    """Where calls failed at once before, longer ones that do not fail are an improvement."""
    assert verdict("error_burst", figures(200, 0.001, failing=1.0), figures(200, 0.1, seed=2)) is IMPROVED


def test_a_standstill_is_worse():
    """No call ends any more although some run: the action has blocked them. Without any there is just no traffic."""
    nothing = SlidingWindow().snapshot(60.0)

    judgement = judge("latency_shift", None, figures(), Figures(windows={"ranker": nothing}, active_calls=3))
    assert (judgement.verdict, judgement.reason) == (WORSE, "no call ended, 3 run")
    assert verdict("latency_shift", figures(), Figures(windows={"ranker": nothing})) is UNCHANGED
    assert verdict("latency_shift", figures(), Figures()) is UNCHANGED


@pytest.mark.parametrize(("calls", "expected"), [(400, IMPROVED), (110, UNCHANGED), (40, WORSE)])
def test_counts_decide_what_is_about_throughput(calls, expected):
    """More calls in the same time are better, and chance is allowed for."""
    assert verdict("throughput_drop", figures(100), figures(calls)) is expected


@pytest.mark.parametrize(("used", "expected"), [(0.7, IMPROVED), (0.93, UNCHANGED), (1.1, WORSE)])
def test_its_resource_decides_a_saturation(used, expected):
    """Utilization of the saturated resource, not of another one."""
    before = Figures(utilization={"gpu_memory": 0.95, "cpu": 0.1})

    assert (
        verdict("saturation", before, Figures(utilization={"gpu_memory": used, "cpu": 0.9}), "gpu_memory") is expected
    )
    assert verdict("saturation", before, Figures(), "gpu_memory") is UNCHANGED


@pytest.mark.parametrize(("rss", "expected"), [(900, IMPROVED), (970, UNCHANGED), (1100, UNCHANGED), (1300, WORSE)])
def test_resident_memory_decides_its_growth(rss, expected):
    """Memory that fell has been given back; that it grows on a little is the leak's doing."""
    assert verdict("memory_growth", Figures(rss_bytes=1000), Figures(rss_bytes=rss)) is expected
    assert verdict("memory_growth", Figures(), Figures(rss_bytes=rss)) is UNCHANGED


def test_a_stall_is_over_when_the_call_is_gone():
    """A call that hangs on is older than it was."""
    hanging = figures(oldest_active_s=60.0, active_calls=1)

    assert verdict("stall", hanging, figures(oldest_active_s=1.0, active_calls=1)) is IMPROVED
    assert verdict("stall", hanging, figures(oldest_active_s=120.0, active_calls=1)) is UNCHANGED


def test_figures_are_of_models_and_of_the_machine():
    """Utilization is the mean of the last readings, throttling included; memory is that of the last one."""
    snapshot = window(100)
    health = ModelHealth(
        model="ranker",
        throughput=1.0,
        latency=latency_of(snapshot),
        error_ratio=0.0,
        error_ratio_interval=(0.0, 0.1),
        utilization={"cpu": 0.1, "concurrency": 0.5},
        oldest_active_s=2.0,
        active_calls=1,
        window=snapshot,
    )
    readings = [
        Reading(at_s=1.0, utilization={"cpu": 0.4}, rss_bytes=5),
        Reading(at_s=2.0, utilization={"cpu": 0.8}, cpu_throttled_ratio=0.3),
    ]
    summary = figures_of([health], readings).summary()

    assert summary["utilization.cpu"] == pytest.approx(0.6)
    assert summary["utilization.cpu_throttled"] == pytest.approx(0.3)
    assert (summary["utilization.concurrency"], summary["rss_bytes"], summary["calls"]) == (0.5, 5, 100)


def test_a_summary_leaves_out_what_is_not_known():
    """Without calls there is no latency, and without readings no memory."""
    empty = Figures(windows={"ranker": SlidingWindow().snapshot(60.0)}).summary()

    assert "mean_s" not in empty
    assert "rss_bytes" not in empty
    assert empty["calls"] == 0
