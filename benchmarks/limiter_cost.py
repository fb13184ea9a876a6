"""What a call pays for a limiter that has a free place: `python -m benchmarks.limiter_cost`, ten seconds.

A block is so many pairs of `acquire` and `release`, on the calling thread's CPU clock, less the same loop
without them. Other processes only ever add to it, through caches and clock rates, hence the best block of each
way counts, and the median is printed beside it. The ways take turns, so that none has the quiet moments for itself.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from itertools import repeat
from statistics import median
from time import thread_time_ns, time
from typing import TYPE_CHECKING

from opentelemetry import baggage, context

from otel_inference.maintenance.deadline import deadline
from otel_inference.maintenance.limiter import AdaptiveLimiter

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = 5_000
BLOCKS = 60
ALLOWED_US = 3.0


def main() -> None:
    """Measure every way and print a line for each."""
    ways = {
        "semaphore of the standard library": semaphore_ns,
        "limiter": lambda: limiter_ns(None),
        "limiter, size known": lambda: limiter_ns(128),
        "limiter, deadline in code": deadline_ns,
        "limiter, deadline in baggage": baggage_ns,
        "limiter, asynchronous": lambda: asyncio.run(async_ns(None)),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    gc.disable()
    for _ in repeat(None, BLOCKS):
        for name, way in ways.items():
            spent[name].append(max(0.0, way() - empty_ns()) / PAIRS / 1000)
        gc.collect()
    best = min(spent["semaphore of the standard library"])
    for name, each in spent.items():
        print(f"{name:36} {min(each):5.2f} us (median {median(each):5.2f}), {min(each) / best:5.2f} semaphores")
    over = [name for name, each in spent.items() if min(each) > ALLOWED_US]
    print(f"allowed: {ALLOWED_US} us; over it: {'; '.join(over) or 'none'}")


def timed_ns(pair: Callable[[], object]) -> float:
    """CPU nanoseconds of a block of calls."""
    started_ns = thread_time_ns()
    for _ in repeat(None, PAIRS):
        pair()
    return thread_time_ns() - started_ns


def empty_ns() -> float:
    """The loop itself."""
    return timed_ns(lambda: None)


def semaphore_ns() -> float:
    """The simplest limiter there is."""
    semaphore = threading.Semaphore(4)

    def pair() -> None:
        semaphore.acquire()
        semaphore.release()

    return timed_ns(pair)


def limiter_ns(size: int | None) -> float:
    """A place taken and given back."""
    limiter = AdaptiveLimiter(0.5, workers=4)

    def pair() -> None:
        limiter.acquire("model", size).release()

    return timed_ns(pair)


def deadline_ns() -> float:
    """The same where the request has a deadline that code has set."""
    with deadline(100.0):
        return limiter_ns(None)


def baggage_ns() -> float:
    """The same where it has come in baggage."""
    token = context.attach(baggage.set_baggage("inference.deadline", f"{time() + 1000.0:.3f}"))
    try:
        return limiter_ns(None)
    finally:
        context.detach(token)


async def async_ns(size: int | None) -> float:
    """A place taken by a task."""
    limiter = AdaptiveLimiter(0.5, workers=4)
    started_ns = thread_time_ns()
    for _ in repeat(None, PAIRS):
        (await limiter.acquire_async("model", size)).release()
    return thread_time_ns() - started_ns


if __name__ == "__main__":
    main()
