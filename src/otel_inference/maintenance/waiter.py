"""A call that waits for a place: in a thread of its own, or as a task of an event loop."""

from __future__ import annotations

from asyncio.events import _get_running_loop, get_running_loop
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_inference.maintenance.place import Place


class Waiter:
    """One call in the queue.

    Attributes:
        place: The place it got; `None` while it waits, and once it has waited in vain.
    """

    __slots__ = ("arrived_s", "deadline_s", "patience_s", "place", "size")

    def __init__(self, size: int | None, arrived_s: float, deadline_s: float | None) -> None:
        self.size = size
        self.arrived_s = arrived_s
        self.deadline_s = deadline_s
        """Seconds that its request had left when it came; `None` where the limiter's own deadline holds."""
        self.patience_s = 0.0
        """Seconds that it may wait and still be answered in time."""
        self.place: Place | None = None

    @staticmethod
    def possible() -> bool:
        """Whether a call can wait in this way, here and now."""
        raise NotImplementedError

    def wake(self) -> None:
        """End the wait, from any thread; a second time does nothing.

        Raises:
            Exception: What an event loop makes of it that is closed; nobody will ever be woken.
        """
        raise NotImplementedError


class ThreadWaiter(Waiter):
    """A call that blocks its thread."""

    __slots__ = ("_turn",)

    def __init__(self, size: int | None, arrived_s: float, deadline_s: float | None) -> None:
        super().__init__(size, arrived_s, deadline_s)
        self._turn = Lock()
        self._turn.acquire()

    @staticmethod
    def possible() -> bool:
        """Only where no event loop runs: what would free a place may need the very loop that waits."""
        return _get_running_loop() is None

    def wake(self) -> None:
        """See `Waiter.wake`."""
        with suppress(RuntimeError):
            self._turn.release()

    def wait(self) -> None:
        """Block until woken, or until its patience is at an end."""
        self._turn.acquire(timeout=self.patience_s)


class TaskWaiter(Waiter):
    """A call that awaits its turn in an event loop."""

    __slots__ = ("_future", "_loop")

    def __init__(self, size: int | None, arrived_s: float, deadline_s: float | None) -> None:
        super().__init__(size, arrived_s, deadline_s)
        self._loop = get_running_loop()
        self._future = self._loop.create_future()

    @staticmethod
    def possible() -> bool:
        """Only in asyncio."""
        return _get_running_loop() is not None

    def wake(self) -> None:
        """See `Waiter.wake`."""
        self._loop.call_soon_threadsafe(self._end)

    async def wait(self) -> None:
        """Let others run until woken, or until its patience is at an end."""
        timer = self._loop.call_later(self.patience_s, self._end)
        try:
            await self._future
        finally:
            timer.cancel()

    def _end(self) -> None:
        if not self._future.done():
            self._future.set_result(None)
