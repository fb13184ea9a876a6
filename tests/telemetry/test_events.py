"""Findings as OpenTelemetry log events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_inference.finding import Finding, FindingChange, FindingEvent, FindingKind, Severity
from otel_inference.telemetry.events import Events

SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STALL = Finding(
    FindingKind.STALL,
    Severity.CRITICAL,
    "ranker",
    SINCE,
    {"oldest_s": 42.5, "stall_after_s": 30.0},
    "Look at the trace.",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
)


@pytest.fixture
def logs():
    """Events, and what of them left the SDK."""
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    events = Events(provider, "1")
    return events, lambda: [each.log_record for each in exporter.get_finished_logs()]


def test_writes_openings_and_closings(logs):
    """A finding that opens and closes is two events at their times, with its evidence and the trace that shows it."""
    events, records = logs
    for event in (FindingEvent.OPENED, FindingEvent.UPDATED, FindingEvent.CLOSED):
        events.finding(FindingChange(event=event, finding=STALL, at=SINCE))

    opened, closed = records()
    assert (opened.event_name, closed.event_name) == ("inference.finding.opened", "inference.finding.closed")
    assert (opened.severity_number.name, closed.severity_number.name) == ("ERROR", "INFO")
    assert opened.timestamp == SINCE.timestamp() * 1e9
    assert (f"{opened.trace_id:032x}", f"{opened.span_id:016x}") == (STALL.trace_id, STALL.span_id)
    assert dict(opened.attributes) == {
        "inference.finding.kind": "stall",
        "inference.finding.severity": "critical",
        "inference.model": "ranker",
        "inference.finding.since": "2026-01-02T03:04:05+00:00",
        "inference.finding.advice": "Look at the trace.",
        "inference.finding.evidence.oldest_s": 42.5,
        "inference.finding.evidence.stall_after_s": 30.0,
    }


def test_needs_no_sdk():
    """Without a logger provider nothing is written and nothing is raised."""
    Events(None, "1").finding(FindingChange(event=FindingEvent.OPENED, finding=STALL, at=SINCE))
