"""Takes the writing of ended calls off their path: they are queued, and a thread of ours writes them.

One measurement costs the SDK 10 to 25 us, and a call has two to seven of them. A call only puts
itself into a queue; the thread writes it soon after, usually while an engine computes with the
interpreter's lock released. Nothing is lost or seen late by it: a collection writes what is queued
first (the SDK asks observable instruments before it reads the others), so do a flush and
`health()`, and a call that finds the queue full is written at once, by itself.
"""

from __future__ import annotations

import atexit
from collections import deque
from contextlib import suppress
from threading import Event, RLock, Thread
from time import sleep
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_QUEUED: Final = 2048
_PATIENCE_S: Final = 2.0
_BATCH: Final = 32
"""Calls written at a time, so that a fork, which has to wait for that, waits for a millisecond."""
_ROUND_S: Final = 1.0
_REST_S: Final = 0.05
"""Between two rounds, so that under load a round takes many calls and the thread wakes seldom."""


class CallWriter:
    """A bounded queue of ended calls, and the thread that writes them.

    The thread begins with the first call and ends with `stop`.

    Args:
        write: Writes one call that ended at a time given in nanoseconds of `time.perf_counter_ns`.
        on_start: Called on the thread when it begins, for what the first call is to set off.
        each_round: Called on the thread before it writes, and once a second.
        at_exit: Called when the interpreter exits; default: `stop`.
    """

    def __init__(
        self,
        write: Callable[[Any, int], None],
        *,
        on_start: Callable[[], None] = lambda: None,
        each_round: Callable[[], None] = lambda: None,
        at_exit: Callable[[], None] | None = None,
    ) -> None:
        self._write = write
        self._on_start = on_start
        self._each_round = each_round
        self._at_exit = at_exit if at_exit is not None else self.stop
        self._queue: deque[tuple[Any, int]] = deque()
        self._stopped = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._writing = RLock()
        """Held while calls are written: who drains next then knows that all before are written.
        A signal handler may flush in the middle of a drain, hence it can be taken twice."""
        self._wake = Event()
        self._thread: Thread | None = None

    def put(self, call: Any, ended_ns: int) -> None:
        """Have a call written soon; takes it off the caller's hands in under a microsecond."""
        if self._stopped or len(self._queue) >= MAX_QUEUED:
            with self._writing:  # which a fork waits for
                self._guarded_write(call, ended_ns)
            return
        self._queue.append((call, ended_ns))
        if not self._wake.is_set():
            self.wake()

    def wake(self) -> None:
        """Have the thread make a round soon, and begin it where there is none."""
        if self._thread is None and not self._stopped:
            self._start()
        self._wake.set()

    def drain(self) -> None:
        """Write all that is queued, and return when it is."""
        # As many as there are now: other threads may put calls in as fast as they are taken out.
        remaining = len(self._queue)
        while remaining > 0 and self._queue and self._acquire():
            try:
                with suppress(IndexError):  # a signal handler may drain on top of this
                    for _ in range(min(_BATCH, len(self._queue))):
                        self._guarded_write(*self._queue.popleft())
            finally:
                self._writing.release()
            remaining -= _BATCH
        if self._acquire():  # what another thread took out before is written now
            self._writing.release()

    def _acquire(self) -> bool:
        """Wait for who writes, but not for ever: a signal handler may flush on top of that very thread."""
        return self._writing.acquire(timeout=_PATIENCE_S)

    def stop(self) -> None:
        """Write what is queued, end the thread, and write everything later at once."""
        self._stopped = True
        self._wake.set()
        self.drain()

    def hold_for_fork(self) -> None:
        """Wait until nothing is being written, and keep it so until `go_on_after_fork`.

        The SDK's locks are copied into the child as they are: one that our thread held there would
        never be released.
        """
        self._writing.acquire()

    def go_on_after_fork(self) -> None:
        """Let the parent write on."""
        self._writing.release()

    def reset_after_fork(self) -> None:
        """Begin anew in a forked child: the queue is the parent's to write, and the thread is gone."""
        self._queue.clear()
        self._begin_anew()

    def _guarded_write(self, call: Any, ended_ns: int) -> None:
        try:
            self._write(call, ended_ns)
        except Exception:  # noqa: BLE001 - one bad call is no reason to lose the rest
            guard.failed("metrics")

    def _start(self) -> None:
        with self._writing:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="otel-inference-writer", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # no thread can be had: at exit, or at a limit of the system
                    self._stopped = True
                    self.drain()
                    return
                # Registered after the SDK's own, hence run before its last collection.
                atexit.register(self._at_exit)

    def _run(self) -> None:
        wake = self._wake
        with guard.guarded("start"):
            self._on_start()
        while not self._stopped:
            if wake.wait(_ROUND_S) and not self._stopped:
                sleep(_REST_S)
            wake.clear()
            with guard.guarded("round"):
                self._each_round()
            self.drain()
        atexit.unregister(self._at_exit)
