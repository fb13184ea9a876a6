"""What holds among many threads and event loops, under signals and across forks."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from tests.maintenance import fake_gate as fake

from otel_inference import observe, runtime
from otel_inference.errors import OverloadedError

HERE = Path(__file__).parent

FOREVER_S, limited, assert_idle = fake.FOREVER_S, fake.limited, fake.assert_idle
wait_until, in_threads = fake.wait_until, fake.in_threads


def test_never_exceeds_the_limit():
    """Of 8 threads at most 3 run at any time, and at some time 3 do."""
    limiter, gate = limited(3)
    running, most = set(), []

    def work(number):
        for _ in range(500):
            place = limiter.acquire("ranker")
            running.add(number)
            most.append(len(running))
            time.sleep(0)
            running.discard(number)
            place.release()

    assert in_threads(work, 8) == []
    assert max(most) == 3
    assert len(gate.ended) == 4000
    assert_idle(limiter, gate)


def looping_threads(count):
    """Event loops, each run by a thread of its own, and the function that ends them."""
    loops = [asyncio.new_event_loop() for _ in range(count)]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()

    def end():
        for loop, thread in zip(loops, threads, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join(FOREVER_S)
            loop.close()

    return loops, end


def test_starts_who_waited_longest():
    """Threads and tasks of two event loops start in the order in which they came."""
    limiter, gate = limited()
    held, started = limiter.acquire("ranker"), []
    loops, end = looping_threads(2)

    def call(number):
        place = limiter.acquire("ranker")
        started.append(number)
        place.release()

    async def call_async(number):
        place = await limiter.acquire_async("ranker")
        started.append(number)
        place.release()

    for number in range(12):
        if number % 3 == 2:
            threading.Thread(target=call, args=(number,)).start()
        else:
            asyncio.run_coroutine_threadsafe(call_async(number), loops[number % 3])
        wait_until(lambda queued=number + 1: limiter.queued == queued)
    held.release()
    wait_until(lambda: len(gate.ended) == 13)
    end()

    assert started == list(range(12))
    assert_idle(limiter, gate)


async def failing_call(limiter, outcomes, steps):
    """A call that gets a place fails after some steps; what becomes of it is counted."""
    try:
        place = await limiter.acquire_async("ranker")
    except (OverloadedError, asyncio.CancelledError) as error:
        outcomes[type(error)] += 1
        raise
    try:
        for _ in range(steps):
            await asyncio.sleep(0)
        outcomes[ValueError] += 1
        raise ValueError
    finally:
        place.release(ok=False)


def test_loses_no_place_of_cancelled_and_failing_tasks():
    """40,000 calls of tasks that fail, are cancelled at any point or are turned away leave every place free."""
    limiter, gate = limited(4, room=200)
    rng, outcomes = random.Random(7), Counter()

    async def main():
        for _ in range(100):
            tasks = [asyncio.create_task(failing_call(limiter, outcomes, rng.randrange(3))) for _ in range(400)]
            for task in rng.sample(tasks, 150):
                await asyncio.sleep(0)
                task.cancel()
                assert limiter.in_use <= 4
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert min(outcomes[each] for each in (ValueError, OverloadedError, asyncio.CancelledError)) > 1000
    assert_idle(limiter, gate)


def test_loses_no_place_of_failing_threads():
    """60,000 calls of 8 threads that fail leave every place free."""
    limiter, gate = limited(5)

    def call(number):
        place = limiter.acquire("ranker", number)
        try:
            raise ValueError
        finally:
            place.release(ok=False)

    def work(number):
        for _ in range(7500):
            with suppress(ValueError):
                call(number)

    assert in_threads(work, 8) == []
    assert len(gate.ended) == 60_000
    assert_idle(limiter, gate)


RNG = random.Random(11)


@observe("ranker")
async def fail_later():
    """Fail after some steps."""
    for _ in range(RNG.randrange(3)):
        await asyncio.sleep(0)
    raise ValueError


@observe("ranker")
async def stream():
    """Give three items."""
    for item in range(3):
        yield item
        await asyncio.sleep(0)


async def read_some():
    """Read a stream, not always to its end, and do not always close it."""
    items = stream()
    async for item in items:
        if item == RNG.randrange(3):
            break
    if RNG.random() < 0.5:
        await items.aclose()


def test_loses_no_place_of_observed_calls(telemetry):
    """Of 5,000 calls of a model that fail, are cancelled, refused or left half read each counts once and keeps no place."""
    limiter, gate = limited(3, room=40)
    runtime.limit("ranker", limiter)

    async def main():
        for _ in range(50):
            tasks = [asyncio.create_task(RNG.choice((fail_later, read_some))()) for _ in range(100)]
            await asyncio.sleep(0)
            for task in RNG.sample(tasks, 40):
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    gc.collect()
    health = runtime.health("ranker")
    runtime.unlimit("ranker")

    assert health.calls == health.window.calls == 5000
    assert health.window.rejected == limiter.rejected > 100
    assert_idle(limiter, gate)


def test_loses_no_wake_up_among_threads_and_loops():
    """Threads and loops that fight for two places, with cancellations, all come to their end."""
    limiter, gate = limited(2)

    def blocking():
        for _ in range(300):
            limiter.acquire("ranker").release()

    async def call():
        place = await limiter.acquire_async("ranker")
        try:
            await asyncio.sleep(0)
        finally:
            place.release()

    async def tasks(rng):
        for _ in range(30):
            calls = [asyncio.create_task(call()) for _ in range(20)]
            await asyncio.sleep(0)
            for each in rng.sample(calls, 5):
                each.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def work(number):
        blocking() if number % 2 else asyncio.run(tasks(random.Random(number)))

    assert in_threads(work, 6) == []
    assert limiter.rejected == 0
    assert_idle(limiter, gate)


def run_python(program):
    """What a program prints in a process of its own."""
    head = f"import sys; sys.path.insert(0, {str(HERE)!r}); from fake_gate import *\n"
    command = [sys.executable, "-c", head + textwrap.dedent(program)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_an_interrupted_wait_gives_up_its_turn():
    """Ctrl-C while a thread waits ends the wait, and the next in the queue gets the place."""
    printed = run_python("""
        import os, signal

        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
        limiter, gate = limited()
        held = limiter.acquire("ranker")

        def interrupt():
            wait_until(lambda: limiter.queued == 1)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        try:
            limiter.acquire("ranker")
        except KeyboardInterrupt:
            print("interrupted", limiter.queued)
        held.release()
        assert_idle(limiter, gate)
        print("idle")
    """)

    assert printed == ["interrupted", "0", "idle"]


def test_survives_an_interruption_at_any_point():
    """Whatever point of a call a signal handler raises at, the place is free again as soon as the call is forgotten."""
    printed = run_python("""
        import signal

        limiter, gate = limited(2)
        gate.run_limit = lambda now: 2
        armed = struck = 0
        ending = []

        def strike(*_):
            global armed, struck
            if armed:
                armed, struck = 0, struck + 1
                raise KeyboardInterrupt

        def others():
            while not ending:
                limiter.acquire("ranker").release()

        threads = [threading.Thread(target=others) for _ in range(3)]
        for thread in threads:
            thread.start()
        signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while struck < 300:
            try:
                armed = 1
                place = limiter.acquire("ranker")
                place.release()
                armed = 0
            except KeyboardInterrupt:
                place = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        ending.append(True)
        for thread in threads:
            thread.join()
        print(limiter.in_use, limiter.queued)
    """)

    assert printed == ["0", "0"]


def test_a_forked_child_starts_anew():
    """In a child of a fork nobody runs and nobody waits, and places of the parent are none."""
    printed = run_python("""
        import os
        from otel_inference.maintenance import limiter as module

        os.register_at_fork(after_in_child=module.reset_after_fork)
        limiter, gate = limited()
        held = limiter.acquire("ranker")
        threading.Thread(target=limiter.acquire, args=("ranker",), daemon=True).start()
        wait_until(lambda: limiter.queued == 1)
        limiter._lock.acquire()
        child = os.fork()
        if child == 0:
            thread = threading.Thread(target=held.release)
            thread.start()
            thread.join()
            limiter.acquire("ranker").release()
        else:
            limiter._lock.release()
            os.waitpid(child, 0)
        print(limiter.in_use, limiter.queued, flush=True)
        os._exit(0)
    """)

    assert printed == ["0", "0", "1", "1"]
