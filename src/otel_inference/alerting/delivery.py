"""Hands findings to the sinks: each has its own queue and thread, so that none can hold up another, or anybody else."""

from __future__ import annotations

import atexit
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Final

from otel_inference import guard
from otel_inference.alerting.channel import Channel
from otel_inference.alerting.retry import Retry
from otel_inference.finding import FindingChange, FindingEvent, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_inference.alerting.sink import AlertSink

MAX_QUEUED: Final = 256
"""Changes that wait for one sink; the oldest gives way."""
_EXIT_S: Final = 2.0
"""How long the interpreter's exit may wait for alerts that have not been sent."""
_RANK: Final = {severity: rank for rank, severity in enumerate(Severity)}


class Alerts:
    """Tells every sink of every finding that opens, closes or gets worse.

    Args:
        sinks: Who is told. No thread is begun before there is something to tell.
        retry: What is done about a sink that fails.
        max_queued: Changes that wait for one sink; the oldest is dropped for a new one, and counted.
    """

    def __init__(self, sinks: Iterable[AlertSink], *, retry: Retry | None = None, max_queued: int = MAX_QUEUED) -> None:
        self._open: dict[str, FindingChange] = {}
        """What is open, by key; replaced as a whole, since the threads of the sinks read it."""
        self._channels = tuple(
            Channel(number, sink, retry=retry or Retry(), max_queued=max_queued, open_findings=self._still_open)
            for number, sink in enumerate(sinks, start=1)
        )
        self._at_exit = False

    def publish(self, changes: Iterable[FindingChange]) -> None:
        """Have the sinks told. Takes microseconds, never waits, never raises.

        Changes are published in their order, by one thread at a time. An update is only told if it is worse than
        what was known.
        """
        with guard.guarded("alerts"):
            for change in changes:
                if self._note(change):
                    self._put(change)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until what has been published was sent or given up.

        Args:
            timeout_s: Seconds to wait in all.

        Returns:
            Whether it was, in time.
        """
        deadline_s = monotonic() + timeout_s
        marks = [channel.mark() for channel in self._channels]
        return all(mark.wait(max(0.0, deadline_s - monotonic())) for mark in marks)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Try each waiting alert once more, count what could not be sent, and end the threads; idempotent.

        Findings that are open stay open with their receivers; Alertmanager resolves them after five minutes.

        Args:
            timeout_s: How long to wait, in all. The thread of a sink that hangs ends once the sink answers.
        """
        deadline_s = monotonic() + timeout_s
        for channel in self._channels:
            channel.begin_to_stop()
        for channel in self._channels:
            channel.stop(max(0.0, deadline_s - monotonic()))
        atexit.unregister(self._stop_at_exit)

    def reset_after_fork(self) -> None:
        """Begin anew in a forked child: what is open or queued there is the parent's to tell."""
        self._open = {}
        for channel in self._channels:
            channel.reset_after_fork()

    def _note(self, change: FindingChange) -> bool:
        """Keep in mind what is open; returns whether the sinks are to be told."""
        key = change.finding.key
        before = self._open.get(key)
        if before is None and change.event is FindingEvent.CLOSED:
            return False  # a forked child, which does not tell of what its parent found
        others = {other: each for other, each in self._open.items() if other != key}
        self._open = others if change.event is FindingEvent.CLOSED else {**others, key: change}
        if change.event is not FindingEvent.UPDATED:
            return True
        return before is not None and _RANK[change.finding.severity] > _RANK[before.finding.severity]

    def _put(self, change: FindingChange) -> None:
        if self._channels and not self._at_exit:
            self._at_exit = True
            # Registered after the SDK's own, hence run before its last collection, which counts what was dropped.
            atexit.register(self._stop_at_exit)
        for channel in self._channels:
            channel.put(change)

    def _stop_at_exit(self) -> None:
        self.stop(_EXIT_S)

    def _still_open(self) -> list[FindingChange]:
        """What is open, as updates of now."""
        now = datetime.now(UTC)
        return [
            FindingChange(event=FindingEvent.UPDATED, finding=change.finding, at=now) for change in self._open.values()
        ]
