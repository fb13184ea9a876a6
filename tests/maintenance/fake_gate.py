"""A gate that decides as it is told, and what tests of the limiter share."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

from otel_inference import observe, runtime
from otel_inference.maintenance.limiter import AdaptiveLimiter

FOREVER_S = 60.0


class FakeGate:
    """Has the interface of `maintenance.gate.Gate`; counts whom it knows to be waiting."""

    def __init__(self, limit=1, *, room=10**6, deadline_s=FOREVER_S, expected_s=0.0):
        self.limit, self.room, self.deadline_s, self.service_s = limit, room, deadline_s, expected_s
        self.waiting = 0
        self.ended = []
        self.announced = []
        """How many each announced call would have found before it."""
        self.asking = set()
        """Threads that ask now; never more than one."""

    def run_limit(self, now):
        """Say how many may run, and notice when two threads ask at once."""
        self.asking.add(threading.get_ident())
        assert len(self.asking) == 1
        self.asking.clear()
        return self.limit

    def admit(self, now, running, queued, size=None, deadline_s=None):
        """Let in while there is room."""
        if running < self.limit and not queued:
            return True
        self.waiting += queued < self.room
        return queued < self.room

    def may_come(self, now, running, queued, deadline_s=None):
        """Let come while there is room."""
        self.announced.append(queued)
        return running < self.limit or queued < self.room

    def may_start(self, now, waited_s, size=None, deadline_s=None):
        """Let start who will be in time."""
        self.waiting -= 1
        return waited_s + self.service_s <= (self.deadline_s if deadline_s is None else deadline_s)

    def left(self, now, size=None):
        """Note that one has given up."""
        self.waiting -= 1

    def finished(self, now, started, service_s, size=None, ok=True):  # noqa: FBT002 - the real one's signature
        """Note what ended."""
        self.ended.append((service_s, size, ok))

    def expected_s(self, size=None):
        """Say how long a call takes."""
        return self.service_s

    def retry_after_s(self, now, running, queued):
        """Say when to come back."""
        return 1.5


def limited(limit=1, **options):
    """A limiter and its gate."""
    gate = FakeGate(limit, **options)
    return AdaptiveLimiter(gate=gate), gate


def assert_idle(limiter, gate):
    """Nobody runs, nobody waits, the gate knows it, and the next call gets a place."""
    assert (limiter.in_use, limiter.queued, gate.waiting) == (0, 0, 0)
    place = limiter.acquire("ranker")
    assert limiter.in_use == 1
    place.release()


def in_threads(work, count):
    """Run `work(number)` in `count` threads at once; what they raised."""
    raised = []

    def run(number):
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - handed to the test
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FOREVER_S)
    return raised


def wait_until(condition):
    """Wait for what other threads are about to do."""
    until_s = time.monotonic() + FOREVER_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.001)


CLOSED, _ = limited(0, room=0)
"""Turns every call away."""


def refuse():
    """What a model's call does when its limiter turns it away."""
    CLOSED.acquire("ranker")


@contextmanager
def full(model, room=0):
    """A model that is called already, behind a limiter whose only place is taken; the limiter, and the place."""

    @observe(model)
    def call():
        return None

    limiter, _ = limited(1, room=room)
    call()
    runtime.limit(model, limiter)
    place = limiter.acquire(model)
    try:
        yield limiter, call
    finally:
        place.release()
        runtime.unlimit(model)


def assert_refused(status, headers, body):
    """The answer is a 503 that says when to come back, to people and to programs."""
    assert status == 503
    assert headers["retry-after"] == "2"
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(body))
    detail = "ranker is overloaded; try again in 1.5 s"
    assert json.loads(body) == {"error": "overloaded", "detail": detail, "retry_after_s": 2}
