"""Figures per model, computed from calls as their spans tell of them: pure, nothing is printed here.

Where traces were sampled each span counts for the calls that it stands for, so that the figures are those of
all calls: an unbiased estimate (Horvitz-Thompson) of their number, and the quantiles of the weighted spans.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from otel_inference import semconv

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_inference.cli.reading import CallSpan


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFigures:
    """One line of the report: the calls of one model, operation and engine."""

    model: str
    engine: str
    operation: str
    spans: int
    """How many spans the line is computed from; those that only came along with a kept trace are none of them."""
    calls: int
    """How many calls those stand for; an estimate where they were sampled, as all that follows is."""
    errors: int
    calls_per_s: float | None
    """Over the time from the first start to the last end; `None` where that is no time at all."""
    p50_s: float
    p90_s: float
    p99_s: float
    tokens_per_s: float | None
    """Output tokens over the duration of the calls that gave them; `None` without such calls."""
    time_to_first_token_s: float | None
    """The median; `None` where no call has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigures:
    """The loads of one model by one engine."""

    model: str
    engine: str
    loads: int
    errors: int
    longest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFigures:
    """How often the calls or loads of a model ended in one kind of error."""

    model: str
    operation: str
    error_type: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The whole report."""

    calls: Sequence[CallFigures]
    loads: Sequence[LoadFigures]
    errors: Sequence[ErrorFigures]
    is_estimate: bool = False
    """Whether spans stand for more calls than one: traces were sampled."""


def figures(spans: Iterable[CallSpan]) -> Figures:
    """Compute the report: calls, loads apart, and what failed how often."""
    groups: defaultdict[tuple[str, str, str], list[CallSpan]] = defaultdict(list)
    errors: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    counted = [span for span in spans if span.weight]
    for span in counted:
        groups[span.model, span.operation, span.engine].append(span)
        if span.error_type is not None:
            errors[span.model, span.operation, span.error_type] += span.weight
    ordered = [group for _, group in sorted(groups.items())]
    return Figures(
        calls=[_call_figures(group) for group in ordered if group[0].operation != semconv.LOAD],
        loads=[_load_figures(group) for group in ordered if group[0].operation == semconv.LOAD],
        errors=[
            ErrorFigures(model=model, operation=operation, error_type=error_type, count=round(count))
            for (model, operation, error_type), count in sorted(errors.items())
        ],
        is_estimate=any(span.weight != 1 for span in counted),
    )


def quantile(values: Iterable[tuple[float, float]], q: float) -> float:
    """The smallest of the values such that at least a share `q` of the weight is not above it.

    Args:
        values: Each value with its weight above 0; at least one.
        q: From 0 to 1.

    >>> quantile([(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0)], 0.5)
    2.0
    >>> quantile([(1.0, 100.0), (2.0, 1.0)], 0.9)
    1.0
    """
    ordered = sorted(values)
    reached = list(accumulate(weight for _, weight in ordered))
    return ordered[bisect_left(reached, q * reached[-1])][0]


def _call_figures(spans: Sequence[CallSpan]) -> CallFigures:
    durations = [(span.duration_s, span.weight) for span in spans]
    elapsed_s = (max(span.ended_ns for span in spans) - min(span.started_ns for span in spans)) / 1e9
    calls = _weight(spans)
    return CallFigures(
        model=spans[0].model,
        engine=spans[0].engine,
        operation=spans[0].operation,
        spans=len(spans),
        calls=round(calls),
        errors=_failures(spans),
        calls_per_s=calls / elapsed_s if elapsed_s > 0 else None,
        p50_s=quantile(durations, 0.5),
        p90_s=quantile(durations, 0.9),
        p99_s=quantile(durations, 0.99),
        tokens_per_s=_tokens_per_s(spans),
        time_to_first_token_s=_first_token_s(spans),
    )


def _load_figures(spans: Sequence[CallSpan]) -> LoadFigures:
    return LoadFigures(
        model=spans[0].model,
        engine=spans[0].engine,
        loads=round(_weight(spans)),
        errors=_failures(spans),
        longest_s=max(span.duration_s for span in spans),
    )


def _weight(spans: Iterable[CallSpan]) -> float:
    """How many calls the spans stand for."""
    return math.fsum(span.weight for span in spans)


def _failures(spans: Sequence[CallSpan]) -> int:
    return round(_weight(span for span in spans if span.error_type is not None))


def _first_token_s(spans: Sequence[CallSpan]) -> float | None:
    waits = [(span.time_to_first_token_s, span.weight) for span in spans if span.time_to_first_token_s is not None]
    return quantile(waits, 0.5) if waits else None


def _tokens_per_s(spans: Sequence[CallSpan]) -> float | None:
    tokens, generating_s = 0.0, 0.0
    for span in spans:
        if span.output_tokens:
            tokens += span.weight * span.output_tokens
            generating_s += span.weight * span.duration_s
    return tokens / generating_s if generating_s > 0 else None
