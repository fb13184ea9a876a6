"""`RecordUnsampled`: any sampler, with the spans it does not sample recorded nevertheless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from otel_inference.sampling.base import merged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, TraceState
    from opentelemetry.util.types import Attributes


class RecordUnsampled(Sampler):
    """Makes `RECORD_ONLY` of each `DROP`: processors get the span, exporters do not.

    The SDK's `AlwaysRecordSampler` does so too, but loses the attributes that the span is started
    with. It has to be the outermost sampler, or the children of what it records are dropped.

    Args:
        base: Decides what is sampled.

    Attributes:
        active: Whether to record; otherwise the base's decisions stand.
    """

    def __init__(self, base: Sampler) -> None:
        self.base = base
        self.active = True

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
        result = self.base.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if result.decision is not Decision.DROP or not self.active:
            return result
        return SamplingResult(Decision.RECORD_ONLY, merged(attributes, result), result.trace_state)

    def get_description(self) -> str:
        """See `opentelemetry.sdk.trace.sampling.Sampler`."""
        return f"RecordUnsampled{{{self.base.get_description()}}}"
