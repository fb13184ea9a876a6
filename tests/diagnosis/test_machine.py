"""What a whole diagnosis makes of readings of the machine, on a manual clock.

Calls begin at 0; what goes wrong begins at 720 s and ends at 1200 s, unless a test says otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from tests.diagnosis.streams import (
    BEGIN_S,
    END_S,
    GIB,
    QUIET,
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
from otel_inference.resources.reading import Reading, TorchMemoryReading


def test_throttling_explains_the_latency():
    """Three findings with one cause: the quota is used up, the processor is the bottleneck, calls are slow."""
    stopped = Machine(cpu_ratio=0.97, throttled=0.7, cpu_wait=0.5)
    told, diagnosis = run_wrong(wrong(slower=2.0), END_S, machine=stopped)

    assert set(told.names) == {"latency_shift", "bottleneck:cpu_throttled", "saturation:cpu"}
    assert opens_within(told, "bottleneck:cpu_throttled", 60)
    explained = {finding.kind.value: finding.explained_by for finding in diagnosis.open("ranker")}
    assert explained == {
        "latency_shift": "bottleneck:cpu_throttled:ranker",
        "bottleneck": "saturation:cpu:",
        "saturation": None,
    }


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


def test_memory_that_grows_is_found_before_it_is_used_up():
    """Half a gigabyte a minute towards sixteen: within eight minutes, and it closes once it stops."""

    def growing(at_s):
        grown_s = min(max(at_s - BEGIN_S, 0.0), END_S - BEGIN_S)
        return replace(QUIET, rss_bytes=2 * GIB + grown_s * 0.5 * GIB / 60)

    told, _ = run_wrong(wrong(), END_S + 900, machine=growing, step_s=10.0)

    assert told.names == ["memory_growth"]
    assert opens_within(told, "memory_growth", 480)
    assert closes_within(told, "memory_growth", 900)
    assert told.last("memory_growth").model is None


def test_memory_that_grew_once_is_no_growth():
    """A model of eight gigabytes that is loaded does not make a trend."""
    told, _ = run_wrong(
        wrong(),
        BEGIN_S + 900,
        machine=lambda at_s: replace(QUIET, rss_bytes=(2 + 8 * (at_s > BEGIN_S)) * GIB),
        step_s=10.0,
    )

    assert told.changes == []


@pytest.mark.parametrize(("rss", "severity"), [(0.93, Severity.WARNING), (0.99, Severity.CRITICAL)])
def test_memory_that_is_nearly_used_up_is_a_saturation(rss, severity):
    """It is a warning from 90 % on, and critical where the process is about to be killed."""
    told, diagnosis = run_wrong(
        wrong(), BEGIN_S + 60, machine=lambda at_s: replace(QUIET, rss_bytes=rss * 16 * GIB * (at_s > BEGIN_S))
    )

    assert opens_within(told, "saturation:memory", 40)
    assert told.last("saturation:memory").severity is severity
    assert diagnosis.state("ranker") is not HealthState.OK


def test_a_busy_processor_alone_is_no_harm():
    """A batch that uses all processors is told for information, and the model is well."""
    told, diagnosis = run(Stream(USUAL), 300.0, machine=Machine(cpu_ratio=1.0))

    assert told.names == ["saturation:cpu"]
    assert told.last("saturation:cpu").severity is Severity.INFO
    assert diagnosis.state("ranker") is HealthState.OK


def test_readings_that_stop_leave_no_saturation_behind():
    """After a minute without a new reading nobody knows."""
    told, diagnosis = run(Stream(USUAL), 200.0, machine=Machine(cpu_ratio=1.0))
    run(Stream(USUAL), 300.0, diagnosis=diagnosis, from_s=200.0, told=told)

    assert told.closed("saturation:cpu") == [265.0]


def test_a_process_that_starts_uses_all_that_it_may():
    """Half a minute of it is what counts as used up, and not the first readings."""
    told, _ = run(Stream(USUAL), 60.0, machine=Machine(cpu_ratio=1.0), step_s=1.0)

    assert 30 <= told.opened("saturation:cpu")[0] <= 40
