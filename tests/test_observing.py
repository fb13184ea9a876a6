"""`observe()` over functions, coroutines, generators, asynchronous generators and blocks."""

from __future__ import annotations

import asyncio
import gc
import inspect

import pytest
from opentelemetry import trace

from otel_inference import ConfigError, observe


def test_observes_a_function(telemetry):
    """A decorated function is a call with the sizes computed from its arguments."""

    @observe("ranker", "predict", batch_size=len, input_size=lambda rows: sum(map(len, rows)))
    def predict(rows):
        """Rank."""
        return rows[0]

    assert predict([[1, 2], [3, 4]]) == [1, 2]
    (span,) = telemetry.spans()
    assert predict.__doc__ == "Rank."
    assert span.name == "predict ranker"
    assert span.attributes["inference.engine"] == "custom"
    assert (span.attributes["inference.batch.size"], span.attributes["inference.input.size"]) == (2, 4)


def test_observes_a_coroutine(telemetry):
    """Tasks that run at once are one call each, whatever their order."""

    @observe("ranker")
    async def predict(delay_s):
        await asyncio.sleep(delay_s)
        return delay_s

    async def serve():
        return await asyncio.gather(*(predict(delay_s) for delay_s in (0.02, 0.0, 0.01)))

    assert asyncio.run(serve()) == [0.02, 0.0, 0.01]
    assert len(telemetry.spans()) == 3
    assert {span.parent for span in telemetry.spans()} == {None}


def test_ends_a_cancelled_coroutine(telemetry):
    """A cancelled task ends its call, as failed, and is cancelled."""

    @observe("ranker")
    async def predict():
        await asyncio.sleep(60)

    async def serve():
        task = asyncio.create_task(predict())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(serve())
    (span,) = telemetry.spans()
    assert span.attributes["error.type"] == "asyncio.exceptions.CancelledError"


@observe("writer", "stream")
def stream(fail_at=None):
    """Yield numbers and what is sent in, and return 'end'."""
    sent = []
    for number in range(3):
        if number == fail_at:
            msg = "no"
            raise ValueError(msg)
        try:
            sent.append((yield number))
        except KeyError:
            sent.append("thrown")
    return sent


def test_observes_a_generator_to_its_end(telemetry):
    """A generator's call ends with its last item; what is sent, thrown and returned gets through."""
    items = stream()
    assert inspect.isgeneratorfunction(stream)
    assert [next(items), items.send("a"), items.throw(KeyError())] == [0, 1, 2]
    assert telemetry.spans() == []
    with pytest.raises(StopIteration) as stop:
        next(items)

    assert stop.value.value == ["a", "thrown", None]
    assert len(telemetry.spans()) == 1


def test_is_not_current_between_two_items(telemetry):
    """Between items the consumer's own context is current, also for calls it makes meanwhile."""
    for _ in stream():
        assert not trace.get_current_span().get_span_context().is_valid
        with observe("consumer"):
            pass

    assert [span.name for span in telemetry.spans()] == ["call consumer"] * 3 + ["stream writer"]
    assert {span.parent for span in telemetry.spans()} == {None}


@pytest.mark.parametrize("close", [lambda items: items.close(), lambda _: None], ids=["closed", "dropped"])
def test_ends_a_generator_that_is_left(telemetry, close):
    """A generator closed or dropped early ends its call, without an error."""
    items = stream()
    next(items)
    close(items)
    del items
    gc.collect()

    (span,) = telemetry.spans()
    assert "error.type" not in span.attributes


def test_counts_no_generator_that_never_ran(telemetry):
    """A generator that nobody asked for an item has done nothing, and is no call."""
    stream().close()

    assert telemetry.spans() == []
    assert telemetry.points("inference.active_calls") == []


def test_ends_a_generator_that_fails(telemetry):
    """An exception inside a generator reaches the consumer and ends the call as failed."""
    with pytest.raises(ValueError, match="no"):
        list(stream(fail_at=1))

    (span,) = telemetry.spans()
    assert span.attributes["error.type"] == "ValueError"


@observe("writer", "stream")
async def stream_later(fail_at=None):
    """Yield numbers, and note what is sent in."""
    for number in range(3):
        await asyncio.sleep(0)
        if number == fail_at:
            msg = "no"
            raise ValueError(msg)
        try:
            yield number
        except KeyError:
            yield "caught"


def test_observes_an_asynchronous_generator(telemetry):
    """An asynchronous generator is one call to its end, closed early or failed, and never detaches wrongly."""

    async def serve():
        assert [item async for item in stream_later()] == [0, 1, 2]
        items = stream_later()
        assert await anext(items) == 0
        assert await items.athrow(KeyError()) == "caught"
        await items.aclose()
        with pytest.raises(ValueError, match="no"):
            assert [item async for item in stream_later(fail_at=1)]

    asyncio.run(serve())
    assert inspect.isasyncgenfunction(stream_later)
    assert [span.attributes.get("error.type") for span in telemetry.spans()] == [None, None, "ValueError"]


def test_closes_an_asynchronous_generator_in_another_task(telemetry, caplog):
    """Finished in another task than it was begun in, a generator still ends its call, without a complaint."""

    async def serve():
        items = stream_later()
        await asyncio.create_task(_first(items))
        await asyncio.create_task(_close(items))

    async def _first(items):
        return await anext(items)

    async def _close(items):
        await items.aclose()

    asyncio.run(serve())
    assert len(telemetry.spans()) == 1
    assert caplog.records == []


def test_observes_a_block(telemetry):
    """A block says what it knows, and that it failed without raising."""
    with observe("writer", "answer") as call:
        call.set(batch_size=1, input_size=7, device="cuda:1", input_tokens=7, output_tokens=5)
        call.fail(TimeoutError("too late"))

    (span,) = telemetry.spans()
    expected = {
        "inference.batch.size": 1,
        "inference.input.size": 7,
        "inference.device": "cuda:1",
        "gen_ai.operation.name": "text_completion",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
        "error.type": "TimeoutError",
    }
    assert dict(span.attributes).items() >= expected.items()
    assert telemetry.points("gen_ai.client.token.usage")[1].sum == 5


def test_serves_many_tasks_with_one_block(telemetry):
    """One `observe` object entered by several tasks at once keeps their calls apart."""
    block = observe("ranker")

    async def work(delay_s):
        async with block as call:
            await asyncio.sleep(delay_s)
            call.set(input_size=int(delay_s * 1000))

    async def serve():
        await asyncio.gather(*(work(delay_s) for delay_s in (0.03, 0.01, 0.02)))

    asyncio.run(serve())
    assert [span.attributes["inference.input.size"] for span in telemetry.spans()] == [10, 20, 30]


def test_does_nothing_uninstrumented():
    """Without `instrument()` observed code runs as if undecorated."""
    with observe("ranker") as call:
        call.set(batch_size=1)
        call.fail(ValueError())

    assert list(stream()) == [0, 1, 2]


@pytest.mark.parametrize("arguments", [("",), (None,), ("ranker", "")])
def test_refuses_a_name_that_is_none(arguments):
    """A missing name is refused where it is written, with what was expected."""
    with pytest.raises(ConfigError, match="non-empty string"):
        observe(*arguments)
