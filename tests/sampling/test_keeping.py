"""Which spans are exported for a cause, and for how many they stand."""

from __future__ import annotations

from otel_inference.sampling.buffer import TraceBuffer
from otel_inference.sampling.keeping import ERROR, MAX_KEPT, MAX_SPANS, SLOW, Cause, Keeping

FAILED, TOO_SLOW = Cause("ranker", ERROR), Cause("ranker", SLOW)


def ended(keeping, span, *, trace=1, now_s=0.0, cause=None, root=False):
    """One span ends; gives what is exported as (span, why, for how many)."""
    return [tuple(one) for one in keeping.ended(trace, span, now_s, cause=cause, is_local_root=root)]


def test_exports_a_trace_with_what_went_before_and_comes_after():
    """At the cause all that has ended of the trace is exported, later spans when they end."""
    keeping = Keeping(10.0)
    assert ended(keeping, "prepare") == []
    assert ended(keeping, "call", cause=FAILED) == [("prepare", ERROR, 0), ("call", ERROR, 1)]
    assert ended(keeping, "render") == [("render", ERROR, 0)]
    assert ended(keeping, "server", root=True) == [("server", ERROR, 0)]
    assert ended(keeping, "late") == [("late", ERROR, 0)]


def test_forgets_a_trace_that_ends_well():
    """Nothing is held of a trace whose local root has ended without a cause."""
    keeping = Keeping(10.0)
    ended(keeping, "call")
    assert keeping.knows(1)
    assert ended(keeping, "server", root=True) == []
    assert not keeping.knows(1)


def test_names_each_cause():
    """A failure in a trace that is kept for a slow call says so itself."""
    keeping = Keeping(10.0)
    ended(keeping, "slow", cause=TOO_SLOW)

    assert ended(keeping, "failed", cause=FAILED) == [("failed", ERROR, 1)]
    assert ended(keeping, "server", root=True) == [("server", SLOW, 0)]


def test_hands_on_the_weight_of_what_met_the_limit():
    """The next failure kept of the model stands for those that were turned away; the sum is exact."""
    keeping = Keeping(2.0)
    exported = []
    for number in range(1000):
        exported += ended(keeping, "call", trace=number, now_s=number / 100, cause=FAILED, root=True)
    exported += ended(keeping, "call", trace=1000, now_s=20.0, cause=FAILED, root=True)

    assert len(exported) == 21
    assert sum(weight for _, _, weight in exported) == 1001


def test_keeps_the_failures_of_a_quiet_model_beside_a_storm():
    """A model whose calls all fail, very often, leaves room for the failures of others."""
    keeping = Keeping(20.0)
    quiet = 0
    for number in range(20_000):
        ended(keeping, "call", trace=number, now_s=number / 2000, cause=FAILED, root=True)
        if number % 1000 == 500:
            cause = Cause("quiet", ERROR)
            quiet += len(ended(keeping, "call", trace=-1 - number, now_s=number / 2000, cause=cause, root=True))

    assert quiet >= 19


def test_bounds_what_one_long_trace_exports():
    """A trace that goes on for ever exports no more than so many spans for one cause, then its root."""
    keeping = Keeping(10.0)
    ended(keeping, "call", cause=FAILED)
    later = [ended(keeping, number) for number in range(1000)]

    assert sum(map(len, later)) == MAX_SPANS - 1
    assert len(ended(keeping, "again", now_s=5.0, cause=FAILED)) == MAX_SPANS + 1  # with those held since
    assert len(ended(keeping, "root", root=True)) == 1


def test_exports_the_root_of_a_trace_whose_spans_are_used_up():
    """However many spans a trace has, its local root is exported."""
    keeping = Keeping(10.0)
    ended(keeping, "call", cause=FAILED)
    for number in range(1000):
        ended(keeping, number)

    assert ended(keeping, "root", root=True) == [("root", ERROR, 0)]


def test_remembers_a_bounded_number_of_traces():
    """Kept traces are remembered up to a bound, causes that are owed too."""
    keeping = Keeping(1e5, TraceBuffer(max_traces=4))
    for number in range(MAX_KEPT + 10):
        ended(keeping, "call", trace=number, cause=Cause(f"model {number}", ERROR))
    assert not keeping.knows(9)
    assert keeping.knows(10)

    poor = Keeping(0.001)
    for number in range(5000):
        ended(poor, "call", trace=number, cause=Cause(f"model {number}", ERROR), root=True)
    assert len(poor._owed) <= 256
    assert poor.given_up == 4999
    poor.clear()
    assert not poor.knows(0)
