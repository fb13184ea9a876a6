"""What every engine owes its host, checked over all of them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_inference import OverloadedError, observe, runtime


class _StubSession:
    """Stands where onnxruntime's C++ session stands, and answers with what it is told to."""

    def __init__(self, real, behave):
        self._real = real
        self._behave = behave

    def run(self, *_):
        return self._behave()

    def __getattr__(self, name):
        return getattr(self._real, name)


def torch_call(behave, request):
    """`torch.nn.Module.__call__`."""
    import torch

    class Host(torch.nn.Module):
        def forward(self, _):
            return behave()

    module = Host().eval()
    return lambda: module(torch.ones(2, 3))


def generate_call(behave, request):
    """`GenerationMixin.generate`."""
    import torch

    model = request.getfixturevalue("gpt2")
    model.__class__ = type("Host", (type(model),), {"_sample": lambda *_, **__: behave()})
    ids = torch.full((2, 3), 5)
    return lambda: model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2)


def pipeline_call(behave, request):
    """`Pipeline.__call__`."""
    from transformers.pipelines.base import Pipeline

    class Host(Pipeline):
        def _sanitize_parameters(self, **_):
            return {}, {}, {}

        def preprocess(self, inputs):
            return {"input_ids": inputs}

        def _forward(self, _):
            return {}

        def postprocess(self, _):
            return behave()

    pipeline = Host(model=request.getfixturevalue("gpt2"))
    return lambda: pipeline("text")


def onnxruntime_call(behave, request):
    """`InferenceSession.run`."""
    import numpy as np

    session = request.getfixturevalue("session")
    session._sess = _StubSession(session._sess, behave)
    return lambda: session.run(None, {"rows": np.ones((2, 3), np.float32)})


def observed_call(behave, request):
    """A function under `observe`."""
    return observe("observed")(behave)


ENGINES = [torch_call, generate_call, pipeline_call, onnxruntime_call, observed_call]


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.__name__)
def host_call(request, telemetry):
    """Makes the host's call of each engine, whose innermost function is given."""
    return lambda behave: request.param(behave, request)


@pytest.fixture
def calls(telemetry):
    """Ended calls so far, as spans, without loads."""
    return lambda: [span for span in telemetry.spans() if not span.name.startswith("load ")]


def test_returns_the_very_object(host_call, calls):
    """The host gets the object that the engine returned, and there is one span."""
    answer = object()

    assert host_call(lambda: answer)() is answer
    assert len(calls()) == 1


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, asyncio.CancelledError, MemoryError])
def test_raises_the_very_exception(host_call, calls, telemetry, kind):
    """Whatever ends a call reaches the host as it is, and ends the call once, as failed."""
    error = kind("no")

    def behave():
        raise error

    with pytest.raises(kind) as caught:
        host_call(behave)()

    (span,) = calls()
    expected = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    assert caught.value is error
    assert (error.__cause__, error.__suppress_context__) == (None, False)
    assert span.attributes["error.type"] == expected
    assert not span.status.is_ok
    assert (span.events[0].name, span.events[0].timestamp) == ("exception", span.end_time)
    assert telemetry.count("inference.call.duration") == 1
    assert all(point.value == 0 for point in telemetry.points("inference.active_calls"))


def test_keeps_no_reference(host_call, calls):
    """Neither the result nor the exception outlives the call on our account."""

    class Thing(Exception):  # noqa: N818 - a result here and an exception there
        pass

    def give():
        return box.pop()

    def throw():
        raise box.pop()

    for behave in (give, throw):
        box = [Thing()]
        reference = weakref.ref(box[0])
        with contextlib.suppress(Thing):
            host_call(behave)()
        gc.collect()
        assert reference() is None


def test_counts_every_thread(host_call, calls):
    """Calls of several threads at once are all counted, each on its own."""
    barrier = threading.Barrier(4)
    call = host_call(lambda: None)

    def work():
        barrier.wait()
        for _ in range(25):
            call()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(calls()) == 100


def test_counts_nothing_inside_an_outer_call(host_call, calls):
    """A call inside another is part of it, and the same call outside is one more."""
    call = host_call(lambda: None)

    with observe("outer"):
        call()
        call()
    call()

    assert [span.name.split()[-1] == "outer" for span in calls()] == [True, False]


def test_counts_what_an_ended_call_left_behind(host_call, calls):
    """A context copied inside a call may live on: calls made in it afterwards are counted."""
    call = host_call(lambda: None)

    with observe("outer"):
        left_behind = contextvars.copy_context()
    left_behind.run(call)

    assert len(calls()) == 2


def test_honours_suppression(host_call, calls, telemetry):
    """Under `suppress_instrumentation()` there is neither a span nor a measurement."""
    call = host_call(lambda: None)

    with suppress_instrumentation():
        call()

    assert calls() == []
    assert telemetry.points("inference.call.duration") == []


def test_does_nothing_after_uninstrument(host_call, calls):
    """After `uninstrument()` the same objects work, unseen."""
    answer = object()
    call = host_call(lambda: answer)
    runtime.uninstrument()

    assert call() is answer
    assert calls() == []


def test_parents_the_spans_of_the_host(host_call, calls, telemetry):
    """What the host traces inside a call is a child of the call, which is a child of what is around."""
    tracer = telemetry.tracer_provider.get_tracer("host")

    def behave():
        with tracer.start_as_current_span("inner"):
            pass

    call = host_call(behave)
    with tracer.start_as_current_span("around"):
        call()

    inner, ours, around = telemetry.spans()[-3:]
    assert (inner.parent.span_id, ours.parent.span_id) == (ours.context.span_id, around.context.span_id)


def test_follows_asyncio_to_thread(host_call, calls, telemetry):
    """In `asyncio.to_thread` the parent span is kept."""
    tracer = telemetry.tracer_provider.get_tracer("host")
    call = host_call(lambda: None)

    async def serve():
        with tracer.start_as_current_span("request"):
            await asyncio.gather(*(asyncio.to_thread(call) for _ in range(3)))

    asyncio.run(serve())

    *ours, request = calls()
    assert [span.parent.span_id for span in ours] == [request.context.span_id] * 3


class _Place:
    """A place that knows when it was given back."""

    def __init__(self, waited_s):
        self.waited_s = waited_s
        self.released = []

    def release(self, *, ok=True):
        self.released.append(ok)


class _Limiter:
    """Gives a place to each call, or none to any."""

    def __init__(self, *, waited_s=0.0, full=False):
        self.asked, self.places = [], []
        self._waited_s, self._full = waited_s, full
        self.limit, self.in_use, self.rejected = 1, 0, 0

    def acquire(self, model, size=None):
        self.asked.append((model, size))
        if self._full:
            raise OverloadedError(model, 0.5)
        self.places.append(_Place(self._waited_s))
        return self.places[-1]

    async def acquire_async(self, model, size=None):
        return self.acquire(model, size)


@pytest.fixture
def limited(host_call, calls):
    """The host's call behind a limiter, warmed up, with what ends after that."""

    @contextlib.contextmanager
    def behind(limiter, behave):
        call = host_call(behave)
        with contextlib.suppress(ValueError):
            call()
        model = calls()[-1].attributes["inference.model"]
        runtime.limit(model, limiter)
        try:
            yield call, model, lambda: calls()[1:]
        finally:
            runtime.unlimit(model)

    return behind


def test_asks_a_limiter_once(limited):
    """An outermost call takes one place, waits before the engine begins and gives it back when it ended."""
    limiter = _Limiter(waited_s=0.25)
    in_use = []
    with limited(limiter, lambda: in_use.append([list(place.released) for place in limiter.places])) as (
        call,
        model,
        ended,
    ):
        call()
        (span,) = ended()

    assert [asked for asked, _ in limiter.asked] == [model]
    assert in_use[1:] == [[[]]]
    assert [place.released for place in limiter.places] == [[True]]
    assert span.attributes["inference.queue.duration"] == 0.25


def test_gives_a_place_back_after_a_failure(limited):
    """A call that fails gives its place back once, and says that its time means nothing."""

    def behave():
        raise ValueError

    limiter = _Limiter()
    with limited(limiter, behave) as (call, _, __), pytest.raises(ValueError, match=r"^$"):
        call()

    assert [place.released for place in limiter.places] == [[False]]


def test_turns_a_call_away(limited, telemetry):
    """A call without a place raises `OverloadedError`, never reaches the engine, and is a failed call with no latency."""
    reached = []
    with limited(_Limiter(full=True), lambda: reached.append(1)) as (call, model, ended):
        with pytest.raises(OverloadedError) as caught:
            call()
        (span,) = ended()
        health = runtime.health(model)

    assert (caught.value.model, caught.value.retry_after_s) == (model, 0.5)
    assert len(reached) == 1
    assert span.attributes["error.type"] == "otel_inference.errors.OverloadedError"
    assert (health.calls, health.errors, health.window.warm_calls) == (2, 1, 0)
