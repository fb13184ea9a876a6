"""Spans held until their trace is decided about."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.sampling.buffer import TraceBuffer


def test_hands_out_a_trace_once():
    """A trace's spans come in their order, and are gone afterwards."""
    buffer = TraceBuffer()
    for span in "abc":
        buffer.hold(1, span, 0.0)
    buffer.hold(2, "other", 0.0)

    assert 1 in buffer
    assert (buffer.take(1), buffer.take(1), buffer.spans) == (["a", "b", "c"], [], 1)
    assert 1 not in buffer


def test_holds_the_last_spans_of_a_long_trace():
    """Of a trace with very many spans the last are held."""
    buffer = TraceBuffer(max_spans_per_trace=3)
    for span in range(10):
        buffer.hold(1, span, 0.0)

    assert (buffer.spans, buffer.given_up) == (3, 7)
    assert buffer.take(1) == [7, 8, 9]


def test_gives_up_old_traces():
    """A trace to which nothing was added for too long goes; one that goes on stays."""
    buffer = TraceBuffer(max_age_s=60.0)
    buffer.hold(1, "a", 0.0)
    buffer.hold(2, "b", 10.0)
    buffer.hold(1, "c", 55.0)
    buffer.hold(3, "d", 71.0)

    assert [trace_id in buffer for trace_id in (1, 2, 3)] == [True, False, True]
    assert buffer.given_up == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.floats(0, 9)), max_size=120))
def test_stays_within_its_bounds(steps):
    """Whatever comes, traces and spans stay within the bounds, and every span is somewhere."""
    buffer, now_s, taken = TraceBuffer(max_traces=5, max_spans=12, max_spans_per_trace=4, max_age_s=30.0), 0.0, 0
    held = 0
    for trace_id, is_last, step_s in steps:
        now_s += step_s
        if is_last:
            taken += len(buffer.take(trace_id))
        else:
            buffer.hold(trace_id, "span", now_s)
            held += 1
        assert len(buffer) <= 5
        assert buffer.spans <= 12
        assert buffer.spans + buffer.given_up + taken == held


def test_clears():
    """A cleared buffer holds nothing."""
    buffer = TraceBuffer()
    buffer.hold(1, "a", 0.0)
    buffer.clear()

    assert (len(buffer), buffer.spans) == (0, 0)
