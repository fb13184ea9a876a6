"""Why calls of one size take longer than they did."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.diagnosis.injections import INJECTED, first_bottleneck

from otel_inference.diagnosis.attribution import causes
from otel_inference.diagnosis.profile import Profile
from otel_inference.diagnosis.scan import Slowdown
from otel_inference.diagnosis.signals import Signals
from otel_inference.health.stretch import Stretch
from otel_inference.resources.reading import AcceleratorReading, Pressure, Reading, TorchMemoryReading

SINCE_S, NOW_S = 600.0, 660.0
GIB = 1 << 30


@pytest.mark.parametrize(("inject", "subject"), INJECTED.items(), ids=lambda each: getattr(each, "__name__", each))
def test_a_whole_diagnosis_finds_an_injected_cause(inject, subject):
    """From calls and readings alone, while something else is seen at another time (`python -m benchmarks.diagnosis` tries thirty)."""
    assert first_bottleneck(inject, 2) == subject


def _profile(service_s=0.1, *, calls=50, stage_s=None, device_s=0.0):
    stretch = Stretch(0.0, 10.0)
    for _ in range(calls):
        stretch.add(service_s, input_size=100)
    stretch.add_stages({stage: round(1e9 * spent_s * calls) for stage, spent_s in (stage_s or {}).items()})
    stretch.device_s = device_s * calls
    return Profile.of([stretch])


TWICE = Slowdown(since_s=SINCE_S, at_s=NOW_S, ratio=2.0, before=_profile(), after=_profile(0.2))


def _signals(before, after, *, since_s=SINCE_S):
    """Readings once a second, which change at `since_s`."""
    return _noted(lambda at_s: after if at_s >= since_s else before)


def _noted(reading):
    signals = Signals()
    for at_s in range(int(NOW_S)):
        signals.note(replace(reading(at_s), at_s=float(at_s)), float(at_s))
    return signals


def _first(before, after, slowdown=TWICE, **when):
    return causes(slowdown, _signals(before, after, **when))[0]


def _waiting(ratio, *, cpu=0.3):
    return Reading(at_s=0.0, utilization={"cpu": cpu}, cpu_pressure=Pressure(some_avg10_ratio=ratio))


def test_without_a_slowdown_there_is_no_cause():
    """Calls that are as fast as ever, or faster, have nothing to explain."""
    busy = _signals(_waiting(0.0), _waiting(0.9))

    assert causes(replace(TWICE, ratio=1.0), busy) == ()
    assert causes(replace(TWICE, ratio=0.5), busy) == ()


def test_without_any_reading_the_model_itself_is_left():
    """Where there are no probes, what no stage explains is the model's own."""
    assert [cause.subject for cause in causes(TWICE, Signals())] == ["model"]


@pytest.mark.parametrize("since_s", [SINCE_S - 300, SINCE_S + 50])
def test_a_signal_that_rose_at_another_time_is_no_cause(since_s):
    """Waiting for a processor that began minutes earlier, or most of a minute later, did not slow the calls."""
    course = [(at_s + 10.0, 0.0 if at_s < SINCE_S else 0.7) for at_s in range(100, 660, 10)]

    assert _first(_waiting(0.0), _waiting(0.5), replace(TWICE, course=course)).subject == "cpu"
    assert _first(_waiting(0.0), _waiting(0.5), replace(TWICE, course=course), since_s=since_s).subject == "model"


def test_a_rise_minutes_earlier_does_not_hide_the_one_that_slowed_calls():
    """The processors were taken for half a minute, were free again, and then were taken when calls slowed."""
    course = [(at_s + 10.0, 0.0 if at_s < SINCE_S else 0.7) for at_s in range(100, 660, 10)]
    twice = _noted(
        lambda at_s: _waiting(0.5 if at_s >= SINCE_S or SINCE_S - 80 <= at_s < SINCE_S - 50 else 0.0),
    )

    assert causes(replace(TWICE, course=course), twice)[0].subject == "cpu"


def test_what_was_high_for_minutes_before_is_not_what_is_usual():
    """Calls were slowed for four of the last ten minutes; in most of them the processors were free."""
    before = _noted(lambda at_s: _waiting(0.5 if at_s >= SINCE_S or 100 <= at_s < 340 else 0.0))

    (cause,) = causes(TWICE, before)

    assert cause.evidence == {
        "cpu_ratio": 0.3,
        "cpu_ratio_before": 0.3,
        "cpu_wait_ratio": 0.5,
        "cpu_wait_ratio_before": 0.0,
    }


@pytest.mark.parametrize(("busy", "subject"), [(1.0, "cpu"), (0.3, "model"), (None, "cpu")])
def test_processors_that_are_idle_are_not_waited_for(busy, subject):
    """Tasks of one process wait for one another to leave a processor, too; only where nobody knows better that is believed."""
    before, after = (replace(_waiting(ratio), cpu_busy_ratio=busy) for ratio in (0.0, 0.5))

    assert _first(before, after).subject == subject


@pytest.mark.parametrize(
    ("seen", "subject"),
    [
        ({}, "cpu"),
        ({"call_lock_ratio": 0.2, "call_pause_ratio": 0.15}, "model"),
        ({"cpu_used_cores": 0.9}, "model"),
    ],
    ids=["runnable", "waiting", "computing"],
)
def test_a_thread_bound_to_a_busy_core_waits_for_it_though_others_are_idle(seen, subject):
    """What is left where tasks wait for a processor, calls wait for nothing else, and no more is computed."""
    calls = {"call_lock_ratio": 0.0, "call_pause_ratio": 0.05, "cpu_used_cores": 0.4}
    before = replace(_waiting(0.0), cpu_busy_ratio=0.3, **calls)
    after = replace(_waiting(0.4), cpu_busy_ratio=0.5, **(calls | seen))

    assert _first(before, after).subject == subject


@pytest.mark.parametrize(
    ("lock", "wait", "subject"),
    [(0.45, 0.0, "lock"), (0.2, 0.0, "model"), (0.45, 0.5, "cpu"), (0.45, 0.2, "lock"), (0.0, 0.0, "model")],
)
def test_calls_that_wait_for_another_thread_hang_on_a_lock(lock, wait, subject):
    """Where that is most of the added time, and the other thread does not wait for a processor itself as long."""
    before = replace(_waiting(0.0), call_lock_ratio=0.02, cpu_busy_ratio=1.0)
    after = replace(_waiting(wait), call_lock_ratio=lock, cpu_busy_ratio=1.0)

    assert _first(before, after).subject == subject


@pytest.mark.parametrize(("busy", "subject"), [(1.0, "cpu"), (0.6, "lock")])
@pytest.mark.parametrize(
    "seen", [{"call_lock_ratio": 0.45}, {"interpreter_delay_s": 0.008}], ids=["pool", "interpreter"]
)
def test_without_pressure_used_up_processors_keep_threads_waiting(busy, subject, seen):
    """Many kernels have no PSI: then threads of a pool and of the interpreter come late where no processor is free."""
    before = Reading(at_s=0.0, utilization={"cpu": 0.3}, cpu_busy_ratio=0.3, **dict.fromkeys(seen, 0.0))
    after = Reading(at_s=0.0, utilization={"cpu": 0.3}, cpu_busy_ratio=busy, **seen)

    assert _first(before, after).subject == subject


def test_calls_that_wait_for_a_time_do_not_wait_for_a_processor():
    """Though the machine became busy at the same time."""
    before = replace(_waiting(0.0), call_pause_ratio=0.0)

    seen = causes(TWICE, _signals(before, replace(_waiting(0.5), call_pause_ratio=0.3)))

    assert [cause.subject for cause in seen] == ["model", "cpu"]
    assert seen[0].evidence == {"call_pause_ratio": 0.3, "call_pause_ratio_before": 0.0}
    assert _first(before, replace(_waiting(0.5), call_pause_ratio=0.1)).subject == "cpu"


def test_calls_that_wait_all_the_time_may_wait_for_longer():
    """Those of a model elsewhere: their share of waiting cannot rise, and processors that became busy are not the cause."""
    always = replace(_waiting(0.0), call_pause_ratio=0.95)

    assert _first(always, replace(_waiting(0.5), call_pause_ratio=0.97)).subject == "model"
    assert (
        _first(always, replace(_waiting(0.5), call_pause_ratio=0.48)).subject == "cpu"
    )  # what was added was no waiting


def test_a_pause_that_began_at_another_time_is_no_cause():
    """Calls that had waited for minutes when they slowed did not slow for it."""
    course = [(at_s + 10.0, 0.0 if at_s < SINCE_S else 0.7) for at_s in range(100, 660, 10)]
    before, after = (replace(_waiting(0.0), call_pause_ratio=ratio) for ratio in (0.0, 0.6))

    earlier = causes(replace(TWICE, course=course), _signals(before, after, since_s=SINCE_S - 200))[0]
    here = causes(replace(TWICE, course=course), _signals(before, after))[0]

    assert (here.is_seen, earlier.is_seen) == (True, False)


def test_who_waits_for_a_processor_gets_the_interpreter_late_too():
    """Short waits of our own thread that end late tell of the interpreter's lock only where processors are free."""
    late = {"interpreter_delay_s": 0.008}

    assert _first(_waiting(0.0), replace(_waiting(0.0), **late)).subject == "model"
    before = replace(_waiting(0.0), interpreter_delay_s=0.0002)
    assert _first(before, replace(_waiting(0.0), **late)).subject == "lock"
    assert _first(before, replace(_waiting(0.5), **late)).subject == "cpu"


@pytest.mark.parametrize(("busy", "subject"), [(0.3, "cpu_throttled"), (1.0, "cpu"), (None, "cpu")])
def test_a_quota_that_stops_the_process_now_and_then_is_the_cause_where_processors_are_idle(busy, subject):
    """Bursts run into it in one period of eight; where others use the processors, they may as well be waited for."""
    before, after = (
        replace(_waiting(wait), cpu_busy_ratio=busy, cpu_throttled_ratio=stopped)
        for wait, stopped in ((0.0, 0.0), (0.5, 0.12))
    )

    assert _first(before, after).subject == subject


def test_a_first_quota_is_a_change():
    """A process without a quota was never stopped by one."""
    free = Reading(at_s=0.0, cpu_used_cores=0.5)

    assert _first(free, replace(free, cpu_throttled_ratio=0.6)).subject == "cpu_throttled"


def test_a_signal_that_rose_by_too_little_is_no_cause():
    """Collections for 2 % of the time do not make calls twice as slow; to a slowdown by 5 % they contribute."""
    before, after = Reading(at_s=0.0, gc_pause_ratio=0.0), Reading(at_s=0.0, gc_pause_ratio=0.02)

    assert _first(before, after).subject == "model"
    assert _first(before, after, replace(TWICE, ratio=1.05)).subject == "gc"


def test_who_takes_the_processors_is_told():
    """The advice differs with whether this process uses what it may."""
    outside = _first(_waiting(0.0), _waiting(0.5, cpu=0.3))
    inside = _first(_waiting(0.0), _waiting(0.5, cpu=0.98))

    assert outside.subject == inside.subject == "cpu"
    assert "Others" in outside.advice
    assert "AdaptiveLimiter" in inside.advice
    assert outside.evidence["cpu_wait_ratio"] == 0.5
    assert outside.evidence["cpu_wait_ratio_before"] == 0.0


def test_a_limit_that_is_run_into_counts_where_the_kernel_does_not_tell_how_long_tasks_wait():
    """Control groups of version 1 have no pressure, but count how often the limit was reached."""
    cause = _first(Reading(at_s=0.0, memory_limit_hits=0), Reading(at_s=0.0, memory_limit_hits=7))

    assert cause.subject == "memory"
    assert cause.evidence["memory_limit_hits"] == 7


def test_heat_that_holds_the_clocks_down_is_the_accelerators_doing():
    """A device that idles or is at its power cap is not held down."""

    def device(*limits):
        seen = AcceleratorReading(uuid="GPU-1", name="A", vendor="nvidia", is_ours=True, clocks_limited_by=limits)
        return Reading(at_s=0.0, accelerators=(seen,))

    assert _first(device(), device("thermal")).subject == "gpu"
    assert _first(device(), device("power_cap")).subject == "model"


def test_an_accelerator_that_works_longer_on_each_call_is_the_bottleneck():
    """Device time is part of the calls' time; here it is all that was added."""
    before, after = _profile(device_s=0.05), _profile(0.2, device_s=0.15)

    assert causes(replace(TWICE, before=before, after=after), Signals())[0].subject == "gpu"


def test_an_allocator_that_retries_is_short_of_memory():
    """Torch counts the times it had to free its cache since the process began."""
    seen = TorchMemoryReading(
        device=0,
        allocated_bytes=GIB,
        reserved_bytes=GIB,
        inactive_split_bytes=0,
        alloc_retries=3,
        ooms=0,
        total_bytes=2 * GIB,
    )

    def more_from(since_s):
        return lambda at_s: Reading(
            at_s=0.0, torch_memory=(replace(seen, alloc_retries=3 + max(0, int(at_s - since_s))),)
        )

    assert causes(TWICE, _noted(more_from(SINCE_S)))[0].subject == "gpu_memory"
    assert causes(TWICE, _noted(more_from(NOW_S)))[0].subject == "model"


def test_a_stage_that_grew_with_the_inputs_is_no_cause():
    """Twice the prefill for inputs that make twice the work is as it should be; the decode is what slowed."""
    before = _profile(0.10, stage_s={"prefill": 0.05, "decode": 0.05})
    after = _profile(0.30, stage_s={"prefill": 0.10, "decode": 0.20})

    found = causes(replace(TWICE, ratio=1.5, input_ratio=2.0, before=before, after=after), Signals())

    assert [cause.subject for cause in found] == ["decode"]


def test_a_processor_that_is_short_comes_before_the_stage_that_waits_for_it():
    """Where decoding is most of the work anyway, that it grew most says nothing."""
    before = _profile(0.1, stage_s={"decode": 0.09})
    after = _profile(0.2, stage_s={"decode": 0.18})
    slowdown = replace(TWICE, before=before, after=after)

    found = causes(slowdown, _signals(_waiting(0.0), _waiting(0.5)))

    assert [cause.subject for cause in found] == ["cpu", "decode"]
