"""CPU used of CPU that may be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from otel_inference.resources.cgroup import ControlGroups
from otel_inference.resources.cpu import CpuProbe
from otel_inference.resources.reading import Reading

BURN = """
import json, time
from otel_inference.resources.cpu import CpuProbe

input()
probe = CpuProbe()
probe.read(time.monotonic())
began_s, began_cpu_s = time.monotonic(), time.process_time()
while time.monotonic() < began_s + 1.5:
    pass
reading = probe.read(time.monotonic())
burnt_cores = (time.process_time() - began_cpu_s) / (time.monotonic() - began_s)
print(json.dumps([reading.cpu_limit_cores, reading.utilization["cpu"], reading.cpu_throttled_ratio, burnt_cores]))
"""


@pytest.fixture
def probe_of(captured, process_tree):
    """Gives a probe of a captured tree, on a machine of four processors."""
    return lambda tree: CpuProbe(root=str(captured(tree)), tree=process_tree, processors=lambda _: range(4))


@pytest.mark.parametrize("tree", ["v2_docker", "v1_docker"])
def test_half_a_processor_used_up_is_all(probe_of, process, tree):
    """A process that would burn a core and is held to half of one reads 1.0, not 0.25 of a machine of two."""
    probe = probe_of(tree)
    probe.read(10.0)
    process.user += 0.5
    reading = probe.read(11.0)

    assert reading.utilization == {"cpu": 1.0}
    assert reading.cpu_used_cores == pytest.approx(0.5)
    assert reading.cpu_limit_cores == 0.5


@pytest.mark.parametrize(
    ("tree", "limit_cores"),
    [("v2_systemd", 1.5), ("v1_kubernetes", 2.0), ("hybrid", 1.0), ("no_limit", 4), ("no_cgroup", 4), ("malformed", 4)],
)
def test_the_smallest_limit_binds(probe_of, process, tree, limit_cores):
    """Of the limits of all groups above the process and of the machine the smallest counts."""
    probe = probe_of(tree)
    probe.read(10.0)
    process.user += 1.0
    reading = probe.read(12.0)

    assert reading.cpu_limit_cores == limit_cores
    assert reading.utilization["cpu"] == pytest.approx(0.5 / limit_cores)


def test_affinity_binds_too(captured, process_tree):
    """A process bound to fewer processors than its quota allows has those."""
    probe = CpuProbe(root=str(captured("v2_systemd")), tree=process_tree, processors=lambda _: [3])

    assert probe.read(0.0).cpu_limit_cores == 1


def test_a_first_reading_knows_no_use(probe_of):
    """Use is a difference of two readings; one alone has none, and none is not 0."""
    reading = probe_of("v2_docker").read(10.0)

    assert reading.utilization == {}
    assert (reading.cpu_used_cores, reading.cpu_throttled_ratio, reading.cpu_throttled_s_per_s) == (None, None, None)
    assert reading.cpu_pressure.some_avg10_ratio == 0.125


def test_a_clock_that_stands_knows_no_use(probe_of):
    """Two readings at one time have no difference to divide by."""
    probe = probe_of("v2_docker")
    probe.read(10.0)

    assert probe.read(10.0).utilization == {}


def test_counts_children_that_came_and_went(probe_of, process):
    """The time of a child that ended and was waited for is not counted twice, nor lost."""
    probe = probe_of("no_limit")
    child = type(process)(2)
    process.descendants = [child]
    probe.read(10.0)
    child.user = 1.0
    assert probe.read(11.0).cpu_used_cores == 1.0
    process.descendants, process.waited_for = [], 1.5

    assert probe.read(12.0).cpu_used_cores == 0.5


def test_a_child_that_nobody_waits_for_is_unknown(probe_of, process):
    """Time that vanished with a child makes one reading unknown, not negative and not 0."""
    probe = probe_of("no_limit")
    child = type(process)(2)
    child.user, process.descendants = 50.0, [child]
    probe.read(10.0)
    child.gone = psutil.NoSuchProcess(2)
    assert probe.read(11.0).utilization == {}
    process.user += 2.0

    assert probe.read(12.0).utilization == {"cpu": 0.5}


def test_never_more_than_all(probe_of, process):
    """Time that arrives at once, as of a descendant found late, does not read as more than there is."""
    probe = probe_of("v2_docker")
    probe.read(10.0)
    process.user += 30.0

    assert probe.read(11.0).utilization == {"cpu": 1.0}


def test_tells_throttling(probe_of, captured, tmp_path):
    """Throttling is the share of periods and of time since the last reading."""
    probe = probe_of("v2_docker")
    probe.read(10.0)
    stat = tmp_path / "v2_docker/sys/fs/cgroup/cpu.stat"
    stat.write_text("nr_periods 120\nnr_throttled 35\nthrottled_usec 2100000\n")
    reading = probe.read(12.0)

    assert reading.cpu_throttled_ratio == pytest.approx(0.75)
    assert reading.cpu_throttled_s_per_s == pytest.approx(0.3)
    assert probe.read(14.0).cpu_throttled_ratio == 0.0
    stat.write_text("nr_periods 1\nnr_throttled 1\nthrottled_usec 1\n")
    assert probe.read(16.0).cpu_throttled_ratio is None


def test_tells_throttling_of_the_group_with_the_quota(probe_of, tmp_path):
    """A quota set above the process's own group is told of there."""
    probe = probe_of("v1_kubernetes")
    probe.read(10.0)
    pod = tmp_path / "v1_kubernetes/sys/fs/cgroup/cpu,cpuacct/kubepods/pod7"
    (pod / "cpu.stat").write_text("nr_periods 20\nnr_throttled 6\nthrottled_time 1050000000\n")
    reading = probe.read(11.0)

    assert reading.cpu_throttled_ratio == pytest.approx(0.5)
    assert reading.cpu_throttled_s_per_s == pytest.approx(1.0)


def test_knows_no_throttling_without_a_quota(probe_of):
    """Where nothing can throttle, it is unknown rather than 0."""
    probe = probe_of("no_limit")
    probe.read(10.0)

    assert probe.read(11.0).cpu_throttled_ratio is None


@pytest.mark.parametrize("ending", ["close", "reset_after_fork"])
def test_begins_anew(probe_of, process, ending):
    """After its end, or in a forked child, the next reading is a first one."""
    probe = probe_of("v2_docker")
    probe.read(10.0)
    getattr(probe, ending)()

    assert probe.read(11.0).utilization == {}
    assert isinstance(probe.read(12.0), Reading)


@contextmanager
def half_a_processor():
    """A new control group below this process's own, with a quota of half a processor."""
    levels = ControlGroups().levels("cpu")
    if not levels:
        pytest.skip("this machine mounts no cpu controller")
    group = Path(levels[0].path) / f"otel-inference-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"this machine lets nobody make a control group: {error}")
    try:
        if levels[0].is_v2:
            (group / "cpu.max").write_text("50000 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text("50000")
        yield group
    except OSError as error:
        pytest.skip(f"this machine lets nobody set a quota: {error}")
    finally:
        group.rmdir()


def test_half_a_processor_live():
    """A process that burns a core in a real group of half a processor uses what it got of that half."""
    with half_a_processor() as group:
        command = [sys.executable, "-c", BURN]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as burner:
            (group / "cgroup.procs").write_text(str(burner.pid))
            out, _ = burner.communicate("\n")

    limit_cores, utilization, throttled_ratio, burnt_cores = json.loads(out)
    assert limit_cores == 0.5
    assert utilization == pytest.approx(min(1.0, burnt_cores / 0.5), abs=0.1)  # all of it, unless others are busy too
    assert throttled_ratio is not None
