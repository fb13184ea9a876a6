"""Sends what is kept before SIGTERM ends a process that does nothing about it.

Python runs no exit handlers when a signal with the default disposition ends it, so that up to five
seconds of spans in batch processors would be lost, the failed calls among them that are the reason
why somebody looks.
"""

from __future__ import annotations

import os
import signal
from threading import Thread
from typing import TYPE_CHECKING, Final

from otel_inference import guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

FLUSH_S: Final = 2.0
"""Seconds that a flush may delay the end."""


class Termination:
    """Flushes on SIGTERM, then lets the signal end the process as it would have.

    It is put there only where nobody else handles the signal, and whoever installs a handler later
    replaces it. A server that restores the earlier handler and raises the signal again, as uvicorn
    does, gets its flush too. Python runs handlers between two steps of the main thread: a process that
    is deep inside one call of a library ends only when that call returns.

    Args:
        flush: Sends what is there. It runs on a thread of ours, because the signal may have come
            while the main thread held a lock that the flush needs.
        timeout_s: How long it may take.
    """

    def __init__(self, flush: Callable[[], object], *, timeout_s: float = FLUSH_S) -> None:
        self._flush = flush
        self._timeout_s = timeout_s

    def install(self) -> bool:
        """Handle SIGTERM from now on, unless somebody does.

        Returns:
            Whether it does; only the main thread can.
        """
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return False
        try:
            signal.signal(signal.SIGTERM, self._end)
        except ValueError:  # not the main thread
            return False
        return True

    def remove(self) -> None:
        """Leave SIGTERM as it was, if it is still handled here."""
        if signal.getsignal(signal.SIGTERM) == self._end:
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            except ValueError:  # not the main thread: it goes on flushing, which harms nobody
                return

    def _end(self, number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends it at once
        try:
            thread = Thread(target=self._run, name="otel-inference-flush", daemon=True)
            thread.start()
            thread.join(self._timeout_s)
        finally:
            os.kill(os.getpid(), number)

    def _run(self) -> None:
        with guard.guarded("termination"):
            self._flush()
