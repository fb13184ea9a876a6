"""How late a thread gets to run."""

from __future__ import annotations

import threading

import pytest

from otel_inference.resources.heartbeat import HeartbeatProbe


class LateClock:
    """Each wait ends late by the next of `delays_s`."""

    def __init__(self, *delays_s):
        """Begin at a time that is no multiple of anything."""
        self.now_s = 17.3
        self.delays_s = list(delays_s)
        self.waits = 0

    def __call__(self):
        """Tell the time."""
        return self.now_s

    def sleep(self, wait_s):
        """Wake up late."""
        self.now_s += wait_s + self.delays_s[self.waits]
        self.waits += 1


def _delay_s(clock):
    return HeartbeatProbe(clock=clock, sleep=clock.sleep).read(1.0).interpreter_delay_s


def test_the_median_of_five_waits_is_given():
    """Two waits that a busy processor delayed do not count for more than the three others."""
    clock = LateClock(0.0001, 0.08, 0.0002, 0.07, 0.0003)

    assert _delay_s(clock) == pytest.approx(0.0003)


def test_it_gives_up_once_the_waits_have_taken_a_quarter_of_a_second():
    """Where each wait takes long, the thread that reads is not held up by all of them."""
    clock = LateClock(0.2, 0.3, 0.4)

    assert _delay_s(clock) == pytest.approx(0.25)
    assert clock.waits == 2


def test_a_clock_that_is_finer_than_the_timer_shows_no_negative_delay():
    """A wait that ends early counts as one that ended in time."""
    assert _delay_s(LateClock(-0.0004, -0.0004, -0.0004, -0.0004, -0.0004)) == 0.0


def test_a_thread_that_never_lets_go_of_the_interpreter_is_seen():
    """Beside a thread that runs Python all the time, waits end later by at least a millisecond."""
    done = threading.Event()

    def spin():
        while not done.is_set():
            sum(range(1000))

    spinner = threading.Thread(target=spin)
    spinner.start()
    try:
        seen_s = max(HeartbeatProbe().read(1.0).interpreter_delay_s for _ in range(5))
    finally:
        done.set()
        spinner.join()

    assert seen_s > 0.001
