"""The thread that reads the probes: begun with the first call of a model, never at import."""

from __future__ import annotations

import time
from random import Random
from threading import Event, Lock, Thread, current_thread
from typing import TYPE_CHECKING, Final

from otel_inference import guard
from otel_inference.resources.reading import Reading, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_inference.resources.reading import Probe

_SHARE: Final = 0.004
"""Of one core, for reading. Where it costs more, as beside hundreds of descendants, it is done less often."""
_GLANCES_S: Final = (0.05, 0.15)
"""Between two glances."""
_GLANCES_SHARE: Final = 0.001
"""Of one core, for glances. Where one costs more, as beside thousands of running calls, they are fewer."""
_RETRY_MAX_S: Final = 60.0
_DOUBLINGS: Final = 6
THREAD_NAME: Final = "otel-inference-resources"


class ResourceSampler:
    """Reads every probe once an interval and keeps the latest reading.

    A probe that fails is counted as `probe.<name>` and left alone for 2, 4, 8, ... intervals, at most a
    minute; the others are read as always.

    Args:
        probes: Closed when the thread ends. Of two that see the same thing, the earlier is believed.
        interval_s: Pause between two readings; longer where they cost more than 0.4 % of a core.
        clock: Stamps them.
        work_clock: CPU seconds of this thread.
        on_tick: Called with each reading, on this thread.
        glance: Called some ten times a second between the readings, on this thread, for what is soon over; more seldom
            where it costs more than 0.1 % of a core.
    """

    def __init__(
        self,
        probes: Iterable[Probe],
        *,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] = time.thread_time,
        on_tick: Callable[[Reading], None] | None = None,
        glance: Callable[[], None] | None = None,
    ) -> None:
        self._watched = tuple(_Watched(probe, interval_s) for probe in probes)
        self._interval_s = interval_s
        self._clock = clock
        self._work_clock = work_clock
        self._worked_s = 0.0
        self._on_tick = on_tick
        self._glance = glance
        self._glance_at_s = float("-inf")
        self._random = Random()  # noqa: S311 - times of glances; the host's own generator stays as it is
        self._lock = Lock()
        self._thread: Thread | None = None
        self._stopping = Event()
        self._latest: Reading | None = None

    def start(self) -> None:
        """Begin to read, unless it is being done. Cheap enough for every call of a model; never raises, never waits."""
        # Not to wait matters to a signal handler that calls a model while this runs below it.
        if self._thread is not None or not self._lock.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                self._stopping = Event()
                thread = Thread(target=self._run, args=(self._stopping,), name=THREAD_NAME, daemon=True)
                self._thread = thread
                thread.start()
        except Exception:  # noqa: BLE001 - no thread can be had: at exit, or at a limit
            self._thread = None
            guard.failed("sampler")
        finally:
            self._lock.release()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread and leave nothing behind; idempotent, and possible from `on_tick`.

        Args:
            timeout_s: How long to wait for a probe that hangs. Its thread ends by itself once it answers,
                and until then no other is begun.
        """
        # Not to wait for ever matters to a signal handler that stops while `start` runs below it.
        if self._lock.acquire(timeout=timeout_s):
            self._lock.release()
        thread = self._thread
        self._stopping.set()
        if thread is not None and thread is not current_thread() and thread.is_alive():
            thread.join(timeout_s)
        self._latest = None

    def latest(self) -> Reading | None:
        """The last reading; `None` before the first and after `stop`. Its `at_s` tells how old it is."""
        return self._latest

    def reset_after_fork(self) -> None:
        """Begin anew in a forked child, where the thread does not exist; the next `start` brings one."""
        self._lock = Lock()
        self._stopping = Event()
        self._thread = None
        self._latest = None
        for watched in self._watched:
            watched.reset_after_fork()

    def _run(self, stopping: Event) -> None:
        try:
            while not stopping.is_set():
                self._rest(stopping, self._tick(stopping))
        finally:
            try:
                for watched in self._watched:
                    watched.close()
            finally:
                self._thread = None

    def _rest(self, stopping: Event, rest_s: float) -> None:
        """Wait until the next reading, with glances at irregular times, so that no regular traffic hides between them."""
        if self._glance is None:
            stopping.wait(rest_s)
            return
        until_s = time.monotonic() + rest_s
        while not stopping.wait(max(0.0, min(until_s, self._glance_at_s) - time.monotonic())):
            if time.monotonic() >= until_s:
                return
            began_s = self._work_clock()
            with guard.guarded("glance"):
                self._glance()
            pause_s = max(self._random.uniform(*_GLANCES_S), (self._work_clock() - began_s) / _GLANCES_SHARE)
            self._glance_at_s = time.monotonic() + pause_s

    def _tick(self, stopping: Event) -> float:
        """Read all probes once; returns how long to wait until the next time."""
        at_s, began_s = self._clock(), self._work_clock()
        parts = [part for watched in self._watched if (part := watched.read(at_s)) is not None]
        reading = merged(at_s, parts)
        before_s, self._worked_s = self._worked_s, self._work_clock() - began_s
        if not stopping.is_set():  # nobody is to see a reading after `stop`
            self._latest = reading
            if self._on_tick is not None:
                with guard.guarded("tick"):
                    self._on_tick(reading)
        # What was dear once, such as loading a library, is not what a reading costs.
        return max(self._interval_s, min(before_s, self._worked_s) / _SHARE)


class _Watched:
    """A probe, and when it may be tried again."""

    __slots__ = ("_failures", "_interval_s", "_probe", "_retry_at_s")

    def __init__(self, probe: Probe, interval_s: float) -> None:
        self._probe = probe
        self._interval_s = interval_s
        self._failures = 0
        self._retry_at_s = float("-inf")

    def read(self, at_s: float) -> Reading | None:
        """What the probe saw; `None` if it failed or is left alone."""
        if at_s < self._retry_at_s:
            return None
        try:
            reading = self._probe.read(at_s)
        except Exception:  # noqa: BLE001 - one probe's failure is no other's
            self._failures = min(self._failures + 1, _DOUBLINGS)
            self._retry_at_s = at_s + min(self._interval_s * 2**self._failures, _RETRY_MAX_S)
            guard.failed(f"probe.{self._probe.name}")
            return None
        self._failures = 0
        return reading

    def close(self) -> None:
        """Close the probe."""
        self._failures, self._retry_at_s = 0, float("-inf")
        with guard.guarded(f"probe.{self._probe.name}"):
            self._probe.close()

    def reset_after_fork(self) -> None:
        """Make the probe forget the parent."""
        self._failures, self._retry_at_s = 0, float("-inf")
        with guard.guarded(f"probe.{self._probe.name}"):
            self._probe.reset_after_fork()
