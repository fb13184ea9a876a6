"""How long calls take, as learned from those that ended."""

from __future__ import annotations

import pytest

from otel_inference.maintenance.service_time import ServiceTime


def test_first_calls_teach_nothing():
    """Compilation is not what the next call will take; each class of sizes has its own first calls."""
    service = ServiceTime()
    for size in (None, 10, 1000):
        assert [service.learn(60.0, size) for _ in range(3)] == [0.0, 0.0, 0.0]

    assert service.mean_s == 0.0
    assert service.learn(0.1, 10) == 0.1


def test_an_outlier_counts_for_little():
    """One call a thousand times as long as usual moves the mean by a fifth."""
    service = ServiceTime()
    for _ in range(100):
        service.learn(0.1, None)
    service.learn(100.0, None)

    assert service.mean_s == pytest.approx(0.118)


def test_a_slower_machine_is_noticed_in_fifty_calls():
    """The mean follows, and the high quantile with it at once."""
    service = ServiceTime()
    for _ in range(100):
        service.learn(0.1, None)
    ratio = service.high_s / service.mean_s
    for _ in range(100):
        service.learn(0.3, None)

    assert service.mean_s == pytest.approx(0.3, rel=0.15)
    assert service.high_s == pytest.approx(ratio * service.mean_s, rel=0.5)


def test_the_high_quantile_is_one():
    """Of times that are evenly spread from 0 to 1 about nine in ten are shorter."""
    service = ServiceTime()
    above = 0
    for call in range(5000):
        time_s = (call * 0.6180339887) % 1.0
        above += call >= 1000 and time_s > service.high_s
        service.learn(time_s, None)

    assert above / 4000 == pytest.approx(0.1, abs=0.02)
