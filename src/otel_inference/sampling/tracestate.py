"""The `ot` entry in the SDK's tracestate: written, erased and read, with all other entries kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from opentelemetry.trace import TraceState

from otel_inference.sampling.threshold import RANDOM_MASK, OtEntry

_OT: Final = "ot"


def random_value(trace_id: int, state: TraceState | None) -> int:
    """The 56 random bits of a trace: those that `rv` gives, else the last ones of its id."""
    if state and _OT in state:
        given = OtEntry.parse(state[_OT]).random_value
        if given is not None:
            return given
    return trace_id & RANDOM_MASK


def with_threshold(state: TraceState | None, threshold: int | None) -> TraceState | None:
    """The tracestate with `ot=th:` of this threshold, or without `th` where there is none to tell."""
    entry = OtEntry.parse(state[_OT]) if state and _OT in state else OtEntry()
    if entry.threshold == threshold:
        return state
    text = replace(entry, threshold=threshold).format()
    if state:
        if text:
            return state.update(_OT, text)
        return state.delete(_OT)
    return TraceState([(_OT, text)]) if text else state
