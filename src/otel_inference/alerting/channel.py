"""One sink, what it has yet to be told, and the thread that tells it."""

from __future__ import annotations

import logging
import traceback
from collections import deque
from pathlib import Path
from random import random
from threading import Event, Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference import guard
from otel_inference.alerting.sink import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_inference.alerting.retry import Retry
    from otel_inference.alerting.sink import AlertSink
    from otel_inference.finding import FindingChange

_LOG_EVERY: Final = 100

_log = logging.getLogger("otel_inference")


class _Queued(NamedTuple):
    change: FindingChange
    since_s: float


class Channel:
    """Tells one sink, one change at a time and in order, on a thread that begins with the first.

    Args:
        number: Tells the threads apart.
        sink: Who is told.
        retry: What is done when it fails.
        max_queued: Changes that wait; the oldest is dropped for a new one, and counted.
        open_findings: What a sink with `refresh_s` is told again.
    """

    def __init__(
        self,
        number: int,
        sink: AlertSink,
        *,
        retry: Retry,
        max_queued: int,
        open_findings: Callable[[], Sequence[FindingChange]],
    ) -> None:
        self._sink = sink
        self._where = f"alerts.{sink.name}"
        self._thread_name = f"otel-inference-alerts-{number}"
        self._refresh_s: float | None = getattr(sink, "refresh_s", None)
        self._retry = retry
        self._max_queued = max_queued
        self._open_findings = open_findings
        self._failures = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._queue: deque[_Queued | Event] = deque()
        """Changes, and marks: events that are set once all before them is done."""
        self._lock = Lock()
        self._wake = Event()
        self._stopping = Event()
        self._thread: Thread | None = None

    def put(self, change: FindingChange) -> None:
        """Have the sink told soon; what is put after `stop` is dropped."""
        if self._stopping.is_set():
            guard.dropped(self._where)
            return
        while len(self._queue) >= self._max_queued:
            self._drop_oldest()
        self._queue.append(_Queued(change, monotonic()))
        self._start()

    def mark(self) -> Event:
        """An event that is set once what was put before is sent or given up."""
        mark = Event()
        if self._thread is None and not self._queue:
            mark.set()
        else:
            self._queue.append(mark)
            self._start()
        return mark

    def begin_to_stop(self) -> None:
        """Let the thread end once it has tried what waits; does not wait for it."""
        self._stopping.set()
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """Wait for the thread, which `begin_to_stop` has told to end, and drop what it did not get to."""
        if self._lock.acquire(timeout=timeout_s):  # a thread that is just being begun cannot be waited for
            self._lock.release()
        thread = self._thread
        if thread is not None and thread is not current_thread() and thread.is_alive():
            thread.join(timeout_s)
        while self._queue:
            self._drop_oldest()

    def reset_after_fork(self) -> None:
        """Begin anew: the queue is the parent's, and the thread is not here. A stopped channel stays stopped."""
        stopped = self._stopping.is_set()
        self._begin_anew()
        if stopped:
            self._stopping.set()

    def _start(self) -> None:
        self._wake.set()
        # Not to wait matters to a signal handler that publishes while this runs below it.
        if self._thread is not None or not self._lock.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = Thread(
                    target=self._run, args=(self._wake, self._stopping), name=self._thread_name, daemon=True
                )
                self._thread = thread
                thread.start()
        except Exception:  # noqa: BLE001 - no thread can be had: at exit, or at a limit; the next change tries again
            self._thread = None
            guard.failed("alerts")
        finally:
            self._lock.release()

    def _run(self, wake: Event, stopping: Event) -> None:
        try:
            refreshed_s = monotonic()
            while not stopping.is_set():
                wake.wait(None if self._refresh_s is None else max(0.0, refreshed_s + self._refresh_s - monotonic()))
                wake.clear()
                self._empty(stopping)
                if self._refresh_s is not None and monotonic() - refreshed_s >= self._refresh_s:
                    refreshed_s = monotonic()
                    self._refresh()
            self._empty(stopping)
        finally:
            self._thread = None

    def _empty(self, stopping: Event) -> None:
        while (queued := self._next()) is not None:
            if isinstance(queued, Event):
                queued.set()
            else:
                self._deliver(queued, stopping)

    def _next(self) -> _Queued | Event | None:
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def _drop_oldest(self) -> None:
        queued = self._next()
        if isinstance(queued, Event):
            queued.set()
        elif queued is not None:
            guard.dropped(self._where)

    def _deliver(self, queued: _Queued, stopping: Event) -> None:
        """Tell the sink of one change, until it takes it or the change is given up."""
        failures = 0
        while (error := self._attempt([queued.change])) is not None:
            failures += 1
            is_final = isinstance(error, DeliveryError) and error.is_final
            if is_final or stopping.is_set() or self._retry.gives_up(failures, monotonic() - queued.since_s):
                guard.dropped(self._where)
                return
            stopping.wait(self._retry.delay_s(failures, random()))  # noqa: S311 - keeps no secret

    def _refresh(self) -> None:
        """Say what is still open. A failure drops nothing: it is said again the next time."""
        still_open = self._open_findings()
        if still_open:
            self._attempt(still_open)

    def _attempt(self, changes: Sequence[FindingChange]) -> BaseException | None:
        try:
            self._sink.send(changes)
        except BaseException as error:  # noqa: BLE001 - this thread is ours: not even `sys.exit` in a sink is to end it
            self._failures += 1
            if self._failures % _LOG_EVERY == 1:
                _log.warning("alert sink %s failed (%d so far): %s", self._sink.name, self._failures, _reason(error))
            return error
        return None


def _reason(error: BaseException) -> str:
    """What may be said of it: messages of HTTP libraries hold addresses, and addresses hold secrets."""
    if isinstance(error, DeliveryError):
        return str(error)
    *_, place = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {place.name}, {Path(place.filename).name}:{place.lineno}"
