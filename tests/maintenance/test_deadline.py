"""Until when an answer is of use: said in code, by a header, or in baggage."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest
from opentelemetry import baggage, context

from otel_inference.errors import ConfigError
from otel_inference.maintenance.deadline import asked, deadline, outer_deadline, seconds_of

USUAL_S = 10.0


def remaining_s(usual_s):
    """Seconds left to a request that has come just now."""
    request = asked()
    return usual_s if request is None else request.left_s(usual_s)


@pytest.fixture
def now_s(monkeypatch):
    """Both clocks, which stand still: `now_s[0]` since some start, and a million seconds more since 1970."""
    now_s = [1000.0]
    monkeypatch.setattr("otel_inference.maintenance.deadline.monotonic", lambda: now_s[0])
    monkeypatch.setattr("otel_inference.maintenance.deadline.time", lambda: now_s[0] + 1e9)
    return now_s


def with_baggage(value):
    """What remains with `value` as baggage."""
    token = context.attach(baggage.set_baggage("inference.deadline", value))
    try:
        return remaining_s(USUAL_S)
    finally:
        context.detach(token)


def test_is_the_limiters_without_any_other(now_s):
    """A request that says nothing has the limiter's deadline, to the last digit."""
    assert remaining_s(USUAL_S) == USUAL_S


def test_runs_down(now_s):
    """What remains of a deadline shrinks with time, and is negative when it has passed."""
    with deadline(2.0):
        assert remaining_s(USUAL_S) == 2.0
        now_s[0] += 5.0
        assert remaining_s(USUAL_S) == -3.0
    assert remaining_s(USUAL_S) == USUAL_S


@pytest.mark.parametrize(("outer_s", "inner_s", "expected_s"), [(60.0, 30.0, 30.0), (30.0, 60.0, 30.0)])
def test_an_inner_block_only_shortens(now_s, outer_s, inner_s, expected_s):
    """Code may give more time than the limiter does, and a block inside may take of it, not add to it."""
    with deadline(outer_s):
        with deadline(inner_s):
            assert remaining_s(USUAL_S) == expected_s
        assert remaining_s(USUAL_S) == outer_s


def test_outsiders_only_shorten(now_s):
    """What comes from outside counts where it is shorter than what the limiter or the code says."""
    for seconds, expected_s in ((4.0, 4.0), (60.0, USUAL_S), (None, USUAL_S)):
        with outer_deadline(seconds):
            assert remaining_s(USUAL_S) == expected_s
    with deadline(60.0), outer_deadline(30.0):
        assert remaining_s(USUAL_S) == 30.0


@pytest.mark.parametrize(
    ("value", "expected_s"),
    [
        ("1000001004", 4.0),
        ("1000001000.5", 0.5),
        ("1000000999.0;source=gateway", -1.0),
        (1000001003, 3.0),
        ("1000009999", USUAL_S),
    ],
)
def test_baggage_says_the_time_of_day(now_s, value, expected_s):
    """Baggage holds seconds since 1970; it may shorten, not lengthen."""
    assert with_baggage(value) == expected_s


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf", "-inf", "0.5", "1000001004000", "1e999", "12:30", "🙂"])
def test_ignores_baggage_without_sense(now_s, value):
    """What is no time of these days is as good as nothing: text, seconds left, milliseconds, no number."""
    assert with_baggage(value) == USUAL_S


def test_goes_along_with_the_context():
    """Tasks and `asyncio.to_thread` have the deadline of the block they were started in; a thread of its own has none."""

    async def main():
        with deadline(100.0):
            task = asyncio.create_task(asyncio.to_thread(remaining_s, USUAL_S))
        return await task

    found = []
    with deadline(100.0):
        thread = threading.Thread(target=lambda: found.append(remaining_s(USUAL_S)))
        thread.start()
        thread.join()

    assert 10.0 < asyncio.run(main()) <= 100.0
    assert found == [USUAL_S]


def test_ends_in_another_context_without_harm():
    """A generator that a framework ends in another context than it began leaves no deadline there and raises nothing."""

    def dependency():
        with deadline(100.0):
            yield

    generator = dependency()
    contextvars.copy_context().run(next, generator)
    contextvars.copy_context().run(next, generator, None)

    assert remaining_s(USUAL_S) == USUAL_S


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")])
def test_refuses_what_is_no_duration(seconds):
    """In code a deadline that is no finite number is a mistake, and the message says what was expected."""
    with pytest.raises(ConfigError, match=r"expected a finite number of seconds"), deadline(seconds):
        pass


def test_reads_the_real_clocks():
    """Deadlines in code and in baggage agree about now."""
    with deadline(3.0):
        assert remaining_s(USUAL_S) == pytest.approx(3.0, abs=2.0)
    assert with_baggage(str(time.time() + 5.0)) == pytest.approx(5.0, abs=2.0)


@pytest.mark.parametrize("header", ["", "-1", "nan", "inf", "1e9", "five", "0x10"])
def test_ignores_headers_without_sense(header):
    """A header is seconds, no more than a day of them, or nothing."""
    assert seconds_of(header) is None
    assert seconds_of(" 0.5 ") == 0.5
