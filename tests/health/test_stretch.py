"""What ended in ten seconds."""

from __future__ import annotations

import math

import pytest

from otel_inference.health.stretch import MAX_SIZES, STRETCH_S, Exemplar, SizeKey, Stretch
from otel_inference.telemetry.registry import ModelStatistics


def test_sums_calls_by_size_and_outcome():
    """A failed, a rejected and a cold call count, and only the others have durations."""
    stretch = Stretch(0.0, STRETCH_S)
    stretch.add(0.2, input_size=100, queue_s=0.05, exemplar=Exemplar(1, 2))
    stretch.add(0.1, input_size=100, exemplar=Exemplar(3, 4))
    stretch.add(5.0, failed=True, exemplar=Exemplar(5, 6))
    stretch.add(0.0, failed=True, rejected=True, exemplar=Exemplar(7, 8))  # no failure of the model's own
    stretch.add(9.0, cold=True)

    assert (stretch.calls, stretch.errors, stretch.rejected, stretch.cold) == (5, 2, 1, 1)
    assert (stretch.duration_s, stretch.max_s, stretch.queue_s) == pytest.approx((0.3, 0.2, 0.05))
    assert (stretch.slowest, stretch.failed) == (Exemplar(1, 2), Exemplar(5, 6))
    (totals,) = stretch.by_size.values()
    assert totals.calls == 2
    assert totals.service_s == pytest.approx(0.25)
    assert totals.log_service == pytest.approx(math.log(0.15) + math.log(0.1))


def test_tells_generations_apart_by_both_sizes():
    """A generation's class is of powers of two of what it read and wrote, and that of other calls is finer."""
    stretch = Stretch(0.0, STRETCH_S)
    stretch.add(0.1, input_size=100, output_tokens=30)
    stretch.add(0.1, input_size=120, output_tokens=20)
    stretch.add(0.1, input_size=120)

    assert {key: totals.calls for key, totals in stretch.by_size.items()} == {SizeKey(12, 8): 2, SizeKey(13, -1): 1}


def test_keeps_a_bounded_number_of_sizes():
    """Calls of more sizes than are kept apart are counted as of unknown size, and none is lost."""
    stretch = Stretch(0.0, STRETCH_S)
    for exponent in range(40):
        stretch.add(0.1, input_size=2**exponent)

    assert len(stretch.by_size) == MAX_SIZES + 1
    assert sum(totals.calls for totals in stretch.by_size.values()) == 40


def test_hands_out_each_completed_stretch_once():
    """Stretches come in order with the idle ones between, each call in one, and an idle hour costs no memory."""
    now_s = 0.0
    statistics = ModelStatistics(60.0, lambda: now_s, 0.0)

    def end_at(at_s):
        nonlocal now_s
        now_s = at_s
        statistics.ended(at_s, 0.01, failed=False, cold=False, size=1)

    end_at(1.0)
    end_at(21.0)
    taken = statistics.take_stretches()
    assert [(stretch.started_s, stretch.calls) for stretch in taken] == [(0.0, 1), (10.0, 0)]
    assert statistics.take_stretches() == ()

    end_at(3600.0)
    taken = statistics.take_stretches()
    assert [(stretch.started_s, stretch.calls) for stretch in taken] == [(3580.0, 0), (3590.0, 0)]
    now_s = 3611.0
    assert [stretch.calls for stretch in statistics.take_stretches()] == [1]
