"""Control groups, found and read in captured trees."""

from __future__ import annotations

import pytest

from otel_inference.resources.cgroup import ControlGroups, Throttling
from otel_inference.resources.pressure import pressure


def paths(root, controller):
    """Groups that bind the process, by their place below the root."""
    return [group.path.removeprefix(f"{root}/sys/fs/cgroup") for group in ControlGroups(str(root)).levels(controller)]


@pytest.mark.parametrize(
    ("tree", "cpu", "memory"),
    [
        ("v2_docker", [""], [""]),
        (
            "v2_systemd",
            ["/system.slice/serve.service/worker", "/system.slice/serve.service", "/system.slice", ""],
            ["/system.slice/serve.service/worker", "/system.slice/serve.service", "/system.slice", ""],
        ),
        ("v1_docker", ["/cpu,cpuacct"], ["/memory"]),
        (
            "v1_kubernetes",
            [f"/cpu,cpuacct{at}" for at in ("/kubepods/pod7/4f1c0de5a9b7", "/kubepods/pod7", "/kubepods", "")],
            [f"/memory{at}" for at in ("/kubepods/pod7/4f1c0de5a9b7", "/kubepods/pod7", "/kubepods", "")],
        ),
        ("hybrid", ["/cpu/app", "/cpu"], ["/memory/app", "/memory"]),
        ("no_cgroup", [], []),
        ("other_namespace", [], []),
        ("foreign_path", ["/cpu"], []),
        ("malformed", [""], [""]),
    ],
)
def test_finds_the_groups_that_bind(captured, tree, cpu, memory):
    """The process's own group comes first, then those above it, as far as they are mounted."""
    root = captured(tree)

    assert paths(root, "cpu") == cpu
    assert paths(root, "memory") == memory


@pytest.mark.parametrize(
    ("tree", "limit_cores"),
    [("v2_docker", 0.5), ("v1_docker", 0.5), ("hybrid", 1.0), ("foreign_path", 0.25), ("no_limit", None)],
)
def test_reads_the_quota(captured, tree, limit_cores):
    """A quota is in processors, and `max` or -1 is none."""
    group = ControlGroups(str(captured(tree))).levels("cpu")[0]

    assert group.cpu_limit_cores() == limit_cores


@pytest.mark.parametrize("tree", ["v2_docker", "v1_docker"])
def test_reads_what_the_quota_did(captured, tree):
    """Both versions tell periods and time, in units of their own."""
    group = ControlGroups(str(captured(tree))).levels("cpu")[0]

    assert group.throttling() == Throttling(periods=100, throttled_periods=20, throttled_s=pytest.approx(1.5))


@pytest.mark.parametrize("what", ["cpu_limit_cores", "throttling", "memory_limit_bytes", "memory_working_set_bytes"])
def test_takes_nonsense_for_nothing(captured, what):
    """A file that says nothing sensible is unknown, not zero and not an error."""
    group = ControlGroups(str(captured("malformed"))).levels("cpu")[0]

    assert getattr(group, what)() is None
    assert group.memory_limit_hits() is None


def test_follows_the_process(captured):
    """A process that is moved to another group is bound by that one."""
    root = captured("v2_systemd")
    groups = ControlGroups(str(root))
    assert len(groups.levels("cpu")) == 4
    (root / "proc/self/cgroup").write_text("0::/system.slice\n")

    assert [group.cpu_limit_cores() for group in groups.levels("cpu")] == [1.5, None]


def test_survives_the_loss_of_everything(captured):
    """When the files go away, so does what they said."""
    root = captured("v2_docker")
    groups = ControlGroups(str(root))
    assert groups.levels("cpu")
    (root / "proc/self/cgroup").unlink()

    assert groups.levels("cpu") == ()


@pytest.mark.parametrize(
    ("tree", "resource", "some", "full", "is_own_group"),
    [
        ("v2_docker", "cpu", 0.125, 0.11, True),
        ("v2_docker", "memory", 0.06, 0.015, True),
        ("hybrid", "cpu", 0.3, 0.0, True),
        ("no_cgroup", "cpu", 0.02, None, False),
    ],
)
def test_reads_pressure(captured, tree, resource, some, full, is_own_group):
    """Pressure is a ratio, of the own group where it has a file, else of the machine."""
    seen = pressure(ControlGroups(str(captured(tree))), resource)

    assert seen.some_avg10_ratio == pytest.approx(some)
    assert seen.full_avg10_ratio == (None if full is None else pytest.approx(full))
    assert seen.is_own_group is is_own_group


@pytest.mark.parametrize(("tree", "resource"), [("v2_systemd", "cpu"), ("malformed", "cpu"), ("malformed", "memory")])
def test_knows_no_pressure_without_a_file(captured, tree, resource):
    """Where the kernel keeps no pressure, or says it in another way, it is unknown."""
    assert pressure(ControlGroups(str(captured(tree))), resource) is None
