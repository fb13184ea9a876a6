"""The statistics of every model in this process, behind locks that are held for microseconds.

Windows and sketches (`health`) are arithmetic; here are the clock, the locks and the bound on the
number of models. One registry serves the process, whoever feeds it: the recorder with our own
calls, recorded or not, and `HealthSpanProcessor` with the spans of other instrumentations.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from math import inf
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING, Final

from otel_inference.health.concurrency import Concurrency
from otel_inference.health.horizon import HorizonCounts
from otel_inference.health.stretch import STRETCH_S, Stretch
from otel_inference.health.window import SlidingWindow
from otel_inference.naming import NameLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otel_inference.health.stretch import Exemplar
    from otel_inference.health.window import WindowSnapshot


_REMEMBERED_SPANS: Final = 1024
_KEPT_STRETCHES: Final = 2
"""What an evaluation that could not run for a while still finds, within the memory that a model may have."""


class ModelStatistics:
    """One model's window, horizons, stretches and calls in flight, behind one lock.

    Attributes:
        calls: Calls ended since it was made.
        errors: Failed ones of them.
        slow_after_s: Latency objective: a successful call that takes longer counts as slow.
        born_s: When its first call began, on the registry's clock.
    """

    __slots__ = (
        "_clock", "_completed", "_concurrency", "_horizons", "_lock", "_stretch", "_window", "born_s", "calls",
        "errors", "slow_after_s",
    )  # fmt: skip

    def __init__(self, width_s: float, clock: Callable[[], float], born_s: float) -> None:
        self._clock = clock
        self._lock = RLock()  # a signal handler may ask for health on top of a call that is being added
        self._window = SlidingWindow(width_s=width_s, born_s=born_s)
        self._concurrency = Concurrency(width_s=width_s, born_s=born_s)
        self._horizons = HorizonCounts()
        self._stretch = Stretch(born_s, born_s + STRETCH_S)
        self._completed: deque[Stretch] = deque(maxlen=_KEPT_STRETCHES)
        self.calls = 0
        self.errors = 0
        self.slow_after_s = inf
        self.born_s = born_s

    def ended(  # noqa: PLR0913 - the facts of a call that something is computed from
        self,
        ended_s: float,
        duration_s: float,
        *,
        failed: bool,
        cold: bool,
        size: int | None,
        output_tokens: int | None = None,
        queue_s: float = 0.0,
        rejected: bool = False,
        stage_ns: Mapping[str, int] | None = None,
        device_s: float | None = None,
        exemplar: Exemplar | None = None,
    ) -> None:
        """A call has ended.

        Args:
            ended_s: When, on the registry's clock.
            duration_s: How long it took.
            failed: Whether it failed.
            cold: Whether its duration says nothing about later ones.
            size: Tokens or elements of its input, if known.
            output_tokens: Tokens it wrote, if it did.
            queue_s: How long it waited before it was worked on.
            rejected: Whether a limiter turned it away; it then counts as failed and in no latency.
            stage_ns: Nanoseconds spent in its stages, where its engine tells them.
            device_s: Seconds that an accelerator worked on it, if timed.
            exemplar: Its span.
        """
        with self._lock:
            self._window.add(ended_s, duration_s, failed=failed, cold=cold, rejected=rejected, size=size)
            self._horizons.add(ended_s, failed=failed, slow=duration_s > self.slow_after_s and not failed)
            self._concurrency.add(ended_s - duration_s, ended_s)
            stretch = self._stretch
            if ended_s >= stretch.ended_s:
                stretch = self._next_stretch(ended_s)
            stretch.add(
                duration_s,
                failed=failed,
                rejected=rejected,
                cold=cold,
                input_size=size,
                output_tokens=output_tokens,
                queue_s=queue_s,
                exemplar=exemplar,
            )
            if not (failed or cold):  # they are set against the durations, and those are of such calls
                if stage_ns is not None:
                    stretch.add_stages(stage_ns)
                if device_s is not None:
                    stretch.device_s += device_s
            self.calls += 1
            self.errors += failed

    def snapshot(self, running_since_s: Iterable[float] = ()) -> tuple[WindowSnapshot, float]:
        """The window now, and the mean number of calls in flight over it.

        Args:
            running_since_s: When the calls that still run began, on the registry's clock.
        """
        with self._lock:
            now_s = self._clock()
            return self._window.snapshot(now_s), self._concurrency.mean(now_s, running_since_s)

    def counts(self, horizon_s: float) -> tuple[int, int]:
        """Calls and errors of the last `horizon_s` seconds, at most six hours."""
        with self._lock:
            return self._horizons.counts(horizon_s, self._clock())

    def slow_counts(self, horizon_s: float) -> tuple[int, int]:
        """Successful calls of the last `horizon_s` seconds, and those of them slower than the objective."""
        with self._lock:
            return self._horizons.slow_counts(horizon_s, self._clock())

    @property
    def has_objective(self) -> bool:
        """Whether slow calls are told from others."""
        return self.slow_after_s < inf

    def take_stretches(self) -> tuple[Stretch, ...]:
        """The stretches of ten seconds completed since this was last asked, idle ones too, oldest first.

        After a long time without being asked only the latest are there.
        """
        with self._lock:
            now_s = self._clock()
            if now_s >= self._stretch.ended_s:
                self._next_stretch(now_s)
            taken = tuple(self._completed)
            self._completed.clear()
            return taken

    def _next_stretch(self, at_s: float) -> Stretch:
        self._completed.append(self._stretch)
        idle = int((at_s - self._stretch.ended_s) / STRETCH_S)
        ended_s = self._stretch.ended_s
        for index in range(max(0, idle - _KEPT_STRETCHES), idle):
            started_s = ended_s + index * STRETCH_S
            self._completed.append(Stretch(started_s, started_s + STRETCH_S))
        started_s = ended_s + idle * STRETCH_S
        self._stretch = Stretch(started_s, started_s + STRETCH_S)
        return self._stretch


class HealthRegistry:
    """Statistics by model name.

    Args:
        width_s: Seconds of the window.
        max_models: How many names are kept apart; later ones share `other`.
        clock: Monotonic seconds, on which calls also give the times of their ends.
    """

    def __init__(
        self, *, width_s: float = 60.0, max_models: int = 100, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._width_s = width_s
        self._clock = clock
        self._lock = RLock()  # a finalizer may end another instrumentation's span on top of this
        self.names = NameLimit(max_models)
        """One limit for the models of our own calls and of other instrumentations' spans."""
        self._models: dict[str, ModelStatistics] = {}
        self.slow_after: Callable[[str], float] = lambda _: inf
        """Latency objective of a model in seconds, asked when its statistics are made."""
        self.is_fed = False
        """Whether an installation counts its calls here, so that other spans are to be judged too."""
        self._judged: OrderedDict[int, None] = OrderedDict()

    def now_s(self) -> float:
        """The present on the registry's clock."""
        return self._clock()

    def of(self, model: str, *, age_s: float = 0.0) -> ModelStatistics:
        """The statistics of `model`, made at its first call.

        Args:
            model: Its name.
            age_s: How long ago that first call began.

        Whoever calls this with no lock held says afterwards what became of a name (`names.warn_once`).
        """
        found = self._models.get(model)
        if found is not None:
            return found
        with self._lock:
            name = self.names.admit(model)
            found = self._models.get(name)
            if found is None:
                made = ModelStatistics(self._width_s, self._clock, self._clock() - age_s)
                made.slow_after_s = self.slow_after(name)
                found = self._models.setdefault(name, made)
        return found

    def is_first_look(self, span_id: int) -> bool:
        """Whether a span is seen for the first time: several processors may be attached."""
        with self._lock:
            first = span_id not in self._judged
            self._judged[span_id] = None
            if len(self._judged) > _REMEMBERED_SPANS:
                self._judged.popitem(last=False)
            return first

    def models(self) -> dict[str, ModelStatistics]:
        """All statistics by name, as they are now."""
        return dict(self._models)

    def reset(self, *, width_s: float, max_models: int) -> None:
        """Begin anew, with these bounds."""
        with self._lock:
            self._width_s = width_s
            self.names = NameLimit(max_models)
            self._models = {}

    def reset_after_fork(self) -> None:
        """Make the locks usable in a forked child, and count its calls only."""
        self._lock = RLock()
        self._models = {}


registry = HealthRegistry()
"""The one of this process."""
os.register_at_fork(after_in_child=registry.reset_after_fork)
