"""Pauses of the garbage collector."""

from __future__ import annotations

import gc
import threading

import pytest

from otel_inference.resources.gc_pause import GcPauseProbe


@pytest.fixture
def probe():
    """A probe on whose clock every collection takes two seconds, removed afterwards."""
    now_ns = iter(range(10**9, 10**15, 2 * 10**9))
    probe = GcPauseProbe(lambda: next(now_ns))
    gc.disable()
    yield probe
    gc.enable()
    probe.remove()


def test_sums_pauses_between_readings(probe):
    """Two collections in ten seconds are four seconds of pause, two the longest; then there are none."""
    probe.read(0.0)
    gc.collect()
    gc.collect()
    reading = probe.read(10.0)

    assert (reading.gc_pause_s, reading.gc_pause_ratio, reading.gc_pause_max_s) == (4.0, 0.4, 2.0)
    reading = probe.read(20.0)
    assert (reading.gc_pause_s, reading.gc_pause_ratio, reading.gc_pause_max_s) == (0.0, 0.0, 0.0)


def test_a_first_reading_knows_no_pause(probe):
    """What was before it was installed is unknown, and so is what lasted no time."""
    assert probe.read(0.0).gc_pause_s is None
    assert probe.read(0.0).gc_pause_s is None


def test_a_collection_already_under_way_is_not_timed(probe):
    """Installed in the middle of a collection, it waits for the next."""
    probe.install()
    probe._note("stop", {})

    probe.read(0.0)
    assert probe.read(1.0).gc_pause_s == 0.0


def test_installs_once_and_leaves_nothing(probe):
    """However often it is installed there is one callback, and after its removal none."""
    before = list(gc.callbacks)
    probe.install()
    probe.install()
    assert len(gc.callbacks) == len(before) + 1
    probe.close()
    probe.remove()

    assert gc.callbacks == before


def test_survives_a_cleared_list(probe):
    """A host that clears the list of callbacks takes nothing from us that we miss."""
    before = list(gc.callbacks)
    probe.install()
    gc.callbacks[:] = before
    probe.remove()

    assert gc.callbacks == before


def test_a_forked_child_begins_without(probe):
    """The child has no callback until it reads."""
    before = list(gc.callbacks)
    probe.read(0.0)
    probe.reset_after_fork()

    assert gc.callbacks == before
    assert probe.read(1.0).gc_pause_s is None


def test_the_callback_makes_nothing_to_collect():
    """Ten thousand pauses leave no object that the collector tracks."""
    probe = GcPauseProbe()
    tracked = len(gc.get_objects())
    for _ in range(10_000):
        probe._note("start", {})
        probe._note("stop", {})

    assert len(gc.get_objects()) - tracked < 100


def test_counts_real_pauses_of_any_thread():
    """A collection in another thread is a pause of the process."""
    probe = GcPauseProbe()
    try:
        probe.read(0.0)
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()
        reading = probe.read(1.0)
    finally:
        probe.remove()

    assert 0 < reading.gc_pause_max_s <= reading.gc_pause_s
