"""Takes metrics off the path of a call: they are queued there and recorded by a thread of ours.

One measurement costs the SDK 10 to 25 us, and a call has two to seven of them. A call only puts
itself into a queue; the thread folds it into the instruments soon after, usually while the engine
computes with the interpreter's lock released. Nothing is lost or seen late by it: a collection
folds what is queued first (the SDK asks observable instruments before it reads the others), so
does a flush, and a call that finds the queue full is recorded at once, by itself.
"""

from __future__ import annotations

import atexit
from collections import deque
from threading import Event, Lock, Thread
from time import sleep
from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_inference import guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context

    from otel_inference.call import Call

MAX_QUEUED: Final = 2048
_REST_S: Final = 0.05
"""Between two rounds, so that under load a round takes many calls and the thread wakes seldom."""


class EndedCall(Protocol):
    """What is queued: a call that knows how to become a record."""

    context: Context

    def closed(self, ended_ns: int) -> Call:
        """The record of the call, ended at `ended_ns`."""
        ...


class MetricWriter:
    """A bounded queue of ended calls, and the thread that records them.

    Args:
        record: Records one call; gets its record, the attributes of its series and its context.
    """

    def __init__(self, record: Callable[[Call, dict[str, Any], Context], None]) -> None:
        self._record = record
        self._queue: deque[tuple[EndedCall, int, dict[str, Any]]] = deque()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._folding = Lock()
        """Held while calls are recorded: who drains next then knows that all before are recorded."""
        self._wake = Event()
        self._thread: Thread | None = None
        self._stopped = False

    def put(self, call: EndedCall, ended_ns: int, attributes: dict[str, Any]) -> None:
        """Have a call recorded soon; takes it off the caller's hands in under a microsecond."""
        if len(self._queue) >= MAX_QUEUED or self._stopped:
            self._fold(call, ended_ns, attributes)
            return
        self._queue.append((call, ended_ns, attributes))
        if not self._wake.is_set():
            if self._thread is None:
                self._start()
            self._wake.set()

    def drain(self) -> None:
        """Record all that is queued, and return when it is."""
        with self._folding:
            # As many as there are now: other threads may put calls in as fast as they are taken out.
            for _ in range(len(self._queue)):
                self._fold(*self._queue.popleft())

    def stop(self) -> None:
        """Record what is queued, and everything later at once."""
        self._stopped = True
        self._wake.set()
        self.drain()

    def reset_after_fork(self) -> None:
        """Begin anew in a forked child: the queue is the parent's to record, and the thread is gone."""
        self._queue.clear()
        self._begin_anew()

    def _fold(self, call: EndedCall, ended_ns: int, attributes: dict[str, Any]) -> None:
        try:
            self._record(call.closed(ended_ns), attributes, call.context)
        except Exception:  # noqa: BLE001 - one bad record is no reason to lose the rest
            guard.failed("metrics")

    def _start(self) -> None:
        with self._folding:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="otel-inference-metrics", daemon=True)
                self._thread.start()
                # Registered after the SDK's own, hence run before its last collection.
                atexit.register(self.stop)

    def _run(self) -> None:
        wake = self._wake
        while not self._stopped and wake is self._wake:
            wake.wait()
            sleep(_REST_S)
            wake.clear()
            self.drain()
        atexit.unregister(self.stop)
