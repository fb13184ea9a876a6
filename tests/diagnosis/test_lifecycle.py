"""Findings open once, change seldom, and close."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.diagnosis.lifecycle import Latch, Ledger, Verdict
from otel_inference.finding import FindingEvent, FindingKind, Severity
from otel_inference.health.stretch import Exemplar

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SLOW = Verdict(
    kind=FindingKind.LATENCY_SHIFT,
    severity=Severity.WARNING,
    model="ranker",
    since_s=70.0,
    evidence={"service_ratio": 1.5, "window_s": 60.0},
    advice="See what it is explained by.",
)
CPU = Verdict(
    kind=FindingKind.BOTTLENECK,
    subject="cpu",
    severity=Severity.WARNING,
    model="ranker",
    since_s=70.0,
    evidence={"cpu_wait_ratio": 0.5},
    advice="Limit the calls at once.",
)
FULL = replace(CPU, kind=FindingKind.SATURATION, model=None)


@pytest.fixture
def settle():
    """Settles verdicts at a second after noon, in one ledger."""
    ledger = Ledger()

    def settle(at_s, *verdicts):
        changes = ledger.settle(verdicts, at_s, NOON + timedelta(seconds=at_s))
        return [(change.event.value, change.finding.key) for change in changes]

    settle.ledger = ledger
    return settle


def test_a_finding_opens_once_and_closes_once(settle):
    """What is seen again and again is told of at its begin and at its end."""
    told = [settle(at_s, SLOW) for at_s in (100.0, 101.0, 102.0)]

    assert told == [[("opened", "latency_shift::ranker")], [], []]
    assert settle(103.0) == [("closed", "latency_shift::ranker")]
    assert settle(104.0) == []


def test_a_finding_says_when_it_began_in_utc(settle):
    """The clock of the evaluation is translated, and a time in the future is not believed."""
    settle(100.0, SLOW, replace(CPU, since_s=200.0))

    since = {finding.kind: finding.since for finding in settle.ledger.open()}

    assert since == {
        FindingKind.LATENCY_SHIFT: NOON + timedelta(seconds=70),
        FindingKind.BOTTLENECK: NOON + timedelta(seconds=100),
    }


def test_an_exemplar_is_written_as_opentelemetry_writes_it_and_kept(settle):
    """Thirty-two and sixteen digits; a later look without one does not lose it."""
    settle(100.0, replace(SLOW, exemplar=Exemplar(trace_id=0xABC, span_id=0x1F)))
    settle(101.0, SLOW)

    (finding,) = settle.ledger.open("ranker")

    assert (finding.trace_id, finding.span_id) == ("abc".zfill(32), "1f".zfill(16))


@pytest.mark.parametrize(
    ("after_s", "ratio", "told"),
    [(30.0, 3.0, False), (60.0, 1.8, False), (60.0, 1.9, True), (61.0, 1.0, True)],
)
def test_evidence_is_told_again_only_if_it_changed_by_a_quarter_and_a_minute_has_passed(settle, after_s, ratio, told):
    """Sinks are not flooded; who asks sees the latest numbers all the same."""
    settle(100.0, SLOW)

    changes = settle(100.0 + after_s, replace(SLOW, evidence={"service_ratio": ratio, "window_s": 60.0}))

    assert changes == ([("updated", "latency_shift::ranker")] if told else [])
    assert settle.ledger.open("ranker")[0].evidence["service_ratio"] == ratio


def test_a_growing_window_is_no_other_evidence(settle):
    """How long it lasts, and over how many calls, is not what it is about."""
    settle(100.0, replace(SLOW, evidence={"service_ratio": 1.5, "calls": 100, "window_s": 60.0}))

    assert settle(900.0, replace(SLOW, evidence={"service_ratio": 1.6, "calls": 999, "window_s": 860.0})) == []


def test_a_severity_that_rises_is_told_at_once_and_one_that_falls_only_after_a_minute(settle):
    """A finding on the edge between two severities does not flap."""
    worse = replace(SLOW, severity=Severity.CRITICAL)

    told = [settle(at_s, verdict) for at_s, verdict in ((0.0, SLOW), (1.0, worse), (2.0, SLOW), (3.0, worse))]

    assert [bool(changes) for changes in told] == [True, True, False, False]
    assert settle.ledger.open("ranker")[0].severity is Severity.CRITICAL
    assert settle(62.0, SLOW) == [("updated", "latency_shift::ranker")]
    assert settle.ledger.open("ranker")[0].severity is Severity.WARNING


def test_findings_with_one_cause_lead_to_it(settle):
    """A saturated processor explains the bottleneck, and that explains the latency."""
    settle(100.0, SLOW, CPU, FULL)

    causes = {finding.key: finding.explained_by for finding in settle.ledger.open()}

    assert causes == {
        "latency_shift::ranker": "bottleneck:cpu:ranker",
        "bottleneck:cpu:ranker": "saturation:cpu:",
        "saturation:cpu:": None,
    }


def test_a_cause_found_later_is_told_and_one_of_another_model_is_none(settle):
    """The explanation is worth an update; what another model suffers from is not."""
    assert settle(100.0, SLOW, replace(CPU, model="tagger"))[0] == ("opened", "latency_shift::ranker")
    assert settle.ledger.open("ranker")[0].explained_by is None

    assert ("updated", "latency_shift::ranker") in settle(101.0, SLOW, CPU)


def test_a_model_has_its_own_findings_and_those_of_the_process(settle):
    """Findings of other models are not its."""
    settle(100.0, SLOW, replace(CPU, model="tagger"), FULL)

    assert [finding.key for finding in settle.ledger.open("ranker")] == ["latency_shift::ranker", "saturation:cpu:"]
    assert len(settle.ledger.open()) == 3


_VERDICTS = st.builds(
    lambda kind, subject, model, severity: replace(SLOW, kind=kind, subject=subject, model=model, severity=severity),
    st.sampled_from(FindingKind),
    st.sampled_from([None, "cpu", "memory", "queue", "latency", "errors", "sizes", "concurrency"]),
    st.sampled_from([None, "ranker", "tagger"]),
    st.sampled_from(Severity),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(_VERDICTS, max_size=12), max_size=5))
def test_what_was_opened_and_not_closed_is_open_and_explanations_end(rounds):
    """Whatever the rules say, events add up, and following the explanations comes to an end at an open finding."""
    ledger, expected = Ledger(), set()
    for at_s, verdicts in enumerate(rounds):
        for change in ledger.settle(verdicts, float(at_s), NOON):
            if change.event is FindingEvent.OPENED:
                assert change.finding.key not in expected
                expected.add(change.finding.key)
            elif change.event is FindingEvent.CLOSED:
                expected.remove(change.finding.key)
        explained_by = {finding.key: finding.explained_by for finding in ledger.open()}
        assert explained_by.keys() == expected
        assert all(_root(key, explained_by) in expected for key in expected)


def _root(key, explained_by):
    """Follow the explanations to their end, and a circle to `None`."""
    for _ in range(12):
        cause = explained_by[key]
        if cause is None:
            return key
        key = cause
    return None


@given(st.lists(st.floats(0.8, 0.999), max_size=50))
def test_between_the_thresholds_a_latch_stays_as_it_is(levels):
    """A value that hovers below the threshold neither turns it on nor, once it is on, off."""
    off, on = Latch(), Latch(on_ticks=1)
    on.update(1.0, 0.0)

    assert not any(off.update(level, 1.0) for level in levels)
    assert all(on.update(level, 1.0) for level in levels)


def test_a_latch_knows_when_what_turned_it_on_began():
    """The first of the ticks in a row counts, not one that stood alone."""
    latch = Latch(on_ticks=2)

    for at_s, level in ((1.0, 1.0), (2.0, 0.5), (3.0, 1.0), (4.0, 1.0), (5.0, 1.0)):
        latch.update(level, at_s)

    assert latch.since_s == 3.0
