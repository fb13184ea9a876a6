"""The process and its descendants."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from otel_inference.resources.process_tree import ProcessTree


def test_sums_over_descendants(process, process_tree):
    """CPU time, with that of descendants waited for, and memory are those of all together."""
    process.user, process.waited_for, process.rss = 1.0, 0.5, 100
    child = type(process)(2, rss=20)
    child.user = 2.0
    process.descendants = [child]

    assert process_tree.cpu_s(0.0) == 3.5
    assert process_tree.rss_bytes(0.0) == 120
    assert process_tree.pids(0.0) == (1, 2)


@pytest.mark.parametrize("gone", [psutil.NoSuchProcess(2), psutil.ZombieProcess(2), psutil.AccessDenied(2)])
def test_passes_over_what_vanished(process, process_tree, gone):
    """A descendant that ended, or may not be asked, is left out."""
    process.user, process.rss = 1.0, 100
    child = type(process)(2, rss=20)
    child.gone = gone
    process.descendants = [child]

    assert process_tree.cpu_s(0.0) == 1.0
    assert process_tree.rss_bytes(0.0) == 100


def test_looks_for_descendants_once_a_reading(process, process_tree):
    """Probes that read at one time share what was found, and the next time it is looked for again."""
    process_tree.cpu_s(0.0)
    process_tree.rss_bytes(0.0)
    assert process.listings == 1
    process_tree.cpu_s(1.0)

    assert process.listings == 2


def test_looks_less_often_where_looking_is_dear(process):
    """Ten milliseconds of work are not spent more often than every ten seconds."""
    work_s = iter(range(100))
    tree = ProcessTree(lambda: process, work_clock=lambda: next(work_s) * 0.01)
    for at_s in range(21):
        tree.cpu_s(float(at_s))

    assert process.listings == 3


def test_finds_a_real_descendant():
    """A child process is found while it lives, and its memory counts."""
    tree = ProcessTree(work_clock=lambda: 0.0)
    alone_bytes = tree.rss_bytes(0.0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        pids, both_bytes = tree.pids(1.0), tree.rss_bytes(1.0)
        child.communicate(b"\n")

    assert pids[0] == os.getpid()
    assert child.pid in pids
    assert both_bytes > 0 < alone_bytes
    assert child.pid not in tree.pids(2.0)
