"""What a whole diagnosis makes of synthetic calls and readings, on a manual clock.

Calls begin at 0; what goes wrong begins at 720 s and ends at 1200 s, unless a test says otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from tests.diagnosis.streams import EPOCH, GIB, Load, Machine, Stream, during, run

from otel_inference.diagnosis.diagnosis import Diagnosis
from otel_inference.diagnosis.rules.burn import Objectives
from otel_inference.finding import Severity
from otel_inference.health.snapshot import HealthState
from otel_inference.objective import ErrorObjective, LatencyObjective
from otel_inference.resources.reading import Reading, TorchMemoryReading

BEGIN_S, END_S, UNTIL_S = 720.0, 1200.0, 1440.0
USUAL = Load()
IDLE = replace(USUAL, calls=0)
QUIET = Machine()


def wrong(usual=USUAL, **changed):
    """Calls that differ from the usual ones from 720 to 1200 s."""
    return during(BEGIN_S, END_S, usual, **changed)


def opens_within(told, name, delay_s):
    """Whether it opened once, and at most `delay_s` after the begin."""
    opened = told.opened(name)
    return len(opened) == 1 and BEGIN_S < opened[0] <= BEGIN_S + delay_s


def closes_within(told, name, delay_s):
    """Whether it closed once, and at most `delay_s` after the end."""
    closed = told.closed(name)
    return len(closed) == 1 and END_S < closed[0] <= END_S + delay_s


def test_healthy_calls_open_nothing():
    """Half an hour of usual calls on a quiet machine."""
    told, diagnosis = run(Stream(USUAL), UNTIL_S, machine=QUIET)

    assert told.changes == []
    assert diagnosis.state("ranker") is HealthState.OK


@pytest.mark.parametrize(("slower", "delay_s"), [(1.5, 40), (2.0, 30), (4.0, 30)])
def test_a_step_in_latency_is_found(slower, delay_s):
    """Half as slow again is found within four stretches, twice as slow within three, and it closes."""
    told, _ = run(Stream(wrong(slower=slower)), UNTIL_S, machine=QUIET)

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

    told, _ = run(Stream(ramp), END_S, machine=QUIET)

    assert opens_within(told, "latency_shift", 480)
    assert told.names[0] == "latency_shift"


def test_first_calls_are_no_shift():
    """A hundred times slower, they are kept apart."""
    told, _ = run(Stream(during(0.0, 20.0, USUAL, cold=5)), 900.0, machine=QUIET)

    assert told.changes == []


def test_a_restart_warms_up_in_silence():
    """A new process, as slow as it may be from the start, knows nothing that it could compare itself with."""
    told, _ = run(Stream(during(0.0, 60.0, replace(USUAL, slower=3.0), slower=9.0, cold=3)), 300.0, machine=QUIET)

    assert told.changes == []


def test_a_bad_class_of_sizes_is_named():
    """Only inputs from 512 on take four times as long; the finding says which."""
    told, _ = run(Stream(wrong(slow_from=512, slow_by=4.0)), UNTIL_S, machine=QUIET)

    assert opens_within(told, "latency_shift", 60)
    evidence = told.last("latency_shift").evidence
    assert 350 <= evidence["slow_input_size_at_least"] <= 520
    assert closes_within(told, "latency_shift", 120)


def test_longer_inputs_at_a_constant_cost_are_no_slowness():
    """Four times the tokens at four times the time: an input shift, for information, and no latency finding."""
    longer = tuple(4 * size for size in USUAL.sizes)
    told, diagnosis = run(Stream(wrong(sizes=longer)), END_S, machine=QUIET)

    assert told.names == ["input_shift:sizes"]
    assert opens_within(told, "input_shift", 60)
    assert told.last("input_shift").severity is Severity.INFO
    assert told.first("input_shift").evidence["input_ratio"] > 1.5
    assert diagnosis.state("ranker") is HealthState.OK


def test_a_burst_of_errors_is_found():
    """A third of the calls fail: degraded; the trace is that of a failed call."""
    told, diagnosis = run(Stream(wrong(failing=0.33)), UNTIL_S, machine=QUIET)

    assert told.names == ["error_burst"]
    assert opens_within(told, "error_burst", 20)
    assert closes_within(told, "error_burst", 90)
    assert told.last("error_burst").trace_id is not None
    assert diagnosis.state("ranker") is HealthState.OK


def test_a_total_outage_is_critical():
    """Where surely at least half of the calls fail, users are being failed."""
    told, diagnosis = run(Stream(wrong(failing=1.0)), END_S, machine=QUIET)

    assert opens_within(told, "error_burst", 20)
    assert told.last("error_burst").severity is Severity.CRITICAL
    assert diagnosis.state("ranker") is HealthState.CRITICAL


def test_an_outage_that_lasts_stays_a_finding():
    """However long calls fail, it is open; it closes when they succeed again."""
    told, _ = run(Stream(during(BEGIN_S, 4800.0, USUAL, failing=0.8)), 5000.0, step_s=10.0)

    assert opens_within(told, "error_burst", 20)
    assert [4800.0 < at_s <= 4900.0 for at_s in told.closed("error_burst")] == [True]


def test_a_model_that_fails_from_its_first_call_on_is_found():
    """What would be usual for it is not known, and need not be."""
    told, _ = run(Stream(replace(USUAL, failing=0.5)), 60.0)

    assert told.names == ["error_burst"]
    assert told.opened("error_burst") == [10.0]


def test_calls_that_a_limiter_turned_away_are_overload_and_no_errors_of_the_model():
    """They show as a queue."""
    told, _ = run(Stream(wrong(calls=80, rejected=0.4, queue_s=0.02)), UNTIL_S, machine=QUIET)

    assert told.names == ["bottleneck:queue"]
    assert opens_within(told, "bottleneck:queue", 30)
    assert closes_within(told, "bottleneck:queue", 100)
    assert told.last("bottleneck:queue").evidence["rejected"] >= 0


def test_a_queue_that_builds_up_is_the_bottleneck_and_the_work_is_not_slower():
    """Calls wait four times as long as they are worked on."""
    told, _ = run(
        Stream(wrong(queue_s=0.25, utilization={"concurrency": 0.99, "cpu": 0.98})),
        UNTIL_S,
        machine=lambda at_s: Machine(cpu_ratio=0.99) if BEGIN_S <= at_s < END_S else QUIET,
    )

    assert set(told.names) == {"bottleneck:queue", "saturation:concurrency", "saturation:cpu"}
    assert opens_within(told, "bottleneck:queue", 30)
    assert told.last("saturation:concurrency").explained_by == "bottleneck:queue:ranker"
    assert told.last("saturation:cpu").severity is not Severity.CRITICAL
    for name in told.names:
        assert closes_within(told, name, 100)


def test_throttling_explains_the_latency():
    """Three findings with one cause: the quota is used up, the processor is the bottleneck, calls are slow."""
    stopped = Machine(limit_cores=2.0, cpu_ratio=0.97, throttled=0.7, cpu_wait=0.5)
    quiet = replace(QUIET, limit_cores=2.0)
    told, diagnosis = run(Stream(wrong(slower=2.0)), END_S, machine=lambda at_s: stopped if at_s >= BEGIN_S else quiet)

    assert set(told.names) == {"latency_shift", "bottleneck:cpu_throttled", "saturation:cpu"}
    assert opens_within(told, "bottleneck:cpu_throttled", 60)
    explained = {finding.kind.value: finding.explained_by for finding in diagnosis.open("ranker")}
    assert explained == {
        "latency_shift": "bottleneck:cpu_throttled:ranker",
        "bottleneck": "saturation:cpu:",
        "saturation": None,
    }


def test_a_cause_that_goes_away_gives_place_to_what_is_left():
    """The processor is free again and calls are still slow: for a minute it may be chance, then it is the model."""
    told, _ = run(
        Stream(wrong(slower=2.0)),
        END_S,
        machine=lambda at_s: Machine(cpu_wait=0.6, cpu_ratio=0.3) if BEGIN_S <= at_s < BEGIN_S + 200 else QUIET,
    )

    assert told.names == ["latency_shift", "bottleneck:cpu", "bottleneck:model"]
    assert told.closed("bottleneck:cpu") == told.opened("bottleneck:model")
    assert BEGIN_S + 240 <= told.closed("bottleneck:cpu")[0] <= BEGIN_S + 330


@pytest.mark.parametrize(("allocated", "ooms", "severity"), [(0.98, 0, Severity.WARNING), (0.5, 1, Severity.CRITICAL)])
def test_accelerator_memory_that_is_used_up_is_a_saturation(allocated, ooms, severity):
    """By what torch has in use, or by one allocation that failed; what it holds in reserve does not count."""

    def reading(at_s, _):
        seen = TorchMemoryReading(
            device=0,
            allocated_bytes=round(allocated * 1000) if at_s > 60 else 500,
            reserved_bytes=1000,
            inactive_split_bytes=0,
            alloc_retries=0,
            ooms=ooms if at_s > 60 else 0,
            total_bytes=1000,
        )
        return Reading(at_s=at_s, utilization={"gpu_memory": 1.0}, torch_memory=(seen,))

    told, _ = run(Stream(USUAL), 120.0, machine=SimpleNamespace(reading=reading))

    assert told.names == ["saturation:gpu_memory"]
    assert 60 < told.opened("saturation:gpu_memory")[0] <= 100
    assert told.first("saturation:gpu_memory").severity is severity


def test_many_models_take_turns():
    """Of thirty that fail at once, eight are looked into at each evaluation, and all within ten seconds."""
    told, _ = run([Stream(replace(USUAL, failing=0.9), model=f"m{index}") for index in range(30)], 20.0, step_s=1.0)

    opened = Counter(told.opened("error_burst"))

    assert opened == {10.0: 8, 11.0: 8, 12.0: 8, 13.0: 6}


def test_stretches_that_come_late_are_taken_in_their_order():
    """Evaluations a minute apart find what evaluations a second apart do."""
    told, _ = run(Stream(wrong(slower=2.0)), UNTIL_S, step_s=60.0)

    assert told.names == ["latency_shift", "bottleneck:model"]
    assert opens_within(told, "latency_shift", 60)
    assert closes_within(told, "latency_shift", 120)


def test_memory_that_grows_is_found_before_it_is_used_up():
    """Half a gigabyte a minute towards sixteen: within eight minutes, and it closes once it stops."""

    def growing(at_s):
        grown_s = min(max(at_s - BEGIN_S, 0.0), END_S - BEGIN_S)
        return replace(QUIET, rss_bytes=2 * GIB + grown_s * 0.5 * GIB / 60)

    told, _ = run(Stream(USUAL), END_S + 900, machine=growing, step_s=5.0)

    assert told.names == ["memory_growth"]
    assert opens_within(told, "memory_growth", 480)
    assert closes_within(told, "memory_growth", 900)
    assert told.last("memory_growth").model is None


def test_memory_that_grew_once_is_no_growth():
    """A model of eight gigabytes that is loaded does not make a trend."""
    told, _ = run(
        Stream(USUAL),
        BEGIN_S + 900,
        machine=lambda at_s: replace(QUIET, rss_bytes=(2 + 8 * (at_s > BEGIN_S)) * GIB),
        step_s=10.0,
    )

    assert told.changes == []


@pytest.mark.parametrize(("rss", "severity"), [(0.93, Severity.WARNING), (0.99, Severity.CRITICAL)])
def test_memory_that_is_nearly_used_up_is_a_saturation(rss, severity):
    """It is a warning from 90 % on, and critical where the process is about to be killed."""
    told, diagnosis = run(
        Stream(USUAL), BEGIN_S + 60, machine=lambda at_s: replace(QUIET, rss_bytes=rss * 16 * GIB * (at_s > BEGIN_S))
    )

    assert opens_within(told, "saturation:memory", 40)
    assert told.last("saturation:memory").severity is severity
    assert diagnosis.state("ranker") is not HealthState.OK


def test_a_call_that_hangs_is_found_at_once():
    """One evaluation after it is older than thirty seconds; it closes when the call ends."""
    told, _ = run(Stream(wrong(active_calls=2, oldest_active_s=31.0)), UNTIL_S, machine=QUIET)

    assert told.opened("stall") == [BEGIN_S]
    assert told.closed("stall") == [END_S]
    finding = told.last("stall")
    assert finding.severity is Severity.WARNING
    assert (finding.trace_id, finding.span_id) == ("7".zfill(32), "8".zfill(16))
    assert abs(finding.since - EPOCH - timedelta(seconds=BEGIN_S - 31)) < timedelta(seconds=1)


def test_when_all_calls_hang_it_is_critical_and_explains_that_none_end():
    """No call ends any more, and those that run are old."""
    hanging = wrong(calls=0, active_calls=8, oldest_active_s=120.0)
    told, _ = run(Stream(hanging), END_S, machine=QUIET)

    assert set(told.names) == {"stall", "throughput_drop"}
    assert told.last("stall").severity is Severity.CRITICAL
    assert told.first("throughput_drop").severity is Severity.WARNING
    assert told.first("throughput_drop").explained_by == "stall::ranker"


def test_traffic_that_stops_is_for_the_callers_to_explain():
    """Nothing is in flight, so the model is well; it closes when calls come again."""
    told, _ = run(Stream(wrong(calls=0, active_calls=0, oldest_active_s=0.0)), UNTIL_S, machine=QUIET)

    assert told.names == ["throughput_drop"]
    assert opens_within(told, "throughput_drop", 60)
    assert closes_within(told, "throughput_drop", 90)
    assert told.last("throughput_drop").severity is Severity.INFO


@pytest.mark.parametrize(("failing", "names"), [(0.0, []), (1.0, ["error_burst"])])
def test_three_calls_an_hour_are_silent_unless_all_fail(failing, names):
    """Long pauses and few calls are no findings; a call in twenty minutes that always fails is one."""

    def rare(at_s):
        return replace(IDLE, calls=1.0 if at_s % 1200 < 10 else 0.0, failing=failing if at_s > 14400 else 0)

    told, _ = run(Stream(rare), 8 * 3600.0, step_s=60.0)

    assert told.names == names
    assert all(14400 < at_s <= 14400 + 2 * 3600 for at_s in told.opened("error_burst"))


def test_a_busy_processor_alone_is_no_harm():
    """A batch that uses all processors is told for information, and the model is well."""
    told, diagnosis = run(Stream(USUAL), 300.0, machine=Machine(cpu_ratio=1.0))

    assert told.names == ["saturation:cpu"]
    assert told.last("saturation:cpu").severity is Severity.INFO
    assert diagnosis.state("ranker") is HealthState.OK


def test_objectives_burn():
    """A total outage burns the budget of the errors, and the burst explains it."""
    diagnosis = Diagnosis(error_objective=ErrorObjective(ratio=0.99))
    told, _ = run(Stream(wrong(failing=1.0)), END_S, machine=QUIET, diagnosis=diagnosis)

    assert opens_within(told, "slo_burn:errors", 150)
    assert told.last("slo_burn:errors").explained_by == "error_burst::ranker"


def test_a_model_may_have_objectives_of_its_own():
    """Calls of two seconds break a promise of half of one, and none of a minute."""
    diagnosis = Diagnosis(
        latency_objective=LatencyObjective(ratio=0.9, threshold_s=60.0),
        objectives_by_model={"ranker": Objectives(latency=LatencyObjective(ratio=0.9, threshold_s=0.5))},
    )
    streams = [Stream(wrong(slower=30.0)), Stream(USUAL, model="tagger")]
    told, _ = run(streams, END_S, machine=QUIET, diagnosis=diagnosis)

    assert {change.finding.model for _, change in told.changes if change.finding.kind == "slo_burn"} == {"ranker"}
    assert told.last("slo_burn:latency").explained_by == "bottleneck:model:ranker"


def test_a_model_that_takes_a_growing_share_of_the_time_is_named():
    """One of two models comes to do most of the work; neither is slow."""
    streams = [Stream(during(1800.0, 3600.0, USUAL, calls=250)), Stream(USUAL, model="tagger", seed=2)]
    told, _ = run(streams, 2400.0, step_s=10.0)

    assert told.names == ["input_shift:share"]
    assert told.last("input_shift:share").model == "ranker"
    assert told.last("input_shift:share").evidence["share_of_time_ratio"] > 0.7


def test_findings_of_a_model_that_vanished_close():
    """A minute after it was last seen; what was known of it is gone."""
    told, diagnosis = run(Stream(wrong(failing=0.9)), BEGIN_S + 120, machine=QUIET)
    run([], BEGIN_S + 200, diagnosis=diagnosis, from_s=BEGIN_S + 120, told=told)

    assert told.closed("error_burst") == [BEGIN_S + 182]
    assert diagnosis.open() == ()


def test_a_forgotten_model_begins_anew():
    """Its findings close with the next evaluation."""
    told, diagnosis = run(Stream(wrong(failing=0.9)), BEGIN_S + 120, machine=QUIET)
    diagnosis.forget("ranker")
    run([], BEGIN_S + 122, diagnosis=diagnosis, from_s=BEGIN_S + 120, told=told)

    assert told.closed("error_burst") == [BEGIN_S + 122]


def test_readings_that_stop_leave_no_saturation_behind():
    """After a minute without a new reading nobody knows."""
    told, diagnosis = run(Stream(USUAL), 200.0, machine=Machine(cpu_ratio=1.0))
    run(Stream(USUAL), 300.0, diagnosis=diagnosis, from_s=200.0, told=told)

    assert told.closed("saturation:cpu") == [262.0]


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_hours_of_healthy_calls_open_nothing(sigma):
    """With a daily cycle, and calls that differ much from one another (`make bench` tries days and seeds)."""

    def daily(at_s):
        return Load(failing=0.005, calls=50 * (1 + 0.4 * math.sin(2 * math.pi * at_s / 86400)), sigma=sigma)

    told, _ = run(Stream(daily), 2 * 3600.0, machine=QUIET, step_s=10.0)

    assert told.names == []
