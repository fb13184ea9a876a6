"""Which calls run now."""

from __future__ import annotations

from collections import Counter
from threading import get_native_id, local
from typing import TYPE_CHECKING

from otel_inference import semconv
from otel_inference.call import ENDED
from otel_inference.health.stretch import Exemplar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otel_inference.telemetry.series import RecordedCall, Series


def claim(call: RecordedCall) -> bool:
    """Take `call` off the running ones; only one taker succeeds."""
    try:
        call.series.running.remove(call)
    except KeyError:
        return False
    call.watched = ENDED
    return True


class OwnThread(local):
    """The thread that asks. Each asks the kernel once only; a forked child needs another one of these."""

    def __init__(self) -> None:
        self.native_id = get_native_id()


class RunningCalls:
    """The calls of models that run now, loads of models left out; any thread may ask.

    Args:
        series: By engine, operation and model. Who records calls adds to them and keeps what runs in each.
    """

    def __init__(self, series: Mapping[tuple[str, str, str], Series]) -> None:
        self._series = series

    def begun_s(self, model: str) -> list[float]:
        """When the calls of `model` that run now began, in seconds of `time.perf_counter`."""
        return [call.started_ns / 1e9 for call in self._of(model)]

    def oldest(self, model: str) -> Exemplar | None:
        """The span of the call of `model` that has been running longest, if one runs and has one."""
        oldest = min(self._of(model), key=lambda call: call.started_ns, default=None)
        if oldest is None:
            return None
        context = oldest.span.get_span_context()
        return Exemplar(context.trace_id, context.span_id) if context.is_valid else None

    def threads(self) -> set[int]:
        """The kernel's ids of the threads that run calls now; those that wait for a place are not among them."""
        return {
            call.thread
            for _, _, series in self._known()
            for call in list(series.running)
            if call.thread is not None and (call.permit is not None or not call.limited)
        }

    def counts(self) -> Iterable[tuple[str, str, int]]:
        """Engine, model and number of calls running now, zero included."""
        counts: Counter[tuple[str, str]] = Counter()
        for engine, model, series in self._known():
            counts[engine, model] += len(series.running)
        return [(engine, model, count) for (engine, model), count in counts.items()]

    def forget(self) -> None:
        """Take every call for ended, loads too: after a fork they go on in the parent, not here."""
        for series in self._series.values():
            for call in series.running:
                call.watched = ENDED
            series.running.clear()

    def _of(self, model: str) -> list[RecordedCall]:
        return [call for _, name, series in self._known() if name == model for call in list(series.running)]

    def _known(self) -> Iterator[tuple[str, str, Series]]:
        """Engine, model and series of calls; the copy, as that of what runs, is for the threads that begin and end calls."""
        for (engine, operation, model), series in list(self._series.items()):
            if operation != semconv.LOAD:
                yield engine, model, series
