"""Thresholds and the tracestate entry that tells of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from otel_inference.sampling.threshold import (
    MAX_THRESHOLD,
    RANDOM_MASK,
    OtEntry,
    format_threshold,
    probability_of,
    threshold_of,
)
from otel_inference.sampling.tracestate import random_value, with_threshold

SPECIFIED = [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.01, "fd70a3d70a3d71"), (0.1, "e6666666666666"), (2**-56, "f" * 14)]
"""Of the specification, its figure for 1 % with all 14 digits; the smallest probability is the last."""


@pytest.mark.parametrize(("probability", "text"), SPECIFIED)
def test_writes_thresholds_as_specified(probability, text):
    """A probability has the threshold that the specification gives it, and comes back from it."""
    entry = OtEntry(threshold=threshold_of(probability))

    assert entry.format() == f"th:{text}"
    assert probability_of(OtEntry.parse(entry.format()).threshold) == pytest.approx(probability, rel=1e-12)


def test_keeps_nothing_below_the_smallest_probability():
    """A threshold above all random values keeps none of them, and is not written."""
    assert threshold_of(0.0) == threshold_of(-1.0) == MAX_THRESHOLD > RANDOM_MASK
    assert OtEntry(threshold=MAX_THRESHOLD).format() == ""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, RANDOM_MASK), st.none() | st.integers(0, RANDOM_MASK), st.lists(st.sampled_from(["a:b", "x:"])))
def test_reads_back_what_it_writes(threshold, value, others):
    """An entry is the same after it was written and read."""
    entry = OtEntry(threshold=threshold, random_value=value, others=tuple(others[:8]))

    assert OtEntry.parse(entry.format()) == entry


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_reads_whatever_comes(text):
    """No text fails, and no member is made up."""
    entry = OtEntry.parse(text)

    assert set(entry.others) <= set(text.split(";"))


@pytest.mark.parametrize(
    "member", ["th:", "th:xyz", "th:0123456789abcde", "rv:c", "rv:0123456789abcg", "th:-1", "rv:+1234567890abc"]
)
def test_leaves_out_what_means_nothing(member):
    """A threshold or random value that is none is as good as not there."""
    assert OtEntry.parse(member) == OtEntry()


def test_cuts_an_entry_that_would_be_too_long():
    """Other members give way, from the last, where the entry had more characters than a tracestate takes."""
    text = OtEntry(threshold=0, others=tuple(f"k{number}:{'x' * 50}" for number in range(9))).format()

    assert len(text) <= 256
    assert OtEntry.parse(text).threshold == 0


def test_is_consistent():
    """What a smaller probability keeps a greater one keeps too, and each keeps its share."""
    source = random.Random(1)
    values = [source.getrandbits(56) for _ in range(20_000)]
    kept = {p: {value for value in values if value >= threshold_of(p)} for p in (0.01, 0.1, 0.5, 1.0)}

    assert kept[0.01] < kept[0.1] < kept[0.5] < kept[1.0]
    for probability, found in kept.items():
        error = (len(values) * probability * (1 - probability)) ** 0.5
        assert abs(len(found) - len(values) * probability) <= 4 * error + 2


def test_agrees_with_the_sdk():
    """The experimental samplers of the SDK have the same thresholds."""
    experimental = pytest.importorskip("opentelemetry.sdk.trace._sampling_experimental._util")

    for probability in (1.0, 0.3, 0.01, 1e-9):
        assert threshold_of(probability) == experimental.calculate_threshold(probability)
    assert format_threshold(threshold_of(0.25)) == "c"


def test_keeps_the_rest_of_a_tracestate():
    """Entries of other vendors, and other members of ours, survive a threshold being written and erased."""
    state = TraceState([("vendor", "1"), ("ot", "rv:0123456789abcd;x:y"), ("other", "2")])

    written = with_threshold(state, threshold_of(0.25))
    assert dict(written) == {"vendor": "1", "ot": "th:c;rv:0123456789abcd;x:y", "other": "2"}
    assert dict(with_threshold(written, None)) == dict(state)
    assert dict(with_threshold(TraceState([("ot", "th:c"), ("a", "b")]), None)) == {"a": "b"}
    assert with_threshold(None, None) is None
    assert dict(with_threshold(None, 0)) == {"ot": "th:0"}


def test_finds_the_random_bits():
    """`rv` goes before the last 56 bits of the trace id."""
    trace_id = (7 << 56) | 5

    assert random_value(trace_id, None) == 5
    assert random_value(trace_id, TraceState([("ot", "th:c")])) == 5
    assert random_value(trace_id, TraceState([("ot", "rv:0000000000000a")])) == 10
