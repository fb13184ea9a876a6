"""`HealthSampler`: what its base decides while a model is well, more of it while it is not."""

from __future__ import annotations

import os
from threading import RLock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import get_current_span

from otel_inference import guard, semconv
from otel_inference.errors import ConfigError
from otel_inference.sampling.attention import attention as attention_of_process
from otel_inference.sampling.base import merged, ratio_of
from otel_inference.sampling.quota import Kept, Quotas
from otel_inference.sampling.threshold import MAX_THRESHOLD
from otel_inference.sampling.tracestate import random_value, with_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanContext, SpanKind, TraceState
    from opentelemetry.util.types import Attributes

    from otel_inference.sampling.attention import Attention
    from otel_inference.sampling.quota import Quota

MIN_RATE: Final = 0.001
MAX_RATE: Final = 100_000.0
"""What `max_per_second` may be: one in a quarter of an hour at least; each place in a second takes memory."""


class HealthSampler(Sampler):
    """Decides as its base does while a model is well; keeps more of what deserves to be looked at.

    The decision is made once for a trace, where it begins: with a parent, here or elsewhere, the
    parent's decision is followed and its tracestate kept. A trace that begins with a model's call is
    kept with a greater probability while that model is degraded or critical, for its first call, and
    if nothing of that model has been kept for a minute; a trace that begins with anything else follows
    the base. Every decision compares the 56 random bits of the trace with a threshold (OpenTelemetry
    specification, "TraceState: Probability Sampling") and says with which one it was kept, `ot=th:`,
    so that counts can be estimated from what was kept. Where the limit turned away what the bits had
    chosen, the next trace kept carries its weight as `inference.sampling.adjusted_count` instead.

        TracerProvider(sampler=HealthSampler(0.01))

    It never raises and never waits for anything but a lock that is held for microseconds. Traces
    that a remote parent has decided to keep do not count against the limit.

    Args:
        base: The share of traces to keep, or a sampler. Of the SDK's ratio samplers the ratio is
            taken, see `base.ratio_of`; any other sampler decides itself where a trace begins.
        boost_per_second: Traces kept at most beyond what the base keeps.
        max_per_second: Traces kept at most in any one second, whatever the base says.
        attention: Which models are not well; default: what this process's evaluation found.
        clock: Monotonic seconds.

    Raises:
        ConfigError: If an argument means nothing.
    """

    def __init__(
        self,
        base: Sampler | float = 1.0,
        *,
        boost_per_second: float = 10.0,
        max_per_second: float = 100.0,
        attention: Attention = attention_of_process,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        _require_rate("boost_per_second", boost_per_second, lowest=0.0)
        _require_rate("max_per_second", max_per_second, lowest=MIN_RATE)
        ratio = ratio_of(base)
        self._base = base if ratio is None and isinstance(base, Sampler) else None
        self._name = f"{base.get_description() if isinstance(base, Sampler) else ratio}"
        self._attention = attention
        self._clock = clock
        self._max_per_second = max_per_second
        self._quotas = Quotas(
            ratio,
            boost_per_second=boost_per_second,
            max_per_second=max_per_second,
            is_unwell=attention.is_unwell,
        )
        self._lock = RLock()  # a finalizer or a signal handler may begin a call on top of a decision
        self._unsampled = Decision.DROP
        _alive.add(self)

    def should_sample(  # noqa: PLR0917 - the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See `opentelemetry.sdk.trace.sampling.Sampler`."""
        try:
            on_decision = self._attention.on_decision
            if on_decision is not None:
                self._tell(on_decision)
            # Asked for here, because the SDK hands no tracestate to samplers.
            parent = get_current_span(parent_context).get_span_context()
            if parent.is_valid:
                return self._follow(parent, attributes)
            if self._base is not None:
                result = self._base.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
                return self._exceed(result, trace_id, attributes, trace_state)
            return self._begin(trace_id, attributes, trace_state)
        except Exception:  # noqa: BLE001 - it would reach the program that starts the span
            guard.failed("sampler")
            return SamplingResult(self._unsampled, attributes, trace_state)

    def _tell(self, on_decision: Callable[[], None]) -> None:
        try:
            on_decision()
        except Exception:  # noqa: BLE001 - the decision does not depend on it
            guard.failed("on_decision")

    def _follow(self, parent: SpanContext, attributes: Attributes) -> SamplingResult:
        decision = Decision.RECORD_AND_SAMPLE if parent.trace_flags.sampled else self._unsampled
        return SamplingResult(decision, attributes, parent.trace_state)

    def _begin(self, trace_id: int, attributes: Attributes, state: TraceState | None) -> SamplingResult:
        """Decide by the ratio and the boosts."""
        now_s = self._clock()
        quota = self._quota_of(attributes, now_s)
        random = random_value(trace_id, state)
        is_cold = attributes is not None and attributes.get(semconv.COLD) is True
        kept = None
        if random >= quota.threshold or now_s >= quota.due_s or is_cold:
            with self._lock:
                kept = self._quotas.decide(quota, random, now_s, cold=is_cold)
        if kept is None:
            return SamplingResult(self._unsampled, attributes, state)
        if kept.adjusted_count is not None:
            attributes = {**(attributes or {}), semconv.ADJUSTED_COUNT: kept.adjusted_count}
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, with_threshold(state, kept.threshold))

    def _exceed(
        self, result: SamplingResult, trace_id: int, attributes: Attributes, state: TraceState | None
    ) -> SamplingResult:
        """Take the base's decision, or keep what it does not within the boost; never more than the limit."""
        now_s = self._clock()
        quota = self._quota_of(attributes, now_s)
        base_state = result.trace_state if result.trace_state is not None else state
        attributes = merged(attributes, result)
        with self._lock:
            kept = self._quotas.decide(
                quota,
                random_value(trace_id, base_state),
                now_s,
                cold=attributes.get(semconv.COLD) is True,
                base_keeps=result.decision is Decision.RECORD_AND_SAMPLE,
            )
        if kept is not None:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, _beside(base_state, kept))
        decision = self._unsampled if result.decision is not Decision.RECORD_ONLY else Decision.RECORD_ONLY
        return SamplingResult(decision, attributes, base_state)

    def _quota_of(self, attributes: Attributes, now_s: float) -> Quota:
        """The quota that a trace counts to, with probabilities that are up to date."""
        model: Any = attributes.get(semconv.MODEL) if attributes else None
        if not isinstance(model, str):
            model = ""
        quotas = self._quotas
        quota = quotas.find(model)
        if quota is None or now_s >= quotas.due_s:
            with self._lock:
                quota = quotas.of(model, now_s)
                if now_s >= quotas.due_s:
                    quotas.refresh(now_s)
        quota.arrivals += 1  # threads may lose one to each other; it is an estimate
        return quota

    def begin_tail_keep(self) -> float:
        """Record what is not sampled too, and give half of `max_per_second` away.

        Returns:
            That half, for what is kept by its tail.
        """
        with self._lock:
            self._unsampled = Decision.RECORD_ONLY
            self._quotas.limit(self._max_per_second / 2)
        return self._max_per_second / 2

    def end_tail_keep(self) -> None:
        """Drop again what is not sampled, and take the half of the limit back."""
        with self._lock:
            self._unsampled = Decision.DROP
            self._quotas.limit(self._max_per_second)

    def get_description(self) -> str:
        """See `opentelemetry.sdk.trace.sampling.Sampler`."""
        return f"HealthSampler{{{self._name}}}"

    def _reset_after_fork(self) -> None:
        self._lock = RLock()


_alive: WeakSet[HealthSampler] = WeakSet()


def reset_after_fork() -> None:
    """Make the locks usable in a forked child, whose parent may have held them."""
    for sampler in list(_alive):
        sampler._reset_after_fork()


os.register_at_fork(after_in_child=reset_after_fork)


def _beside(state: TraceState | None, kept: Kept) -> TraceState | None:
    """The tracestate of a trace that another sampler had a say in."""
    if kept.threshold == MAX_THRESHOLD:
        return state  # no boost was possible: what the other has written holds
    # With a boost it was kept by either of two, how probably is unknown, unless it was certain.
    return with_threshold(state, 0 if kept.threshold == 0 else None)


def _require_rate(name: str, value: object, *, lowest: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not lowest <= value <= MAX_RATE:
        msg = f"{name} is {value!r}; expected a number of traces per second from {lowest:g} to {MAX_RATE:g}"
        raise ConfigError(msg)
