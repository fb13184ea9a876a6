"""The processors that a process may run on, and how busy they are."""

from __future__ import annotations

import os

import pytest

from otel_inference.resources import processors
from otel_inference.resources.processors import Idleness, allowed

STAT = """cpu  100 0 100 1000 0 0 0 0 0 0
cpu0 {} 0 0 {} {} 0 0 {} 0 0
cpu1 0 0 0 {} 0 0 0 0 0 0
intr 12345 0 0
"""


def test_affinity_is_that_of_all_threads():
    """What the processes may run on is at least what this thread may, and ids that are gone are passed over."""
    found = allowed([os.getpid(), 2**22 + 1])

    assert os.sched_getaffinity(0) <= set(found) <= set(range(os.cpu_count()))


def test_affinity_adds_up_over_threads(monkeypatch):
    """A process whose threads are bound to a processor each may use all of those."""
    bound = {0: {0}, 7: {0, 5}, 11: {1}, 12: {2}}

    def affinity(each):
        if each not in bound:
            raise ProcessLookupError
        return bound[each]

    monkeypatch.setattr(os, "sched_getaffinity", affinity)
    monkeypatch.setattr(os, "listdir", lambda _: ["11", "12", "13"])
    monkeypatch.setattr(processors, "_MACHINE_CORES", 64)
    assert allowed([7, 8]) == {0, 5, 1, 2}

    monkeypatch.setattr(os, "listdir", lambda _: affinity(-1))
    assert allowed([]) == {0}


def test_affinity_where_it_is_unknown(monkeypatch):
    """Where the system does not tell, all processors count."""
    monkeypatch.delattr(os, "sched_getaffinity")

    assert list(allowed([])) == [*range(os.cpu_count())]


@pytest.fixture
def stat(tmp_path):
    """Writes `/proc/stat` below a root that it has as an attribute."""

    def write(*ticks):
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc" / "stat").write_text(STAT.format(*ticks))

    write.root = str(tmp_path)
    return write


def test_processors_are_busy_for_whoever_uses_them(stat):
    """Time that was used or stolen counts, idle time and waiting for a disk do not, and other processors neither."""
    idleness = Idleness(stat.root)
    stat(0, 0, 0, 0, 0)
    assert idleness.busy_ratio({0}) is None

    stat(50, 10, 10, 30, 100)
    assert idleness.busy_ratio({0}) == pytest.approx(0.8)

    stat(150, 10, 10, 30, 100)
    assert idleness.busy_ratio({0}) == 1.0


def test_processors_are_busy_on_average(stat):
    """One of two that is idle makes half."""
    idleness = Idleness(stat.root)
    stat(0, 0, 0, 0, 0)
    idleness.busy_ratio({0, 1})
    stat(100, 0, 0, 0, 100)

    assert idleness.busy_ratio({0, 1}) == 0.5


def test_where_the_kernel_does_not_tell_nothing_is_known(tmp_path):
    """Nor right after it was forgotten."""
    idleness = Idleness(str(tmp_path))

    assert [idleness.busy_ratio({0}) for _ in range(2)] == [None, None]
