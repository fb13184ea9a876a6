"""Ended spans of traces that nothing has been decided about yet, bounded in traces, spans and age."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class _Trace(Generic[T]):
    __slots__ = ("spans", "touched_s")

    def __init__(self, touched_s: float, max_spans: int) -> None:
        self.spans: deque[T] = deque(maxlen=max_spans)
        self.touched_s = touched_s


class TraceBuffer(Generic[T]):
    """Spans by trace, the oldest given up first. Not thread-safe.

    Args:
        max_traces: Traces held.
        max_spans: Spans held in all.
        max_spans_per_trace: Spans held of one trace, the last that ended.
        max_age_s: How long a trace is held after its last span; the traces of threads that outlive
            their request have no end to wait for.

    >>> buffer = TraceBuffer[str]()
    >>> buffer.hold(1, "tokenize", 0.0)
    >>> buffer.take(1), buffer.take(1)
    (['tokenize'], [])
    """

    def __init__(
        self,
        *,
        max_traces: int = 1024,
        max_spans: int = 4096,
        max_spans_per_trace: int = 128,
        max_age_s: float = 300.0,
    ) -> None:
        self._max_traces = max_traces
        self._max_spans = max_spans
        self._max_spans_per_trace = max_spans_per_trace
        self._max_age_s = max_age_s
        self._traces: OrderedDict[int, _Trace[T]] = OrderedDict()
        self.spans = 0
        """Spans held now."""
        self.given_up = 0
        """Spans that had to go before their trace was decided about."""

    def __contains__(self, trace_id: int) -> bool:
        """Whether spans of this trace are held."""
        return trace_id in self._traces

    def __len__(self) -> int:
        """Traces held now."""
        return len(self._traces)

    def hold(self, trace_id: int, span: T, now_s: float) -> None:
        """Add a span to its trace, at the cost of what has been held longest where there is no room."""
        trace = self._traces.get(trace_id)
        if trace is None:
            trace = self._traces[trace_id] = _Trace(now_s, self._max_spans_per_trace)
        else:
            trace.touched_s = now_s
            self._traces.move_to_end(trace_id)
        if len(trace.spans) == self._max_spans_per_trace:
            self.given_up += 1
        else:
            self.spans += 1
        trace.spans.append(span)
        self._make_room(now_s)

    def take(self, trace_id: int) -> list[T]:
        """Hand out what is held of a trace, and hold it no longer."""
        trace = self._traces.pop(trace_id, None)
        if trace is None:
            return []
        self.spans -= len(trace.spans)
        return list(trace.spans)

    def clear(self) -> None:
        """Hold nothing."""
        self._traces.clear()
        self.spans = 0

    def _make_room(self, now_s: float) -> None:
        while self._traces:
            trace_id, oldest = next(iter(self._traces.items()))
            is_within = len(self._traces) <= self._max_traces and self.spans <= self._max_spans
            if is_within and oldest.touched_s > now_s - self._max_age_s:
                return
            self.given_up += len(self.take(trace_id))
