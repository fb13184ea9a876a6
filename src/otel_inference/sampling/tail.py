"""`TailKeep`: failed and slow calls are exported although the head decision was no."""

from __future__ import annotations

import logging
import os
import weakref
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import StatusCode

from otel_inference import guard, semconv
from otel_inference.sampling.base import root_of
from otel_inference.sampling.head import HealthSampler
from otel_inference.sampling.keeping import ERROR, SLOW, Cause, Keeping
from otel_inference.sampling.pipeline import as_sampled, exporting
from otel_inference.sampling.recording import RecordUnsampled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan, Span

    from otel_inference.sampling.keeping import Marked

_log = logging.getLogger("otel_inference")

_WHERE: Final = "tail_keep"


class TailKeep(SpanProcessor):
    """Exports the traces of calls that fail or are slow, whatever the sampler said.

    It needs the spans that are not sampled to be recorded, and hands those it keeps to the batch and
    simple processors that the provider has already, as sampled, marked with `inference.sampling.kept_by`
    and `inference.sampling.adjusted_count` and without `ot=th:`. `attach_tail_keep` sees to all that.

    It never raises, and holds its lock neither while it calls an exporter nor while it asks for the p99.

    Args:
        provider: Whose processors export.
        p99_s: Seconds that 99 of 100 recent calls of a model take at most; `None` while there are too
            few calls to say. Asked on the thread of the host's call, of each
            that did not fail.
        max_per_second: Traces kept at most in any one second.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        provider: TracerProvider,
        *,
        p99_s: Callable[[str], float | None],
        max_per_second: float = 100.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._provider = weakref.ref(provider)
        self._clock = clock
        self._lock = RLock()  # a finalizer may end a span on top of one that is being added
        self._knows_no_exporter = False
        self.start(p99_s=p99_s, max_per_second=max_per_second)
        _alive.add(self)

    def start(self, *, p99_s: Callable[[str], float | None], max_per_second: float) -> None:
        """Keep from now on, with nothing held."""
        with self._lock:
            self._p99_s = p99_s
            self._keeping: Keeping[ReadableSpan] = Keeping(max_per_second)
            self._counted = 0
            self._is_active = True

    def stop(self) -> None:
        """Keep nothing more; what was kept is with the exporters' processors already."""
        self._is_active = False
        with self._lock:
            self._keeping.clear()

    def _on_ending(self, span: Span) -> None:
        """Mark a sampled call that would be kept anyway, before any exporter sees it."""
        try:
            context = span.get_span_context()
            if not self._is_active or context is None or not context.trace_flags.sampled:
                return
            cause = self._cause(span)
            if cause is not None:
                with self._lock:
                    weight = self._keeping.weight(cause)
                _add_attribute(span, semconv.ADJUSTED_COUNT, weight)
        except Exception:  # noqa: BLE001 - it would reach the program that ends the span
            guard.failed(_WHERE)

    def on_end(self, span: ReadableSpan) -> None:
        """Take in one ended span."""
        try:
            context = span.get_span_context()
            if not self._is_active or context is None or context.trace_flags.sampled:
                return
            cause = self._cause(span)
            is_local_root = span.parent is None or span.parent.is_remote
            if cause is None and is_local_root and not self._keeping.knows(context.trace_id):
                return
            with self._lock:
                marked = self._keeping.ended(
                    context.trace_id, span, self._clock(), cause=cause, is_local_root=is_local_root
                )
            if marked:
                self._export(marked)
            if self._keeping.given_up > self._counted:
                self._count_given_up()
        except Exception:  # noqa: BLE001 - it would reach the program that ends the span
            guard.failed(_WHERE)

    def _cause(self, span: ReadableSpan) -> Cause | None:
        """Why this span's trace deserves to be kept: it is a model's call that failed or is slow."""
        shown: Any = span.attributes
        attributes: dict[str, Any] = shown.copy()  # what the SDK shows is slow to ask for what it does not have
        named = attributes.get(semconv.MODEL) or attributes.get(semconv.GEN_AI_MODEL)
        if named is None or semconv.STAGE in attributes:
            return None
        model = str(named)
        if span.status.status_code is StatusCode.ERROR or semconv.ERROR_TYPE in attributes:
            return Cause(model, ERROR)
        if attributes.get(semconv.COLD) is True or attributes.get(semconv.OPERATION) == semconv.LOAD:
            return None  # no p99 says what to expect of them
        p99_s = self._p99_s(model)
        started_ns, ended_ns = span.start_time, span.end_time
        if p99_s is None or started_ns is None or ended_ns is None:
            return None
        return Cause(model, SLOW) if ended_ns - started_ns > p99_s * 1e9 else None

    def _export(self, marked: Sequence[Marked[ReadableSpan]]) -> None:
        provider = self._provider()
        processors = list(exporting(getattr(provider, "_active_span_processor", None)))
        if not processors:
            self._warn_once()
        for span, kept_by, adjusted_count in marked:
            copy = as_sampled(span, {semconv.KEPT_BY: kept_by, semconv.ADJUSTED_COUNT: adjusted_count})
            for processor in processors:
                processor.on_end(copy)

    def _warn_once(self) -> None:
        if not self._knows_no_exporter:
            self._knows_no_exporter = True
            _log.warning(
                "failed and slow calls cannot be kept: the provider has neither a BatchSpanProcessor "
                "nor a SimpleSpanProcessor to export them"
            )

    def _count_given_up(self) -> None:
        with self._lock:
            count, self._counted = self._keeping.given_up - self._counted, self._keeping.given_up
        guard.dropped(_WHERE, count)

    def shutdown(self) -> None:
        """Stop; the exporters' processors shut down by themselves."""
        self.stop()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        """Nothing that was decided waits here."""
        return True

    def _reset_after_fork(self) -> None:
        self._lock = RLock()
        self._keeping.clear()


_alive: weakref.WeakSet[TailKeep] = weakref.WeakSet()
_attached: weakref.WeakKeyDictionary[TracerProvider, TailKeep] = weakref.WeakKeyDictionary()


def attach_tail_keep(
    provider: Any, *, p99_s: Callable[[str], float | None], max_per_second: float = 100.0
) -> TailKeep | None:
    """Keep failed and slow calls of an SDK's provider from now on; attaching again changes the arguments.

    The provider's sampler is made to record what it does not sample: a `HealthSampler` that is asked
    first does so itself and gives half of its limit for it, any other is wrapped.

    Args:
        provider: Anything; only an SDK's provider can export.
        p99_s: See `TailKeep`.
        max_per_second: Traces kept at most in any one second, where the sampler is no `HealthSampler`.

    Returns:
        What was attached, to be given to `detach_tail_keep`; `None` if the provider is no SDK's.
    """
    if not isinstance(provider, TracerProvider):
        return None
    max_per_second = _record_unsampled(provider, max_per_second)
    tail = _attached.get(provider)
    if tail is None:
        tail = _attached[provider] = TailKeep(provider, p99_s=p99_s, max_per_second=max_per_second)
        provider.add_span_processor(tail)
    else:
        tail.start(p99_s=p99_s, max_per_second=max_per_second)
    return tail


def detach_tail_keep(provider: Any) -> None:
    """Keep nothing more of a provider, and drop again what its sampler drops. Does nothing where nothing is attached.

    The processor itself cannot be taken off; it sleeps.
    """
    tail = _attached.get(provider) if isinstance(provider, TracerProvider) else None
    if tail is None:
        return
    tail.stop()
    sampler = provider.sampler
    if isinstance(sampler, RecordUnsampled):
        sampler.active = False
        sampler = sampler.base
    root = root_of(sampler)
    if isinstance(root, HealthSampler):
        root.end_tail_keep()


def reset_after_fork() -> None:
    """Make the locks usable in a forked child, whose traces are its own."""
    for tail in list(_alive):
        tail._reset_after_fork()


os.register_at_fork(after_in_child=reset_after_fork)


def _record_unsampled(provider: TracerProvider, max_per_second: float) -> float:
    """Have unsampled spans recorded.

    Returns:
        What may be kept of them per second.
    """
    sampler = provider.sampler
    if isinstance(sampler, RecordUnsampled):
        sampler.active = True
        sampler = sampler.base
    elif not isinstance(sampler, HealthSampler):
        _replace_sampler(provider, RecordUnsampled(sampler))
    root = root_of(sampler)
    return root.begin_tail_keep() if isinstance(root, HealthSampler) else max_per_second


def _replace_sampler(provider: TracerProvider, sampler: RecordUnsampled) -> None:
    provider.sampler = sampler
    # Tracers hold the sampler they were made with; the SDK offers no way to change it.
    for tracer in list(getattr(provider, "_tracers", {}).values()):
        tracer.sampler = sampler


def _add_attribute(span: Span, name: str, value: int) -> None:
    """Add an attribute to a span that is ending.

    The specification has spans still mutable then, the SDK (1.45) has them immutable already.
    """
    if span.is_recording():
        span.set_attribute(name, value)
        return
    attributes: Any = span._attributes
    was_immutable = attributes._immutable
    attributes._immutable = False
    try:
        attributes[name] = value
    finally:
        attributes._immutable = was_immutable
