"""How a thread and a task wait for their turn."""

from __future__ import annotations

import asyncio

from otel_inference.maintenance.waiter import TaskWaiter, ThreadWaiter


def test_waits_in_the_way_of_its_place():
    """A thread waits where no event loop runs, a task where one does."""

    async def main():
        return ThreadWaiter.possible(), TaskWaiter.possible()

    assert (ThreadWaiter.possible(), TaskWaiter.possible()) == (True, False)
    assert asyncio.run(main()) == (False, True)


def test_a_thread_may_be_woken_twice():
    """A second wake, which two threads may come to do at once, is nothing, and the wait is over."""
    waiter = ThreadWaiter(None, 0.0, None)
    waiter.patience_s = 60.0
    waiter.wake()
    waiter.wake()
    waiter.wait()


def test_a_task_may_be_woken_twice():
    """So it is for a task, whose event loop has nothing to complain of and no timer left."""
    complaints = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
        waiter = TaskWaiter(None, 0.0, None)
        waiter.patience_s = 60.0
        waiter.wake()
        waiter.wake()
        await waiter.wait()
        await asyncio.sleep(0)
        return [timer for timer in loop._scheduled if not timer.cancelled()]

    assert asyncio.run(main()) == []
    assert complaints == []


def test_patience_has_an_end():
    """Whoever is not woken goes on when its patience is at an end."""

    async def main():
        waiter = TaskWaiter(None, 0.0, None)
        await waiter.wait()

    ThreadWaiter(None, 0.0, None).wait()
    asyncio.run(main())
