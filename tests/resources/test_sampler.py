"""The thread that reads the probes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from threading import Event, Semaphore

import pytest

from otel_inference.resources.reading import Reading
from otel_inference.resources.sampler import THREAD_NAME, ResourceSampler
from otel_inference.resources.standard import standard_probes

FORK = """
import os, sys, threading
from otel_inference.resources.sampler import ResourceSampler
from otel_inference.resources.standard import standard_probes

ticked = threading.Event()
sampler = ResourceSampler(standard_probes(os.environ), interval_s=0.01, on_tick=lambda _: ticked.set())
sampler.start()
assert ticked.wait(30)
if os.fork() == 0:
    status = 1
    try:
        sampler.reset_after_fork()
        assert sampler.latest() is None
        assert threading.active_count() == 1
        ticked.clear()
        sampler.start()
        assert ticked.wait(30)
        assert sampler._watched[0]._probe._tree.pids(0.0)[0] == os.getpid()
        sampler.stop()
        assert threading.active_count() == 1
        status = 0
    finally:
        os._exit(status)
status = os.waitstatus_to_exitcode(os.wait()[1])
assert sampler.latest() is not None
sampler.stop()
sys.exit(status)
"""


class FakeProbe:
    """Sees a number, or fails as often as told."""

    def __init__(self, name="fake", *, rss_bytes=1, failing=0):
        """Begin unread."""
        self.name = name
        self.rss_bytes = rss_bytes
        self.failing = failing
        self.read_at_s = []
        self.closed = self.forked = 0

    def read(self, at_s):
        """Note when it was read."""
        self.read_at_s.append(at_s)
        if self.failing:
            self.failing -= 1
            raise OSError(self.name)
        return Reading(at_s=at_s, rss_bytes=self.rss_bytes, utilization={self.name: 0.5})

    def close(self):
        """Count it."""
        self.closed += 1

    def reset_after_fork(self):
        """Count it."""
        self.forked += 1


def ticks(sampler, number):
    """Have it read `number` times without its thread."""
    return [sampler._tick(Event()) for _ in range(number)]


@pytest.fixture
def clock():
    """Gives 0, 1, 2, ..."""
    now_s = iter(range(10_000))
    return lambda: float(next(now_s))


@pytest.fixture
def running():
    """Gives a started sampler of these probes once it has read them, and stops it afterwards."""
    begun = []

    def run(*probes, **options):
        ticked = Event()
        sampler = ResourceSampler(probes, interval_s=0.001, on_tick=lambda _: ticked.set(), **options)
        begun.append(sampler)
        sampler.start()
        assert ticked.wait(30)
        return sampler

    yield run
    for sampler in begun:
        sampler.stop()
    assert THREAD_NAME not in [thread.name for thread in threading.enumerate()]


def test_reads_nothing_before_it_is_started():
    """Making a sampler and its probes begins no thread, reads nothing and hooks nothing."""
    probe, threads, callbacks = FakeProbe(), threading.active_count(), list(gc.callbacks)
    sampler = ResourceSampler([probe, *standard_probes(os.environ)])

    assert sampler.latest() is None
    assert probe.read_at_s == []
    assert threading.active_count() == threads
    assert gc.callbacks == callbacks


def test_keeps_the_latest_reading_of_all(clock):
    """One reading has what every probe saw, stamped by the clock."""
    sampler = ResourceSampler([FakeProbe("a"), FakeProbe("b", rss_bytes=2)], clock=clock)
    ticks(sampler, 2)

    assert sampler.latest() == Reading(at_s=1.0, rss_bytes=1, utilization={"a": 0.5, "b": 0.5})


def test_one_thread_however_often_started(running):
    """Starting is idempotent, from any thread."""
    sampler = running(FakeProbe())
    starters = [threading.Thread(target=sampler.start) for _ in range(8)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()

    named = [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]
    assert len(named) == 1
    assert named[0].daemon


def test_leaves_nothing_after_stop(running):
    """After `stop` there is no thread, no callback, no reading, and every probe is closed; again is no matter."""
    probe, callbacks = FakeProbe(), list(gc.callbacks)
    sampler = running(probe, *standard_probes(os.environ))
    assert len(gc.callbacks) == len(callbacks) + 1
    sampler.stop()
    sampler.stop()

    assert probe.closed == 1
    assert gc.callbacks == callbacks
    assert sampler.latest() is None
    read = len(probe.read_at_s)
    assert THREAD_NAME not in [thread.name for thread in threading.enumerate()]
    assert len(probe.read_at_s) == read


def test_starts_again(running):
    """A sampler that was stopped can be started anew."""
    probe = FakeProbe()
    sampler = running(probe)
    sampler.stop()
    read, again = len(probe.read_at_s), Event()
    sampler._on_tick = lambda _: again.set()
    sampler.start()

    assert again.wait(30)
    assert len(probe.read_at_s) > read


def test_stops_from_its_own_thread():
    """A callback may stop the sampler that called it."""
    stopped = Event()
    sampler = ResourceSampler([FakeProbe()], interval_s=0.001, on_tick=lambda _: (sampler.stop(), stopped.set()))
    sampler.start()
    thread = sampler._thread

    assert stopped.wait(30)
    thread.join(30)
    assert not thread.is_alive()
    assert sampler.latest() is None


def test_a_failing_probe_breaks_no_other(clock, failures):
    """What the others saw is there, and what the failing one would have seen is absent."""
    sampler = ResourceSampler([FakeProbe("bad", failing=1), FakeProbe("good")], clock=clock)
    ticks(sampler, 1)

    assert sampler.latest().utilization == {"good": 0.5}
    assert failures() == {"probe.bad": 1}


def test_a_failing_probe_is_tried_less_and_less(clock, failures):
    """After failures in a row it is left alone for 2, 4, 8, ... intervals and at most a minute."""
    probe = FakeProbe("bad", failing=8)
    sampler = ResourceSampler([probe], clock=clock)
    ticks(sampler, 300)

    assert probe.read_at_s[:9] == [0, 2, 6, 14, 30, 62, 122, 182, 242]
    assert probe.read_at_s[9:] == list(range(243, 300))
    assert failures() == {"probe.bad": 8}


def test_a_probe_that_recovered_is_forgiven(clock, failures):
    """A success makes the next failure a first one again."""
    probe = FakeProbe("bad", failing=2)
    sampler = ResourceSampler([probe], clock=clock)
    ticks(sampler, 8)
    probe.failing = 1
    ticks(sampler, 4)

    assert probe.read_at_s == [0, 2, 6, 7, 8, 10, 11]


def test_a_failing_callback_changes_nothing(clock, failures):
    """Readings go on although whoever is told of them fails."""
    sampler = ResourceSampler([FakeProbe()], clock=clock, on_tick=lambda _: 1 / 0)
    ticks(sampler, 2)

    assert sampler.latest().at_s == 1.0
    assert failures() == {"tick": 2}


def test_a_probe_that_fails_to_close_is_no_obstacle(running, failures):
    """The thread ends and the other probes are closed."""
    bad, good = FakeProbe("bad"), FakeProbe("good")
    bad.close = lambda: 1 / 0
    running(bad, good).stop()

    assert good.closed == 1
    assert failures() == {"probe.bad": 1}


def test_glances_between_two_readings(failures):
    """What is soon over is looked at more often than once a reading, also after a look that failed."""
    seen, probe = Semaphore(0), FakeProbe()

    def glance():
        seen.release()
        raise OSError

    sampler = ResourceSampler([probe], interval_s=3600.0, glance=glance)
    sampler.start()
    try:
        assert all(seen.acquire(timeout=30) for _ in range(3))
    finally:
        sampler.stop()

    assert len(probe.read_at_s) == 1
    assert failures()["glance"] >= 2
    assert THREAD_NAME not in [thread.name for thread in threading.enumerate()]


def test_glances_less_often_where_a_glance_is_dear():
    """At a second of work each, a thousandth of a core affords one in a quarter of an hour."""
    worked_s, first, more = [0.0], Event(), Event()

    def glance():
        (more if first.is_set() else first).set()
        worked_s[0] += 1.0

    sampler = ResourceSampler([], interval_s=3600.0, work_clock=lambda: worked_s[0], glance=glance)
    sampler.start()
    assert first.wait(30)

    assert not more.wait(0.5)
    sampler.stop()


def test_reads_less_often_where_reading_is_dear(clock):
    """Readings of 10 ms each come every 2.5 s, which is 0.4 % of a core; one dear reading alone changes nothing."""
    work_s = iter([0.0, 0.5, 1.0, 1.001, 2.0, 2.01, 3.0, 3.01])
    sampler = ResourceSampler([FakeProbe()], clock=clock, work_clock=lambda: next(work_s))

    assert ticks(sampler, 4) == [1.0, 1.0, 1.0, pytest.approx(2.5)]


def test_shows_no_reading_after_stop(clock):
    """A reading that was under way when it was stopped is dropped."""
    sampler, stopping = ResourceSampler([FakeProbe()], clock=clock), Event()
    stopping.set()
    sampler._tick(stopping)

    assert sampler.latest() is None


def test_a_machine_without_threads_does_not_break_the_call(monkeypatch, failures):
    """When no thread can be had, `start` counts that and returns; the next one tries again."""
    sampler = ResourceSampler([FakeProbe()])
    with monkeypatch.context() as refused:
        refused.setattr(threading.Thread, "start", lambda _: 1 / 0)
        sampler.start()
    assert failures() == {"sampler": 1}
    sampler.start()
    sampler.stop()

    assert sampler.latest() is None


def test_does_not_wait_for_a_probe_that_hangs(running):
    """`stop` gives up after its timeout, no second thread is begun, and the first ends once the probe answers."""
    hanging, answer = Event(), Event()
    probe = FakeProbe()
    sampler = running(probe)
    probe.read = lambda at_s: (hanging.set(), answer.wait(30), Reading(at_s=at_s))[-1]
    assert hanging.wait(30)
    thread = sampler._thread
    sampler.stop(timeout_s=0.01)
    sampler.start()
    assert sampler._thread is thread
    answer.set()
    thread.join(30)

    assert probe.closed == 1
    assert sampler._thread is None


def test_a_forked_child_starts_its_own():
    """In a forked child nothing runs until it is started there, and then it reads the child; the parent goes on."""
    done = subprocess.run([sys.executable, "-c", FORK], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_a_forked_child_forgets_failures(clock, failures):
    """What failed in the parent is tried at once in the child, with a lock of its own."""
    probe = FakeProbe("bad", failing=1)
    sampler = ResourceSampler([probe], clock=clock)
    ticks(sampler, 1)
    sampler._lock.acquire()
    sampler.reset_after_fork()
    ticks(sampler, 1)

    assert probe.read_at_s == [0, 1]
    assert probe.forked == 1
    assert not sampler._lock.locked()
