"""Who comes in, who waits, who is turned away; and that every place comes back."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from types import SimpleNamespace

import pytest
from tests.maintenance import fake_gate as fake

from otel_inference import guard
from otel_inference.errors import ConfigError, OverloadedError
from otel_inference.maintenance.deadline import deadline
from otel_inference.maintenance.limiter import AdaptiveLimiter
from otel_inference.maintenance.waiter import ThreadWaiter

FOREVER_S, FakeGate = fake.FOREVER_S, fake.FakeGate
limited, assert_idle, wait_until = fake.limited, fake.assert_idle, fake.wait_until


@pytest.fixture(autouse=True)
def _fresh_counts():
    """Counts of failures that a test provokes."""
    yield
    guard._errors.clear()


@pytest.mark.parametrize("deadline_s", ["0.5s", 0, -1, True, float("nan")])
def test_a_deadline_that_is_no_time_is_a_mistake(deadline_s):
    """What is no positive number of seconds is refused with what was given and what is expected."""
    with pytest.raises(ConfigError, match=rf"deadline_s is {deadline_s!r}; expected seconds greater than 0"):
        AdaptiveLimiter(deadline_s=deadline_s)


@pytest.mark.parametrize("workers", ["4", 0, 2.5, True])
def test_a_number_of_workers_that_is_none_is_a_mistake(workers):
    """So is what is no whole number of at least one."""
    with pytest.raises(ConfigError, match=rf"workers is {workers!r}; expected a whole number of at least 1"):
        AdaptiveLimiter(workers=workers)


def test_begins_with_all_processors_where_the_system_does_not_tell_which_are_usable(monkeypatch):
    """Affinity is known on Linux only; with torch on one thread a call, each processor takes a call."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 1))

    assert AdaptiveLimiter(deadline_s=1.0).limit == os.cpu_count()


def test_turns_away_at_once_what_the_gate_refuses():
    """Beyond what may wait a call gets `OverloadedError`, counted by the class of its size."""
    limiter, gate = limited(1, room=0)
    place = limiter.acquire("ranker")
    for size in (None, 100, 101, 5000):
        with pytest.raises(OverloadedError, match=r"ranker is overloaded; try again in 1\.5 s") as refusal:
            limiter.acquire("ranker", size)
        assert refusal.value.retry_after_s == 1.5

    assert limiter.rejected == 4
    assert limiter.rejected_by_size == {-1: 1, 13: 2, 24: 1}
    assert (limiter.limit, limiter.in_use, limiter.queued) == (1, 1, 0)
    place.release()
    assert_idle(limiter, gate)


def test_tells_the_gate_how_long_a_call_took():
    """Service time runs from the place given to the place given back, and failed calls are marked."""
    now_s = [0.0]
    gate = FakeGate()
    limiter = AdaptiveLimiter(gate=gate, clock=lambda: now_s[0])
    for size, ok in ((7, True), (None, False)):
        place = limiter.acquire("ranker", size)
        now_s[0] += 2.5
        place.release(ok=ok)

    assert gate.ended == [(2.5, 7, True), (2.5, None, False)]


def test_releases_once():
    """A second release gives back nothing, and a place that nobody releases comes back when it is thrown away."""
    limiter, gate = limited(2)
    place, kept = limiter.acquire("ranker"), limiter.acquire("ranker")
    place.release()
    place.release(ok=False)
    assert limiter.in_use == 1

    del kept
    gc.collect()
    assert [ok for _, _, ok in gate.ended] == [True, False]
    assert_idle(limiter, gate)


def test_newcomers_do_not_overtake():
    """A call that comes while others wait goes behind them, even where a place has become free."""
    limiter, gate = limited()

    async def main():
        held, order = limiter.acquire("ranker"), []

        async def call(name):
            place = await limiter.acquire_async("ranker")
            order.append(name)
            await asyncio.sleep(0)
            place.release()

        first = asyncio.create_task(call("first"))
        await asyncio.sleep(0)
        held.release()
        await asyncio.gather(asyncio.create_task(call("second")), first)
        return order

    assert asyncio.run(main()) == ["first", "second"]
    assert_idle(limiter, gate)


def test_waited_time_is_known():
    """A place says how long its call waited for it; one that was free says zero."""
    now_s = [0.0]
    gate = FakeGate()
    limiter = AdaptiveLimiter(gate=gate, clock=lambda: now_s[0])

    async def main():
        held = limiter.acquire("ranker")
        waiting = asyncio.create_task(limiter.acquire_async("ranker"))
        await asyncio.sleep(0)
        now_s[0] = 0.25
        held.release()
        return held.waited_s, (await waiting).waited_s

    assert asyncio.run(main()) == (0.0, 0.25)


def test_hands_on_the_place_of_a_cancelled_waiter():
    """A task that is cancelled in the very moment it gets a place passes it to the next."""
    limiter, gate = limited()

    async def main():
        held = limiter.acquire("ranker")
        waiting = [asyncio.create_task(limiter.acquire_async("ranker")) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        held.release()
        waiting[0].cancel()
        (await waiting[2]).release()
        results = await asyncio.gather(*waiting[:2], return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)

    asyncio.run(main())
    assert_idle(limiter, gate)


def test_a_higher_limit_wakes_those_who_wait():
    """When the limit grows, as many come in as it now allows: at the next release, or when told to look."""
    limiter, gate = limited()

    async def main():
        held = limiter.acquire("ranker")
        waiting = [asyncio.create_task(limiter.acquire_async("ranker")) for _ in range(5)]
        await asyncio.sleep(0)
        gate.limit = 3
        held.release()
        await asyncio.wait(waiting[:3])
        assert (limiter.in_use, limiter.queued) == (3, 2)
        gate.limit = 5
        limiter.refresh()
        for place in await asyncio.gather(*waiting):
            place.release()

    asyncio.run(main())
    assert_idle(limiter, gate)


def test_a_lower_limit_lets_running_calls_end():
    """When the limit shrinks, nobody starts until so many have ended."""
    limiter, gate = limited(3)

    async def main():
        held = [limiter.acquire("ranker") for _ in range(3)]
        waiting = asyncio.create_task(limiter.acquire_async("ranker"))
        await asyncio.sleep(0)
        gate.limit = 1
        for place in held[:2]:
            place.release()
        assert limiter.queued == 1
        held[2].release()
        (await waiting).release()

    asyncio.run(main())
    assert_idle(limiter, gate)


def test_gives_up_when_it_would_be_too_late():
    """A wait ends when the call could not be answered in time any more, in threads and in tasks."""
    limiter, gate = limited(deadline_s=1.0, expected_s=0.97)
    held = limiter.acquire("ranker")
    with pytest.raises(OverloadedError):
        limiter.acquire("ranker")
    with pytest.raises(OverloadedError):
        asyncio.run(limiter.acquire_async("ranker"))

    assert limiter.rejected == 2
    held.release()
    assert_idle(limiter, gate)


def test_who_is_too_late_does_not_hold_up_others():
    """A place that becomes free goes past those it cannot help any more to the first it can."""
    now_s = [0.0]
    gate = FakeGate(deadline_s=10.0, expected_s=1.0)
    limiter = AdaptiveLimiter(gate=gate, clock=lambda: now_s[0])

    async def main():
        held = limiter.acquire("ranker")
        early = [asyncio.create_task(limiter.acquire_async("ranker", 64)) for _ in range(2)]
        await asyncio.sleep(0)
        now_s[0] = 5.0
        late = asyncio.create_task(limiter.acquire_async("ranker"))
        await asyncio.sleep(0)
        now_s[0] = 9.5
        held.release()
        (await late).release()
        return await asyncio.gather(*early, return_exceptions=True)

    assert [type(result) for result in asyncio.run(main())] == [OverloadedError] * 2
    assert limiter.rejected_by_size == {12: 2}
    assert_idle(limiter, gate)


def test_a_requests_own_deadline_counts():
    """A request with less time than the limiter's deadline is turned away where that is too little, and one with more waits."""
    limiter, gate = limited(deadline_s=1.0, expected_s=0.5)
    with deadline(0.4), pytest.raises(OverloadedError):
        limiter.acquire("ranker")
    with deadline(0.6):
        held = limiter.acquire("ranker")
    with deadline(0.51), pytest.raises(OverloadedError):
        limiter.acquire("ranker")
    with deadline(FOREVER_S):
        gate.service_s = 2.0
        threading.Timer(0.01, held.release).start()
        limiter.acquire("ranker").release()

    assert_idle(limiter, gate)


def test_never_blocks_an_event_loop():
    """In a thread that runs a loop a call gets a free place or `OverloadedError`, and does not wait."""
    limiter, gate = limited()

    async def main():
        held = limiter.acquire("ranker")
        with pytest.raises(OverloadedError):
            limiter.acquire("ranker")
        held.release()
        limiter.acquire("ranker").release()

    asyncio.run(main())
    assert_idle(limiter, gate)


def test_does_not_wait_outside_asyncio():
    """A coroutine that another kind of loop drives gets a free place or `OverloadedError`."""
    limiter, gate = limited()
    with pytest.raises(StopIteration) as first:
        limiter.acquire_async("ranker").send(None)
    with pytest.raises(OverloadedError):
        limiter.acquire_async("ranker").send(None)

    first.value.value.release()
    del first
    assert_idle(limiter, gate)


def test_forgets_waiters_whose_loop_is_closed():
    """A place given to a task of a closed loop goes on to the next; a task thrown away leaves the queue."""
    limiter, gate = limited()
    held = limiter.acquire("ranker")
    loop = asyncio.new_event_loop()
    stuck = loop.create_task(limiter.acquire_async("ranker"))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert limiter.queued == 1
    with deadline(FOREVER_S):
        thread = threading.Thread(target=lambda: limiter.acquire("ranker").release())
        thread.start()
    wait_until(lambda: limiter.queued == 2)
    held.release()
    thread.join(FOREVER_S)

    assert limiter.in_use == 0
    stuck._log_destroy_pending = False
    stuck.get_coro().close()
    assert_idle(limiter, gate)


def test_a_thrown_away_waiter_leaves_the_queue():
    """A coroutine that is closed while it waits gives up its turn."""
    limiter, gate = limited()

    async def main():
        held = limiter.acquire("ranker")
        waiting = limiter.acquire_async("ranker")
        waiting.send(None)
        assert limiter.queued == 1
        waiting.close()
        assert limiter.queued == 0
        held.release()

    asyncio.run(main())
    assert_idle(limiter, gate)


def test_comes_in_again_from_within():
    """A finalizer or signal handler that calls or releases while the limiter decides neither waits nor breaks it."""
    limiter, gate = limited()
    held = limiter.acquire("ranker")
    within = []

    def interrupted(now, running, queued):
        if not within:
            within.append(limiter.acquire("ranker"))
            held.release()
            within[0].release()
        return 1.5

    gate.room, gate.retry_after_s = 0, interrupted
    with pytest.raises(OverloadedError):
        limiter.acquire("ranker")

    assert len(within) == len(gate.ended) == 1
    assert_idle(limiter, gate)


def test_a_place_given_back_during_a_look_is_free_after_it():
    """A place that a finalizer gives back while a metric is read is handed on at once: no other call may come to do it."""
    limiter, gate = limited()
    held = limiter.acquire("ranker")
    waiting = threading.Thread(target=lambda: limiter.acquire("ranker").release(), daemon=True)
    waiting.start()
    wait_until(lambda: limiter.queued == 1)
    look = gate.run_limit

    def interrupted(now):
        held.release()
        return look(now)

    gate.run_limit = interrupted
    assert limiter.limit == 1
    gate.run_limit = look
    waiting.join(5)

    assert not waiting.is_alive()
    assert_idle(limiter, gate)


def test_lets_through_when_the_gate_fails():
    """A gate that raises limits nothing and breaks no call; its failures are counted."""
    limiter, gate = limited()
    gate.run_limit = gate.finished = lambda *_: 1 / 0
    limiter.acquire("ranker").release()
    asyncio.run(limiter.acquire_async("ranker")).release()
    assert guard.error_counts() == {"limiter": 2}
    del gate.run_limit
    limiter.acquire("ranker").release()

    assert guard.error_counts() == {"limiter": 3}
    del gate.finished
    assert_idle(limiter, gate)


class StruckLock:
    """A lock that a signal strikes while a thread waits for it."""

    def _is_owned(self):
        """Belong to somebody else."""
        return False

    def acquire(self):
        """Be struck."""
        raise KeyboardInterrupt

    def release(self):
        """Complain, as real ones do that were not taken."""
        msg = "cannot release un-acquired lock"
        raise RuntimeError(msg)


@pytest.mark.parametrize("struck", ["acquire", "release", "refresh"])
def test_an_interrupted_step_was_not_taken(struck):
    """A signal that strikes before the limiter gets to decide is the only thing the host sees, and changes nothing."""
    limiter, gate = limited()
    held = limiter.acquire("ranker")
    lock, limiter._lock = limiter._lock, StruckLock()
    act = {"acquire": lambda: limiter.acquire("ranker"), "release": held.release, "refresh": limiter.refresh}
    with pytest.raises(KeyboardInterrupt):
        act[struck]()
    limiter._lock = lock

    assert limiter.in_use == 1
    held.release()
    assert_idle(limiter, gate)


def test_an_interrupted_wait_is_over(monkeypatch):
    """A wait that ends in an exception leaves the queue, and the exception is the host's."""
    limiter, gate = limited()
    held = limiter.acquire("ranker")

    def struck(waiter):
        held.release()
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadWaiter, "wait", struck)
    with pytest.raises(KeyboardInterrupt):
        limiter.acquire("ranker")

    assert [ok for _, _, ok in gate.ended] == [True, False]
    assert_idle(limiter, gate)


@pytest.mark.parametrize(("deadline_s", "patience_s"), [(2.0, 1.5), (0.4, 0.0), (float("inf"), 30.0), (1e9, 3600.0)])
def test_waits_as_long_as_it_helps(deadline_s, patience_s):
    """A call waits until it could not be answered in time; half a minute without a deadline, an hour at most."""
    limiter, _ = limited(deadline_s=deadline_s, expected_s=0.5)
    held = limiter.acquire("ranker")

    async def main():
        task = asyncio.create_task(limiter.acquire_async("ranker"))
        await asyncio.sleep(0)
        (waiter,) = limiter._queue
        task.cancel()
        return waiter.patience_s

    assert asyncio.run(main()) == patience_s
    held.release()
