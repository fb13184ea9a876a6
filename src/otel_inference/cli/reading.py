"""The calls that spans in files of OTLP JSON tell of, each with what it stands for.

A file holds one export request per line, as the exporter `otlp_json_file` and the collector's file
exporter write it. Lines that hold metrics or logs are passed over.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otel_inference import semconv
from otel_inference.errors import OtelInferenceError
from otel_inference.sampling.threshold import OtEntry, probability_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

SUFFIXES: Final = (".jsonl", ".json")
"""What files of a folder are read; a file that is named is read whatever it is called."""

_STATUS_ERROR: Final = (2, "STATUS_CODE_ERROR")
_UNKNOWN_ERROR: Final = "unknown"
_OT: Final = "ot"


class InputError(OtelInferenceError):
    """What was asked for cannot be read; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSpan:
    """What the report needs of one span."""

    engine: str
    operation: str
    model: str
    started_ns: int
    ended_ns: int
    error_type: str | None = None
    output_tokens: int | None = None
    time_to_first_token_s: float | None = None
    weight: float = 1.0
    """For how many calls it stands: more than one where traces are sampled, 0 if it only came along with a kept trace."""

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return (self.ended_ns - self.started_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was found in the files."""

    spans: Sequence[CallSpan]
    files: int
    broken_lines: Mapping[Path, int]
    """Lines per file that are not a JSON object or hold spans in a form that is not OTLP's."""
    other_spans: int = 0
    """Spans that are not calls of a model: those of other instrumentations."""


@dataclass(slots=True)
class _Found:
    """What a reading gathers on its way."""

    spans: list[CallSpan] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)
    broken: Counter[Path] = field(default_factory=Counter)
    other: int = 0


def read(paths: Iterable[Path]) -> Reading:
    """Read every span that is a call of a model; a span exported twice counts once.

    Args:
        paths: Files, or folders of files that end in one of `SUFFIXES`.

    Raises:
        InputError: If a path is not there or cannot be read.
    """
    files = list(dict.fromkeys(file.resolve() for path in paths for file in _files(path)))
    found = _Found()
    for file in files:
        try:
            _read_file(file, found)
        except OSError as error:
            msg = f"{file} cannot be read ({error.strerror}); expected a file of OTLP JSON that you may read"
            raise InputError(msg) from error
    return Reading(spans=found.spans, files=len(files), broken_lines=found.broken, other_spans=found.other)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        if not files:
            msg = f"{path} is a folder without {' or '.join(SUFFIXES)} files; give the folder that telemetry went to"
            raise InputError(msg)
        return files
    if not path.exists():
        msg = f"{path} does not exist; expected a file of OTLP JSON, one request per line, or a folder of such files"
        raise InputError(msg)
    return [path]


def _read_file(file: Path, found: _Found) -> None:
    with file.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                spans = list(_spans_of_line(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                # Cut off while being written, or not OTLP JSON at all.
                found.broken[file] += 1
                continue
            for key, span in spans:
                _take(key, span, found)


def _take(key: tuple[str, str] | None, span: CallSpan | None, found: _Found) -> None:
    if key is not None:
        if key in found.seen:
            return
        found.seen.add(key)
    if span is None:
        found.other += 1
    else:
        found.spans.append(span)


def _spans_of_line(line: bytes) -> Iterator[tuple[tuple[str, str] | None, CallSpan | None]]:
    """The spans of one export request with their ids, `None` for one that is no call of a model."""
    request = json.loads(line)
    if not isinstance(request, dict):
        msg = "an export request is a JSON object"
        raise TypeError(msg)
    for resource_spans in request.get("resourceSpans") or ():
        for scope_spans in resource_spans.get("scopeSpans") or ():
            for span in scope_spans.get("spans") or ():
                ids = (span.get("traceId"), span.get("spanId"))
                yield (ids if all(ids) else None), _call_span(span)


def _call_span(span: Mapping[str, Any]) -> CallSpan | None:
    attributes = {item["key"]: _value(item["value"]) for item in span.get("attributes") or ()}
    model, operation = attributes.get(semconv.MODEL), attributes.get(semconv.OPERATION)
    if model is None or operation is None:
        return None
    failed = (span.get("status") or {}).get("code") in _STATUS_ERROR
    tokens, first_token_s = attributes.get(semconv.GEN_AI_OUTPUT_TOKENS), attributes.get(semconv.TIME_TO_FIRST_TOKEN)
    return CallSpan(
        engine=str(attributes.get(semconv.ENGINE, "")),
        operation=str(operation),
        model=str(model),
        started_ns=int(span["startTimeUnixNano"]),
        ended_ns=int(span["endTimeUnixNano"]),
        error_type=str(attributes.get(semconv.ERROR_TYPE, _UNKNOWN_ERROR)) if failed else None,
        output_tokens=None if tokens is None else int(tokens),
        time_to_first_token_s=None if first_token_s is None else float(first_token_s),
        weight=_weight(attributes.get(semconv.ADJUSTED_COUNT), span.get("traceState") or ""),
    )


def _weight(adjusted_count: Any, trace_state: str) -> float:
    """For how many calls a span stands: as it says itself, else by the threshold of its trace, else one.

    >>> _weight(None, "vendor=x,ot=th:c"), _weight(1, "ot=th:c"), _weight(None, "vendor=x")
    (4.0, 1.0, 1.0)
    """
    if adjusted_count is not None:
        weight = float(adjusted_count)
        if not 0.0 <= weight < math.inf:
            msg = f"a span cannot stand for {weight} calls"
            raise ValueError(msg)
        return weight
    entries = dict(entry.strip().partition("=")[::2] for entry in trace_state.split(","))
    threshold = OtEntry.parse(entries.get(_OT, "")).threshold
    return 1.0 if threshold is None else 1.0 / probability_of(threshold)


def _value(value: Mapping[str, Any]) -> Any:
    """The value of an attribute; OTLP JSON writes 64-bit numbers as strings."""
    for kind, content in value.items():
        return int(content) if kind == "intValue" else content
    return None
