"""Each thing that goes wrong: found within a stated delay, under its right name, and over when it is over.

On a manual clock. What goes wrong begins at 720 s and ends at 1200 s; the simple cases are in `test_diagnosis.py`,
those of the machine alone in `test_machine.py`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.diagnosis.streams import (
    BEGIN_S,
    END_S,
    UNTIL_S,
    USUAL,
    Machine,
    Stream,
    closes_within,
    opens_within,
    run,
    run_wrong,
    wrong,
)

from otel_inference.finding import Severity
from otel_inference.health.snapshot import HealthState

TOLD = Machine(cpu_busy=0.5, call_lock=0.02, call_pause=0.05)
"""A quiet machine of a kernel that tells what threads wait for."""


def _meanwhile(**changed):
    """A machine that is quiet but from 720 to 1200 s."""
    return lambda at_s: replace(TOLD, **changed) if BEGIN_S <= at_s < END_S else TOLD


CAUSES = {
    "CPU hog": ("cpu", {"slower": 2.0}, {"cpu_wait": 0.6, "cpu_ratio": 0.4, "cpu_busy": 1.0}),
    "CPU hog beside a pool of threads": (
        "cpu",
        {"slower": 2.0},
        {"cpu_wait": 0.6, "cpu_ratio": 0.4, "cpu_busy": 1.0, "call_lock": 0.45},
    ),
    "quota": ("cpu_throttled", {"slower": 2.0}, {"throttled": 0.7, "cpu_wait": 0.4, "cpu_ratio": 0.97}),
    "memory balloon": ("memory", {"slower": 2.0}, {"memory_wait": 0.4, "limit_hits": 5, "call_pause": 0.2}),
    "collections": ("gc", {"slower": 2.0}, {"gc_ratio": 0.4, "delay_s": 0.008, "cpu_ratio": 0.6}),
    "lock": ("lock", {"slower": 2.0}, {"call_lock": 0.5}),
    "lock, while processors are waited for": ("lock", {"slower": 2.0}, {"call_lock": 0.5, "cpu_wait": 0.35}),
    "sleep": ("model", {"added_s": 0.06}, {"call_pause": 0.5}),
    "sleep, while processors are waited for": ("model", {"added_s": 0.06}, {"call_pause": 0.5, "cpu_wait": 0.35}),
    "more to compute": ("model", {"slower": 2.0}, {"cpu_ratio": 0.75, "cpu_busy": 0.75}),
}


@pytest.mark.parametrize(("subject", "calls", "machine"), CAUSES.values(), ids=CAUSES.keys())
def test_a_cause_is_named_while_it_is_there(subject, calls, machine):
    """Calls twice as slow: within 50 s the first and only bottleneck is the right one; it explains the slowness, and both close."""
    told, diagnosis = run_wrong(wrong(**calls), END_S, quiet=TOLD, machine=_meanwhile(**machine))

    assert [name for name in told.names if name.startswith("bottleneck")] == [f"bottleneck:{subject}"]
    assert opens_within(told, "latency_shift", 40)
    assert opens_within(told, f"bottleneck:{subject}", 50)
    explained = {finding.kind.value: finding.explained_by for finding in diagnosis.open("ranker")}
    assert explained["latency_shift"] == f"bottleneck:{subject}:ranker"
    assert told.last(f"bottleneck:{subject}").severity is Severity.WARNING

    run(Stream(USUAL, seed=9), UNTIL_S, machine=TOLD, diagnosis=diagnosis, told=told, from_s=END_S)

    assert closes_within(told, "latency_shift", 90)
    assert closes_within(told, f"bottleneck:{subject}", 90)
    assert diagnosis.state("ranker") is HealthState.OK


def test_the_same_cause_is_named_again_minutes_later():
    """What was high in the minutes before is not what is usual: three times the processors are taken, for two minutes each."""
    begins_s = (BEGIN_S, BEGIN_S + 300, BEGIN_S + 600)

    def taken(at_s):
        return any(begin_s <= at_s < begin_s + 120 for begin_s in begins_s)

    told, _ = run_wrong(
        lambda at_s: replace(USUAL, slower=2.0) if taken(at_s) else USUAL,
        BEGIN_S + 900,
        quiet=TOLD,
        machine=lambda at_s: replace(TOLD, cpu_wait=0.6, cpu_busy=1.0) if taken(at_s) else TOLD,
    )

    assert told.names == ["latency_shift", "bottleneck:cpu"]
    assert len(told.opened("bottleneck:cpu")) == len(told.closed("bottleneck:cpu")) == 3
    for begin_s, opened_s in zip(begins_s, told.opened("bottleneck:cpu"), strict=True):
        assert begin_s < opened_s <= begin_s + 50


def test_a_slow_ramp_has_a_cause_and_an_end():
    """Calls that become 5 % slower each minute: the model's own code is left, and it is over soon after it is over."""

    def ramp(at_s):
        return replace(USUAL, slower=1 + 0.05 * (at_s - BEGIN_S) / 60) if BEGIN_S <= at_s < END_S else USUAL

    told, _ = run_wrong(ramp, UNTIL_S, quiet=TOLD, machine=_meanwhile())

    assert told.names == ["latency_shift", "bottleneck:model"]
    assert opens_within(told, "latency_shift", 480)
    assert closes_within(told, "latency_shift", 120)


def test_longer_inputs_are_over_when_they_are():
    """Four times the tokens at four times the time, and then the usual ones again: one finding, which closes."""
    longer = tuple(4 * size for size in USUAL.sizes)
    told, _ = run_wrong(wrong(sizes=longer), UNTIL_S + 120, quiet=TOLD, machine=_meanwhile())

    assert told.names == ["input_shift:sizes"]
    assert opens_within(told, "input_shift", 60)
    assert closes_within(told, "input_shift", 180)


def test_longer_inputs_of_slower_calls_are_not_called_as_fast_as_before():
    """Both at once: the advice of neither says that the other is not there."""
    longer = tuple(4 * size for size in USUAL.sizes)
    told, _ = run_wrong(wrong(sizes=longer, slower=2.0), END_S, quiet=TOLD, machine=_meanwhile())

    assert {"latency_shift", "input_shift:sizes"} <= set(told.names)
    assert "take longer too" in told.last("input_shift").advice


def test_callers_who_wait_for_longer_inputs_call_less():
    """Four times the tokens, and callers who send the next when they have the answer: the inputs explain the fewer calls."""
    longer = tuple(4 * size for size in USUAL.sizes)
    told, diagnosis = run_wrong(wrong(sizes=longer, calls=USUAL.calls / 4), END_S, quiet=TOLD, machine=_meanwhile())

    explained = {finding.key: finding.explained_by for finding in diagnosis.open("ranker")}
    assert set(told.names) == {"input_shift:sizes", "throughput_drop"}
    assert explained["throughput_drop::ranker"] == "input_shift:sizes:ranker"


def test_a_bad_class_of_sizes_has_a_cause():
    """Inputs from 512 on take four times as long, and no resource is short: it is the model."""
    told, _ = run_wrong(wrong(slow_from=512, slow_by=4.0), UNTIL_S, quiet=TOLD, machine=_meanwhile())

    assert told.names == ["latency_shift", "bottleneck:model"]
    assert opens_within(told, "latency_shift", 60)
    assert told.last("latency_shift").explained_by in {"bottleneck:model:ranker", None}
    assert closes_within(told, "bottleneck:model", 120)


def test_too_many_calls_wait_and_are_not_slow():
    """Overload with a limit on what runs: the queue is the bottleneck within 30 s, and it ends with the overload."""
    overload = wrong(calls=60, queue_s=0.4, utilization={"concurrency": 1.0, "cpu": 0.97})
    told, diagnosis = run_wrong(
        overload, END_S, quiet=TOLD, machine=_meanwhile(cpu_ratio=0.98, cpu_busy=1.0, cpu_wait=0.1)
    )

    assert told.names[0] == "bottleneck:queue"
    assert set(told.names) == {"bottleneck:queue", "saturation:concurrency", "saturation:cpu"}
    assert opens_within(told, "bottleneck:queue", 30)
    keys = {finding.key: finding.explained_by for finding in diagnosis.open("ranker")}
    assert keys["saturation:concurrency:ranker"] == "bottleneck:queue:ranker"
    assert keys["bottleneck:queue:ranker"] == "saturation:cpu:"

    run(Stream(USUAL, seed=9), UNTIL_S, machine=TOLD, diagnosis=diagnosis, told=told, from_s=END_S)

    for name in told.names:
        assert closes_within(told, name, 100)


def test_places_that_are_taken_by_slow_calls_follow_from_the_slowness():
    """Calls that take longer are more at once, by Little's law: one problem, and not two."""
    slow = wrong(slower=4.0, queue_s=0.03, utilization={"concurrency": 1.2, "cpu": 0.4})
    told, diagnosis = run_wrong(slow, END_S, quiet=TOLD, machine=_meanwhile(memory_wait=0.5))

    assert set(told.names) == {"latency_shift", "bottleneck:memory", "saturation:concurrency"}
    explained = {finding.key: finding.explained_by for finding in diagnosis.open("ranker")}
    assert explained == {
        "bottleneck:memory:ranker": None,
        "latency_shift::ranker": "bottleneck:memory:ranker",
        "saturation:concurrency:ranker": "bottleneck:memory:ranker",
    }


def test_rare_calls_that_failed_are_forgiven():
    """Three calls an hour: all fail for three hours and succeed afterwards; the finding closes within three more."""

    def rare(at_s):
        failing = 1.0 if 7200 < at_s <= 18000 else 0.0
        return replace(USUAL, calls=1.0 if at_s % 1200 < 10 else 0.0, failing=failing)

    told, _ = run(Stream(rare), 9 * 3600.0, machine=TOLD, step_s=60.0)

    assert told.names == ["error_burst"]
    assert 7200 < told.opened("error_burst")[0] <= 7200 + 2 * 3600
    assert 18000 < told.closed("error_burst")[-1] <= 18000 + 3 * 3600
