"""Gives tuners their windows, on a thread of ours: a knob may take seconds to turn."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final

from otel_inference import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_inference.health.stretch import Stretch
    from otel_inference.maintenance.tuner import Tuner
    from otel_inference.maintenance.tuning import TuningRecord

THREAD_NAME: Final = "otel-inference-tuning"
MAX_WAITING: Final = 32
"""Stretches that may wait; a tuner that is this far behind is stuck in a knob and learns nothing from more."""


class TuningFeed:
    """Hands the completed stretches of each model to its tuner.

    Args:
        tuners: By model; who is in it when a stretch is fed gets it.
        report: Told of everything a tuner does, with its model, on the same thread.
    """

    def __init__(self, tuners: Mapping[str, Tuner], report: Callable[[str, TuningRecord], None]) -> None:
        self._tuners = tuners
        self._report = report
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Begin anew: the thread does not exist in a forked child."""
        self._lock = Lock()
        self._waiting: SimpleQueue[tuple[str, Stretch, float] | None] = SimpleQueue()
        self._thread: Thread | None = None

    def feed(self, stretches: Mapping[str, Sequence[Stretch]], now_s: float) -> None:
        """Take in what was completed, idle stretches too; returns at once.

        Args:
            stretches: By model, oldest first.
            now_s: The present, on their clock.
        """
        for model in list(self._tuners):
            for stretch in stretches.get(model, ()):
                if self._waiting.qsize() >= MAX_WAITING:
                    guard.dropped("tuning")
                    return
                self._waiting.put((model, stretch, now_s))
        if not self._waiting.empty():
            self._start()

    def stop(self) -> None:
        """End the thread once it has done what waits."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread = None

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = Thread(target=self._serve, args=(self._waiting,), name=THREAD_NAME, daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # no thread can be had: at exit, or at a limit of the system
                    self._thread = None
                    guard.dropped("tuning")

    def _serve(self, waiting: SimpleQueue[tuple[str, Stretch, float] | None]) -> None:
        while (task := waiting.get()) is not None:
            model, stretch, now_s = task
            tuner = self._tuners.get(model)
            if tuner is not None:
                with guard.guarded("tuning"):
                    for record in tuner.observe(stretch, now_s=now_s):
                        self._report(model, record)
