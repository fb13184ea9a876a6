"""Which traces are kept by their tail, with what each span of them says of itself.

What is kept by an error is all errors, whether or not their traces were sampled: each stands for
itself, `inference.sampling.adjusted_count` 1, those in sampled traces too, whose threshold would
count them again. The other spans of the trace come along to be looked at, and stand for none:
their kind is counted by the sampled ones. So totals and error rates are right for every kind of
span if the adjusted count goes before the threshold.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from otel_inference.sampling.budget import Budget
from otel_inference.sampling.buffer import TraceBuffer

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

ERROR: Final = "error"
SLOW: Final = "slow"

MAX_KEPT: Final = 1024
"""Kept traces that are remembered, for the spans of them that end later."""

MAX_SPANS: Final = 128
"""Spans of one trace that are kept before and after what it is kept for."""

_MAX_OWED: Final = 256


class Cause(NamedTuple):
    """Why a span's trace deserves to be kept."""

    model: str
    kept_by: str
    """`ERROR` or `SLOW`."""


class Marked(NamedTuple, Generic[T]):
    """A span to export."""

    span: T
    kept_by: str
    adjusted_count: int


class _Kept:
    __slots__ = ("kept_by", "left")

    def __init__(self, kept_by: str) -> None:
        self.kept_by = kept_by
        self.left = MAX_SPANS


class Keeping(Generic[T]):
    """Holds ended spans of unsampled traces until one of them is a cause to keep the trace. Not thread-safe.

    A trace is exported as soon as there is a cause, with what has ended of it, and each later span when
    it ends; so nothing that was decided waits here when the process is stopped.

    Args:
        max_per_second: Traces kept at most in any one second, shared fairly among models. The weight
            of those turned away goes to the next one of the same model and cause.
        buffer: Holds the spans.
    """

    def __init__(self, max_per_second: float, buffer: TraceBuffer[T] | None = None) -> None:
        self.buffer: TraceBuffer[T] = buffer if buffer is not None else TraceBuffer(max_spans_per_trace=MAX_SPANS)
        self._budget = Budget(max_per_second)
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._owed: Counter[Cause] = Counter()
        self._turned_away = 0

    @property
    def given_up(self) -> int:
        """Causes that met the limit, and spans that had to go before their trace was decided about."""
        return self._turned_away + self.buffer.given_up

    def knows(self, trace_id: int) -> bool:
        """Whether anything is held or remembered of a trace."""
        return trace_id in self.buffer or trace_id in self._kept

    def ended(
        self, trace_id: int, span: T, now_s: float, *, cause: Cause | None, is_local_root: bool
    ) -> Sequence[Marked[T]]:
        """Take in an ended span.

        Args:
            trace_id: Its trace.
            span: The span.
            now_s: The present.
            cause: Why to keep its trace, if it is one.
            is_local_root: Whether it is the last of its trace to end here.

        Returns:
            What is to be exported now.
        """
        kept = self._kept.get(trace_id)
        if cause is not None and ((kept is not None and kept.left > 0) or self._admits(cause, now_s)):
            return self._keep(trace_id, span, cause)
        if kept is not None and (kept.left > 0 or is_local_root):
            kept.left -= 1
            return (Marked(span, kept.kept_by, 0),)
        if is_local_root:
            self.buffer.take(trace_id)
        else:
            self.buffer.hold(trace_id, span, now_s)
        return ()

    def weight(self, cause: Cause) -> int:
        """For how many calls one of this cause stands: itself, and those turned away before it."""
        return 1 + self._owed.pop(cause, 0)

    def _admits(self, cause: Cause, now_s: float) -> bool:
        if self._budget.has_room(cause.model, now_s):
            self._budget.take(cause.model, now_s)
            return True
        self._turned_away += 1
        if cause in self._owed or len(self._owed) < _MAX_OWED:
            self._owed[cause] += 1
        return False

    def _keep(self, trace_id: int, span: T, cause: Cause) -> Sequence[Marked[T]]:
        kept = self._kept.get(trace_id)
        if kept is None or kept.left <= 0:
            kept = self._kept[trace_id] = _Kept(cause.kept_by)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        kept.left -= 1
        earlier = [Marked(one, kept.kept_by, 0) for one in self.buffer.take(trace_id)]
        return (*earlier, Marked(span, cause.kept_by, self.weight(cause)))

    def clear(self) -> None:
        """Hold and remember nothing."""
        self.buffer.clear()
        self._kept.clear()
        self._owed.clear()
