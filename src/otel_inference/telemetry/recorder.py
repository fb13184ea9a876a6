"""Begins and ends calls: a span while it runs, metrics when it has ended."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from threading import RLock
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from otel_inference import guard, semconv
from otel_inference.health.stretch import Exemplar
from otel_inference.naming import NameLimit
from otel_inference.nesting import SILENT, current
from otel_inference.telemetry import admission, spans
from otel_inference.telemetry.running import OwnThread, RunningCalls, claim
from otel_inference.telemetry.series import RecordedCall, Series
from otel_inference.telemetry.writer import CallWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.trace import Tracer

    from otel_inference.call import OpenCall, Stage
    from otel_inference.protocols import Announcement, Limiter
    from otel_inference.telemetry.instruments import Instruments
    from otel_inference.telemetry.registry import HealthRegistry


_SUPPRESS_KEY_OF_OLD: Final = "suppress_instrumentation"
"""What `suppress_instrumentation()` sets besides its own key; asked directly, as each call has to."""

_MAX_OPERATIONS: Final = 100
"""Names of operations kept apart; those of the engines are few, those of `observe()` are the user's."""

_MAX_LATE: Final = 256
"""Calls that may wait for their accelerator; beyond, the oldest is written without its device time."""


def _nothing() -> None:
    pass


class Recorder:
    """The `CallSink` that writes OpenTelemetry.

    Args:
        tracer: Makes the spans.
        instruments: Take the metrics of ended calls.
        health: Takes every call into its model's statistics, whatever becomes of its span.
        max_models: How many different model names are kept apart.
        stage_spans: Whether stages become child spans.
        version_of: Version of an engine's library by the engine's name, if known.
        on_first_call: Called when the first call begins, on a thread of ours.
        each_round: Called about once a second while there are calls, on a thread of ours.
        limiters: By model; tell `limit` when one comes or goes.
    """

    def __init__(
        self,
        tracer: Tracer,
        instruments: Instruments,
        *,
        health: HealthRegistry,
        max_models: int,
        stage_spans: bool,
        version_of: Callable[[str], str | None],
        on_first_call: Callable[[], None] = lambda: None,
        each_round: Callable[[], None] = lambda: None,
        limiters: Mapping[str, Limiter] | None = None,
    ) -> None:
        self._tracer = tracer
        self._instruments = instruments
        self.writer = CallWriter(self._write, on_start=on_first_call, each_round=self._round, at_exit=self.stop)
        self._each_round = each_round
        self._health = health
        self._version_of = version_of
        self._lock = RLock()  # a signal handler may call a model on top of this
        self._series: dict[tuple[str, str, str], Series] = {}
        self.running = RunningCalls(self._series)
        self._own = OwnThread()
        self._kinds: dict[str, tuple[str, str]] = {}
        """Engine and operation by model, of the kind of call that it was asked for last for the first time."""
        self._warm: set[str] = set()
        self._limiters = {} if limiters is None else limiters
        self._late: deque[tuple[RecordedCall, int]] = deque()
        """Calls that have ended and are not written yet, with the time of their end."""
        self.stage_spans = stage_spans
        self.before_call: Callable[[], None] = _nothing
        """Called in the thread of each call before it begins."""
        self._names = health.names
        self._names.limit = max_models
        self._operations = NameLimit(_MAX_OPERATIONS)

    def begin(
        self,
        engine: str,
        operation: str,
        model: str,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        input_size: int | None = None,
        usage_operation: str | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> OpenCall | None:
        """See `protocols.CallSink.begin`."""
        try:
            parent = otel_context.get_current()
            if parent.get(_SUPPRESS_INSTRUMENTATION_KEY) or parent.get(_SUPPRESS_KEY_OF_OLD):
                return None
            if self._late:
                self.close_late()
            self.before_call()
            series = self._series.get((engine, operation, model)) or self._series_of(engine, operation, model)
            call = RecordedCall(engine, operation, series.model)
            call.series = series
            call.limited = series.limiter is not None
            call.device = device
            call.batch_size = batch_size
            call.input_size = input_size
            call.usage_operation = usage_operation
            if request is not None:
                call.request = request
            if operation != semconv.LOAD and series.model not in self._warm:
                call.cold = self._first_of(series.model)
                self.writer.wake()  # a call that hangs is to be found though none ever ended
            self._open_or_undo(call, parent)
        except Exception:  # noqa: BLE001 - the host's call goes on uncounted
            guard.failed("begin")
            return None
        return call

    def _open_or_undo(self, call: RecordedCall, parent: otel_context.Context) -> None:
        before = current.get()
        # What a span processor or a sampler calls is no call of the host's.
        current.set(SILENT)
        call.token = None
        try:
            self._open(call, parent, before)
        except BaseException:
            # A signal may come at any point: nothing of a call that was not begun may stay current.
            call.series.running.discard(call)
            if call.token is not None:
                otel_context.detach(call.token)
            current.set(before)
            raise

    def _open(self, call: RecordedCall, parent: otel_context.Context, before: OpenCall | None) -> None:
        series = call.series
        call.begun_as = _begun_as(call)
        call.started_unix_ns = time_ns()
        call.span = self._tracer.start_span(
            series.span_name,
            parent,
            SpanKind.INTERNAL,
            {**series.attributes, **spans.begin_attributes(call)},
            start_time=call.started_unix_ns,
        )
        call.context = set_span_in_context(call.span, parent)
        current.set(before)
        self.enter(call)
        call.started_ns = perf_counter_ns()
        series.running.add(call)

    def admit(self, call: RecordedCall) -> None:
        """See `protocols.CallSink.admit`."""
        if call.series.limiter is not None:
            admission.admit(call, call.series.limiter)

    async def admit_async(self, call: RecordedCall) -> None:
        """See `protocols.CallSink.admit_async`."""
        if call.series.limiter is not None:
            await admission.admit_async(call, call.series.limiter)

    def announce(self, model: str) -> Announcement | None:
        """See `protocols.CallSink.announce`. A model that was not called yet is not known well enough to be turned away."""
        limiter, kind = self._limiters.get(model), self._kinds.get(model)
        if limiter is None or kind is None:
            return None
        return admission.announce(self, limiter, *kind, model)

    def limit(self, model: str) -> None:
        """Take over what has become of the limiter of `model`; loads are not limited."""
        with self._lock:
            for (_, operation, name), series in self._series.items():
                if name == model and operation != semconv.LOAD:
                    series.limiter = self._limiters.get(model)

    def enter(self, call: RecordedCall) -> None:
        """Make `call` and its span current in this context, until `leave`."""
        call.token = otel_context.attach(call.context)
        call.before = current.get()
        current.set(call)
        call.thread = self._own.native_id

    def leave(self, call: RecordedCall) -> None:
        """Make current again what was before `enter`."""
        if call.token is None:
            return
        token, call.token, call.thread = call.token, None, None
        # Ended elsewhere than it was begun, in another task or thread, there is nothing to put back here.
        if current.get() is call:
            current.set(call.before)
            otel_context.detach(token)
        call.before = None

    def end(self, call: RecordedCall, error: BaseException | None = None) -> None:
        """See `protocols.CallSink.end`."""
        ended_ns = perf_counter_ns()
        if not claim(call):
            return
        try:
            if call.permit is not None:
                admission.release(call, ok=error is None and not call.cold)
            if call.timer is not None:
                call.timer.stop()
                if error is None and call.timer.waits():
                    self.leave(call)
                    self._late.append((call, ended_ns))
                    return
            self._close(call, ended_ns, error)
        except Exception:  # noqa: BLE001 - the host has its result already
            guard.failed("end")

    def abandon(self, call: RecordedCall) -> None:
        """See `protocols.CallSink.abandon`.

        A finalizer may run anywhere, also inside the SDK with its locks held, which are not
        re-entrant. It only takes the call off the running ones; the next call writes it.
        """
        ended_ns = perf_counter_ns()
        if claim(call):
            call.timer = None
            admission.release(call, ok=False)  # places may be given back from a finalizer
            self._late.append((call, ended_ns))

    def close_late(self, *, wait: bool = True) -> None:
        """Write the calls that were abandoned, and those whose accelerator is done, oldest first.

        Args:
            wait: Whether calls whose accelerator is still at work may wait for a later time.
        """
        with suppress(IndexError):  # another thread may take the last one
            while self._late:
                timer = self._late[0][0].timer
                if wait and timer is not None and timer.waits() and len(self._late) < _MAX_LATE:
                    return
                call, ended_ns = self._late.popleft()
                with guard.guarded("end"):
                    self._close(call, ended_ns, None)

    def _close(self, call: RecordedCall, ended_ns: int, error: BaseException | None) -> None:
        ended_unix_ns = call.started_unix_ns + ended_ns - call.started_ns
        self.leave(call)
        before = current.get()
        current.set(SILENT)  # what a span processor calls is no call of the host's
        try:
            if error is not None:
                call.error_type = spans.error_type(error)
            if call.model != call.series.model:
                self._rename(call)
            self.writer.put(call, ended_ns)
            if call.span.is_recording():
                _describe_end(call, error, ended_unix_ns)
                if self.stage_spans and call.stages is not None:
                    self._write_stages(call, call.stages)
        finally:
            try:
                call.span.end(ended_unix_ns)
            finally:
                current.set(before)

    def _write(self, call: RecordedCall, ended_ns: int) -> None:
        """Add an ended call to the metrics and to its model's health; off the path of the call."""
        record = call.closed(ended_ns)
        statistics = call.series.statistics
        if statistics is not None:
            context = call.span.get_span_context()
            statistics.ended(
                ended_ns / 1e9,
                record.duration_s,
                failed=record.failed,
                cold=record.cold,
                size=record.input_size,
                output_tokens=None if record.usage is None else record.usage.output_tokens,
                rejected=record.rejected,
                queue_s=0.0 if record.queue_ns is None else record.queue_ns / 1e9,
                stage_ns=call.stage_ns,
                device_s=record.device_duration_s,
                exemplar=Exemplar(context.trace_id, context.span_id) if context.is_valid else None,
            )
        self._instruments.record(record, call.series.metric_attributes, call.context)

    def _round(self) -> None:
        self.close_late()
        self._each_round()

    def flush(self) -> None:
        """Write all calls that have ended, except those whose accelerator is still at work."""
        self.close_late()
        self.writer.drain()

    def stop(self) -> None:
        """Write all calls that have ended; later ones are written at once."""
        self.close_late(wait=False)
        self.writer.stop()

    def _write_stages(self, call: RecordedCall, stages: list[Stage]) -> None:
        """One child span for each stretch of a stage, after the fact."""
        offset_ns = call.started_unix_ns - call.started_ns
        for stage in stages:
            span = self._tracer.start_span(
                f"{stage.name} {call.model}",
                call.context,
                SpanKind.INTERNAL,
                {semconv.STAGE: stage.name, semconv.MODEL: call.model},
                start_time=offset_ns + stage.started_ns,
            )
            span.end(offset_ns + stage.ended_ns)

    def _rename(self, call: RecordedCall) -> None:
        """Take over a name that was known only at the end (a model loaded from bytes)."""
        call.series = self._series_of(call.engine, call.operation, call.model)
        call.model = call.series.model
        call.span.update_name(call.series.span_name)
        call.span.set_attribute(semconv.MODEL, call.model)

    def _series_of(self, engine: str, operation: str, model: str) -> Series:
        with self._lock:
            name = self._names.admit(model)
            operation = self._operations.admit(operation)
            series = self._series.get((engine, operation, name))
            if series is None:
                statistics = None if operation == semconv.LOAD else self._health.of(name)
                made = Series(engine, operation, name, version=self._version_of(engine), statistics=statistics)
                if statistics is not None:
                    made.limiter = self._limiters.get(name)
                    self._kinds[name] = engine, operation
                series = self._series.setdefault((engine, operation, name), made)
        # With no lock held: a log handler may do anything, also call a model.
        self._names.warn_once()
        return series

    def _first_of(self, model: str) -> bool:
        with self._lock:
            first = model not in self._warm
            self._warm.add(model)
            return first

    def limit_models(self, limit: int) -> None:
        """Keep at most `limit` model names apart from now on."""
        self._names.limit = limit

    def reset_after_fork(self) -> None:
        """Forget the calls that ran in the parent: they go on there, not here."""
        self._lock = RLock()
        self.running.forget()
        self._own = OwnThread()
        self._series.clear()
        self._kinds.clear()
        self._late.clear()
        self.writer.reset_after_fork()


def _describe_end(call: RecordedCall, error: BaseException | None, ended_unix_ns: int) -> None:
    """Write to the span what was not known when it began."""
    attributes = spans.end_attributes(call)
    if _begun_as(call) != call.begun_as:
        attributes.update(spans.begin_attributes(call))
    if attributes:
        call.span.set_attributes(attributes)
    if error is not None:
        call.span.set_status(Status(StatusCode.ERROR, _text_of(error)))
        if call.rejected:  # many of them come just when there is no time to format tracebacks, which all say the same
            return
        with guard.guarded("exception"):  # an exception may fail to say what it is
            call.span.record_exception(error, timestamp=ended_unix_ns, escaped=True)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the host's own class, doing what it likes
        return f"{type(error).__name__} (its text cannot be had)"


def _begun_as(call: OpenCall) -> tuple[Any, ...]:
    """What may come to be known only while a call runs."""
    return (call.device, call.batch_size, call.input_size, call.cold)
