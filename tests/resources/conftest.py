"""Captured trees, processes that count what they are told, and an imitation of NVML."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from otel_inference import guard
from otel_inference.resources.process_tree import ProcessTree

HERE = Path(__file__).parent


class CpuTimes(NamedTuple):
    """Seconds, in psutil's order on Linux."""

    user: float
    system: float
    children_user: float
    children_system: float
    iowait: float


class MemoryInfo(NamedTuple):
    """Bytes."""

    rss: int
    vms: int


class FakeProcess:
    """Has psutil's answers; `gone` is what it raises in place of them."""

    def __init__(self, pid=1, *, rss=0, descendants=()):
        """Begin with no time used."""
        self.pid = pid
        self.user = self.waited_for = 0.0
        self.rss = rss
        self.descendants = list(descendants)
        self.gone = None
        self.listings = 0

    def cpu_times(self):
        """Tell its time and that of children waited for."""
        self._check()
        return CpuTimes(self.user, 0.0, self.waited_for, 0.0, 5.0)

    def memory_info(self):
        """Tell its memory."""
        self._check()
        return MemoryInfo(self.rss, 10 * self.rss)

    def children(self, *, recursive):
        """List descendants."""
        assert recursive
        self.listings += 1
        return list(self.descendants)

    def _check(self):
        """Be gone, if so told."""
        if self.gone is not None:
            raise self.gone


@pytest.fixture
def process():
    """The process at the top of the tree, alone."""
    return FakeProcess()


@pytest.fixture
def process_tree(process):
    """A tree whose descendants cost nothing to find."""
    return ProcessTree(lambda: process, work_clock=lambda: 0.0)


@pytest.fixture
def captured(tmp_path):
    """Gives the root of a copy of a captured tree, which the test may change."""

    def copy(name):
        return Path(shutil.copytree(HERE / "trees" / name, tmp_path / name))

    return copy


@pytest.fixture
def nvml():
    """A fresh imitation of the module `pynvml`, without a device."""
    spec = importlib.util.spec_from_file_location("fake_pynvml", HERE / "fake_pynvml.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def failures():
    """Counts of our own failures, forgotten afterwards."""
    yield guard.error_counts
    guard._errors.clear()
