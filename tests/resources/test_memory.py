"""Memory held of memory that may be held."""

from __future__ import annotations

import pytest

from otel_inference.resources.memory import MemoryProbe

MIB = 1024**2
GIB = 1024**3


@pytest.fixture
def probe_of(captured, process_tree):
    """Gives a probe of a captured tree."""
    return lambda tree: MemoryProbe(root=str(captured(tree)), tree=process_tree)


@pytest.mark.parametrize(
    ("tree", "limit_bytes"),
    [
        ("v2_docker", GIB),
        ("v2_systemd", 8 * GIB),
        ("v1_docker", 512 * MIB),
        ("v1_kubernetes", 2 * GIB),
        ("hybrid", GIB),
        ("no_limit", 16 * GIB),
        ("no_cgroup", 16 * GIB),
        ("other_namespace", 16 * GIB),
    ],
)
def test_the_smallest_limit_binds(probe_of, process, tree, limit_bytes):
    """Of the limits of all groups above the process and of the machine the smallest counts."""
    process.rss = 256 * MIB
    reading = probe_of(tree).read(0.0)

    assert reading.memory_limit_bytes == limit_bytes
    assert reading.rss_bytes == 256 * MIB
    assert reading.utilization == {"memory": 256 * MIB / limit_bytes}


@pytest.mark.parametrize(
    ("tree", "working_set_bytes", "high_bytes"),
    [
        ("v2_docker", 500 * MIB, None),
        ("v2_systemd", 4 * GIB, 6 * GIB),  # of the group with the limit
        ("v1_docker", 200 * MIB, None),
        ("no_limit", 2 * GIB, None),
        ("no_cgroup", None, None),
    ],
)
def test_tells_the_groups_working_set(probe_of, tree, working_set_bytes, high_bytes):
    """The working set of the group that binds leaves out file pages that can be dropped."""
    reading = probe_of(tree).read(0.0)

    assert reading.memory_working_set_bytes == working_set_bytes
    assert reading.memory_high_bytes == high_bytes


@pytest.mark.parametrize(("tree", "most_bytes"), [("v2_docker", 500 * MIB), ("no_cgroup", None)])
def test_pages_that_children_share_are_not_more_than_is_in_use(probe_of, process, tree, most_bytes):
    """Four forked children of a process of 300 MiB are resident five times; their group, or the machine, knows better."""
    process.rss = 300 * MIB
    probe = probe_of(tree)
    alone = probe.read(0.0)
    process.descendants = [type(process)(pid, rss=300 * MIB) for pid in range(2, 6)]
    reading = probe.read(10.0)

    assert alone.rss_bytes == 300 * MIB
    assert reading.rss_bytes == min(1500 * MIB, most_bytes or 1500 * MIB)
    assert reading.utilization["memory"] == reading.rss_bytes / reading.memory_limit_bytes


def test_an_unknown_limit_gives_no_share(probe_of, process):
    """Where no limit can be read, what is held is still told, but no utilization."""
    process.rss = MIB
    reading = probe_of("malformed").read(0.0)

    assert (reading.utilization, reading.memory_limit_bytes, reading.rss_bytes) == ({}, None, MIB)


@pytest.mark.parametrize(
    ("tree", "file", "content"),
    [
        ("v2_docker", "sys/fs/cgroup/memory.events", "low 0\nhigh 2\nmax 10\noom 0\n"),
        ("v1_docker", "sys/fs/cgroup/memory/memory.failcnt", "9\n"),
    ],
)
def test_counts_hits_of_the_limit(probe_of, tmp_path, tree, file, content):
    """Hits are those since the last reading, so that a first one knows none."""
    probe = probe_of(tree)
    assert probe.read(0.0).memory_limit_hits is None
    assert probe.read(1.0).memory_limit_hits == 0
    (tmp_path / tree / file).write_text(content)

    assert probe.read(2.0).memory_limit_hits == 5
    probe.close()
    assert probe.read(3.0).memory_limit_hits is None
    probe.reset_after_fork()
    assert probe.read(4.0).memory_limit_hits is None


def test_tells_pressure(probe_of):
    """Pressure on memory is that of the process's group."""
    assert probe_of("v2_docker").read(0.0).memory_pressure.full_avg10_ratio == pytest.approx(0.015)
