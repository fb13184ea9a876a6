"""What a whole diagnosis makes of synthetic calls and readings, on a manual clock.

Calls begin at 0; what goes wrong begins at 720 s and ends at 1200 s, unless a test says otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.diagnosis.streams import (
    BEGIN_S,
    END_S,
    EPOCH,
    QUIET,
    UNTIL_S,
    USUAL,
    Load,
    Machine,
    Stream,
    closes_within,
    during,
    opens_within,
    run,
    run_wrong,
    wrong,
)

from otel_inference import guard
from otel_inference.diagnosis.diagnosis import Diagnosis
from otel_inference.diagnosis.rules.burn import Objectives
from otel_inference.diagnosis.rules.failure import FailureRule
from otel_inference.finding import Severity
from otel_inference.health.snapshot import HealthState
from otel_inference.objective import ErrorObjective, LatencyObjective


def test_healthy_calls_open_nothing():
    """Half an hour of usual calls on a quiet machine."""
    told, diagnosis = run_wrong(wrong(), UNTIL_S)

    assert told.changes == []
    assert diagnosis.state("ranker") is HealthState.OK


@pytest.mark.parametrize(("slower", "delay_s"), [(1.5, 40), (2.0, 30), (4.0, 30)])
def test_a_step_in_latency_is_found(slower, delay_s):
    """Half as slow again is found within four stretches, twice as slow within three, and it closes."""
    told, _ = run_wrong(wrong(slower=slower), UNTIL_S)

    assert told.names == ["latency_shift", "bottleneck:model"]
    assert opens_within(told, "latency_shift", delay_s)
    assert closes_within(told, "latency_shift", 90)
    assert closes_within(told, "bottleneck:model", 90)
    finding = told.last("latency_shift")
    assert finding.evidence["service_ratio"] == pytest.approx(slower, rel=0.2)
    assert abs(finding.since - EPOCH - timedelta(seconds=BEGIN_S)) <= timedelta(seconds=30)
    assert finding.trace_id is not None


def test_a_slow_ramp_in_latency_is_found():
    """Calls that become 5 % slower each minute are found before they are half as slow again."""

    def ramp(at_s):
        return replace(USUAL, slower=1 + 0.05 * max(0.0, min(at_s, END_S) - BEGIN_S) / 60)

    told, _ = run_wrong(ramp, END_S)

    assert opens_within(told, "latency_shift", 480)
    assert told.names[0] == "latency_shift"


def test_first_calls_are_no_shift():
    """A hundred times slower, they are kept apart."""
    told, _ = run(Stream(during(0.0, 20.0, USUAL, cold=5)), BEGIN_S, machine=QUIET)

    assert told.changes == []


def test_a_restart_warms_up_in_silence():
    """A new process, as slow as it may be from the start, knows nothing that it could compare itself with."""
    told, _ = run(Stream(during(0.0, 60.0, replace(USUAL, slower=3.0), slower=9.0, cold=3)), 300.0, machine=QUIET)

    assert told.changes == []


def test_a_bad_class_of_sizes_is_named():
    """Only inputs from 512 on take four times as long; the finding says which."""
    told, _ = run_wrong(wrong(slow_from=512, slow_by=4.0), UNTIL_S)

    assert opens_within(told, "latency_shift", 60)
    evidence = told.last("latency_shift").evidence
    assert 350 <= evidence["slow_input_size_at_least"] <= 520
    assert closes_within(told, "latency_shift", 120)


def test_longer_inputs_at_a_constant_cost_are_no_slowness():
    """Four times the tokens at four times the time: an input shift, for information, and no latency finding."""
    longer = tuple(4 * size for size in USUAL.sizes)
    told, diagnosis = run_wrong(wrong(sizes=longer), END_S)

    assert told.names == ["input_shift:sizes"]
    assert opens_within(told, "input_shift", 60)
    assert told.last("input_shift").severity is Severity.INFO
    assert told.first("input_shift").evidence["input_ratio"] > 1.5
    assert diagnosis.state("ranker") is HealthState.OK


def test_a_burst_of_errors_is_found():
    """A third of the calls fail: degraded; the trace is that of a failed call."""
    told, diagnosis = run_wrong(wrong(failing=0.33), UNTIL_S)

    assert told.names == ["error_burst"]
    assert opens_within(told, "error_burst", 20)
    assert closes_within(told, "error_burst", 90)
    assert told.last("error_burst").trace_id is not None
    assert diagnosis.state("ranker") is HealthState.OK


def test_a_total_outage_is_critical():
    """Where surely at least half of the calls fail, users are being failed."""
    told, diagnosis = run_wrong(wrong(failing=1.0), END_S)

    assert opens_within(told, "error_burst", 20)
    assert told.last("error_burst").severity is Severity.CRITICAL
    assert diagnosis.state("ranker") is HealthState.CRITICAL


def test_an_outage_that_lasts_stays_a_finding():
    """However long calls fail, it is open; it closes when they succeed again."""
    told, _ = run_wrong(during(BEGIN_S, 2800.0, USUAL, failing=0.8), 3000.0, step_s=10.0)

    assert opens_within(told, "error_burst", 20)
    assert [2800.0 < at_s <= 2900.0 for at_s in told.closed("error_burst")] == [True]


def test_a_model_that_fails_from_its_first_call_on_is_found():
    """What would be usual for it is not known, and need not be."""
    told, _ = run(Stream(replace(USUAL, failing=0.5)), 60.0)

    assert told.names == ["error_burst"]
    assert told.opened("error_burst") == [10.0]


def test_calls_that_a_limiter_turned_away_are_overload_and_no_errors_of_the_model():
    """They show as a queue."""
    told, _ = run_wrong(wrong(calls=80, rejected=0.4, queue_s=0.02), UNTIL_S)

    assert told.names == ["bottleneck:queue"]
    assert opens_within(told, "bottleneck:queue", 30)
    assert closes_within(told, "bottleneck:queue", 100)
    assert told.first("bottleneck:queue").evidence["rejected"] > 0


def test_a_queue_that_builds_up_is_the_bottleneck_and_the_work_is_not_slower():
    """Calls wait four times as long as they are worked on."""
    told, _ = run_wrong(
        wrong(queue_s=0.25, utilization={"concurrency": 0.99, "cpu": 0.98}),
        UNTIL_S,
        machine=lambda at_s: Machine(cpu_ratio=0.99) if BEGIN_S <= at_s < END_S else QUIET,
    )

    assert set(told.names) == {"bottleneck:queue", "saturation:concurrency", "saturation:cpu"}
    assert opens_within(told, "bottleneck:queue", 30)
    assert told.last("saturation:concurrency").explained_by == "bottleneck:queue:ranker"
    assert told.last("saturation:cpu").severity is not Severity.CRITICAL
    for name in told.names:
        assert closes_within(told, name, 100)


def test_a_cause_that_goes_away_gives_place_to_what_is_left():
    """The processor is free again and calls are still slow: for a minute it may be chance, then it is the model."""
    told, _ = run_wrong(
        wrong(slower=2.0),
        END_S,
        machine=lambda at_s: Machine(cpu_wait=0.6, cpu_ratio=0.3) if BEGIN_S <= at_s < BEGIN_S + 200 else QUIET,
    )

    assert told.names == ["latency_shift", "bottleneck:cpu", "bottleneck:model"]
    assert told.closed("bottleneck:cpu") == told.opened("bottleneck:model")
    assert BEGIN_S + 240 <= told.closed("bottleneck:cpu")[0] <= BEGIN_S + 330


def test_many_models_take_turns():
    """Of thirty that fail at once, eight are looked into at each evaluation, and all within ten seconds."""
    told, _ = run([Stream(replace(USUAL, failing=0.9), model=f"m{index}") for index in range(30)], 20.0, step_s=1.0)

    opened = Counter(told.opened("error_burst"))

    assert opened == {10.0: 8, 11.0: 8, 12.0: 8, 13.0: 6}


def test_stretches_that_come_late_are_taken_in_their_order():
    """Evaluations a minute apart find what evaluations a second apart do."""
    told, _ = run_wrong(wrong(slower=2.0), UNTIL_S, machine=None, step_s=60.0)

    assert told.names == ["latency_shift", "bottleneck:model"]
    assert opens_within(told, "latency_shift", 60)
    assert closes_within(told, "latency_shift", 120)


@pytest.mark.parametrize(("cpu_ratio", "least_s", "most_s"), [(0.4, 75, 95), (0.8, 10, 30)])
def test_a_bottleneck_that_nothing_points_to_is_named_late(cpu_ratio, least_s, most_s):
    """Most slowdowns that are chance are over by then; calls that are seen to compute more are the model's soon."""

    def machine(at_s):
        return Machine(cpu_ratio=cpu_ratio if BEGIN_S <= at_s < END_S else 0.4)

    told, _ = run_wrong(wrong(slower=2.0), END_S, machine=machine)

    assert told.names == ["latency_shift", "bottleneck:model"]
    assert least_s <= told.opened("bottleneck:model")[0] - told.opened("latency_shift")[0] <= most_s


def test_a_call_that_hangs_is_found_at_once():
    """One evaluation after it is older than thirty seconds; it closes when the call ends."""
    told, _ = run_wrong(wrong(active_calls=2, oldest_active_s=31.0), UNTIL_S)

    assert told.opened("stall") == [BEGIN_S + 5]
    assert told.closed("stall") == [END_S]
    finding = told.last("stall")
    assert finding.severity is Severity.WARNING
    assert (finding.trace_id, finding.span_id) == ("7".zfill(32), "8".zfill(16))
    assert abs(finding.since - EPOCH - timedelta(seconds=BEGIN_S + 5 - 31)) < timedelta(seconds=1)


def test_when_all_calls_hang_it_is_critical_and_explains_that_none_end():
    """No call ends any more, and those that run are old."""
    hanging = wrong(calls=0, active_calls=8, oldest_active_s=120.0)
    told, _ = run_wrong(hanging, END_S)

    assert set(told.names) == {"stall", "throughput_drop"}
    assert told.last("stall").severity is Severity.CRITICAL
    assert told.first("throughput_drop").severity is Severity.WARNING
    assert told.first("throughput_drop").explained_by == "stall::ranker"


@pytest.mark.parametrize("seed", range(3))
def test_a_new_process_learns_what_is_usual_in_four_minutes(seed):
    """Calls that become twice as slow after that are found within a minute and a half."""
    told, _ = run(Stream(during(260.0, 900.0, USUAL, slower=2.0), seed=seed), 600.0, machine=QUIET)

    assert 260.0 < told.opened("latency_shift")[0] <= 350.0


def test_traffic_that_stops_is_for_the_callers_to_explain():
    """Nothing is in flight, so the model is well; it closes when calls come again."""
    told, _ = run_wrong(wrong(calls=0, active_calls=0, oldest_active_s=0.0), UNTIL_S)

    assert told.names == ["throughput_drop"]
    assert opens_within(told, "throughput_drop", 60)
    assert closes_within(told, "throughput_drop", 90)
    assert told.last("throughput_drop").severity is Severity.INFO


@pytest.mark.parametrize(("failing", "names"), [(0.0, []), (1.0, ["error_burst"])])
def test_three_calls_an_hour_are_silent_unless_all_fail(failing, names):
    """Long pauses and few calls are no findings; a call in twenty minutes that always fails is one."""

    def rare(at_s):
        return replace(USUAL, calls=1.0 if at_s % 1200 < 10 else 0.0, failing=failing if at_s > 7200 else 0)

    told, _ = run(Stream(rare), 5 * 3600.0, step_s=60.0)

    assert told.names == names
    assert all(7200 < at_s <= 7200 + 2 * 3600 for at_s in told.opened("error_burst"))


def test_objectives_burn():
    """A total outage burns the budget of the errors, and the burst explains it."""
    diagnosis = Diagnosis(error_objective=ErrorObjective(ratio=0.99))
    told, _ = run(Stream(wrong(failing=1.0)), BEGIN_S + 200, diagnosis=diagnosis, step_s=10.0)

    assert opens_within(told, "slo_burn:errors", 150)
    assert told.last("slo_burn:errors").explained_by == "error_burst::ranker"


@pytest.mark.parametrize("objective", [0.999, 0.99, 0.95, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_a_total_outage_at_five_calls_a_minute_is_found(objective, seed):
    """Within two stretches and two minutes, whatever was promised: by the burst of errors where the budget is large."""
    usual = Load(calls=5 / 6)
    diagnosis = Diagnosis(error_objective=ErrorObjective(ratio=objective))
    stream = Stream(during(3600.0, 3900.0, usual, failing=1.0), seed=seed)
    told, _ = run(stream, 3900.0, diagnosis=diagnosis, step_s=5.0)

    opened = [*told.opened("error_burst"), *told.opened("slo_burn:errors")]
    assert 3600.0 < min(opened) <= 3600.0 + 140.0


def test_a_model_may_have_objectives_of_its_own():
    """Calls of two seconds break a promise of half of one, and none of a minute."""
    diagnosis = Diagnosis(
        latency_objective=LatencyObjective(ratio=0.9, threshold_s=60.0),
        objectives_by_model={"ranker": Objectives(latency=LatencyObjective(ratio=0.9, threshold_s=0.5))},
    )
    streams = [Stream(wrong(slower=30.0)), Stream(USUAL, model="tagger")]
    told, _ = run(streams, END_S, diagnosis=diagnosis, step_s=10.0)

    assert {change.finding.model for _, change in told.changes if change.finding.kind == "slo_burn"} == {"ranker"}
    assert told.last("slo_burn:latency").explained_by == "bottleneck:model:ranker"


def test_a_model_that_takes_a_growing_share_of_the_time_is_named():
    """One of two models comes to do most of the work; neither is slow."""
    few = replace(USUAL, calls=12)
    streams = [Stream(during(1200.0, 3600.0, few, calls=120)), Stream(few, model="tagger", seed=2)]
    told, _ = run(streams, 1600.0, step_s=10.0)

    assert told.names == ["input_shift:share"]
    assert told.last("input_shift:share").model == "ranker"
    assert told.last("input_shift:share").evidence["share_of_time_ratio"] > 0.7


def test_findings_of_a_model_that_vanished_close():
    """A minute after it was last seen; what was known of it is gone."""
    told, diagnosis = run_wrong(wrong(failing=0.9), BEGIN_S + 120)
    run([], BEGIN_S + 200, diagnosis=diagnosis, from_s=BEGIN_S + 120, told=told)

    assert told.closed("error_burst") == [BEGIN_S + 185]
    assert diagnosis.open() == ()


def test_a_forgotten_model_begins_anew():
    """Its findings close with the next evaluation."""
    told, diagnosis = run_wrong(wrong(failing=0.9), BEGIN_S + 120)
    diagnosis.forget("ranker")
    run([], BEGIN_S + 125, diagnosis=diagnosis, from_s=BEGIN_S + 120, told=told)

    assert told.closed("error_burst") == [BEGIN_S + 125]


def test_an_hour_of_healthy_calls_opens_nothing():
    """With a daily cycle, and calls that differ much from one another (`python -m benchmarks.diagnosis` tries days)."""

    def daily(at_s):
        return Load(failing=0.005, calls=50 * (1 + 0.4 * math.sin(2 * math.pi * at_s / 86400)), sigma=1.0)

    told, _ = run(Stream(daily), 3600.0, machine=QUIET, step_s=10.0)

    assert told.names == []


class Odd(Stream):
    """Calls of a model with figures that cannot be judged."""

    def stretch(self, started_s):
        """Ten seconds of them."""
        stretch = super().stretch(started_s)
        stretch.rejected = None
        return stretch


def test_figures_that_cannot_be_judged_keep_no_other_model_from_being_judged(caplog):
    """A failure of ours over one model is logged, and what is wrong with another is found all the same."""
    told, _ = run([Odd(USUAL, model="odd"), Stream(replace(USUAL, failing=0.9))], 60.0)

    assert told.first("error_burst").model == "ranker"
    assert guard.error_counts().keys() == {"diagnosis"}
    assert "internal failure in diagnosis" in caplog.text
    guard._errors.clear()


def test_a_rule_that_fails_keeps_no_other_from_judging_the_model(monkeypatch):
    """Where failures cannot be judged, that calls are slow is found all the same."""
    monkeypatch.setattr(FailureRule, "judge", lambda *_: 1 / 0)
    told, _ = run(Stream(wrong(slower=2.0)), BEGIN_S + 60, machine=QUIET)

    assert told.first("latency_shift").model == "ranker"
    assert guard.error_counts().keys() == {"diagnosis"}
    guard._errors.clear()
