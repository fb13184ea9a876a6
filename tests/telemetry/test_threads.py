"""Which threads run calls now."""

from __future__ import annotations

import os
import threading

import pytest

import otel_inference
from otel_inference import observe, runtime


def _threads():
    return runtime._running.recorder.running.threads()


def test_a_thread_runs_a_call_from_its_begin_to_its_end(telemetry):
    """Whether the call is a block or a function, and loads of models are none."""
    own = threading.get_native_id()

    @observe("ranker")
    def rank():
        return _threads()

    assert _threads() == set()
    with observe("ranker"):
        assert _threads() == {own}
    assert rank() == {own}
    assert _threads() == set()


def test_between_two_items_no_thread_runs_the_stream(telemetry):
    """The consumer has the thread, and the next item may be asked for in another one."""
    seen = []

    @observe("ranker")
    def items():
        while True:
            seen.append(_threads())
            yield

    stream = items()
    next(stream)
    assert _threads() == set()
    thread = threading.Thread(target=next, args=(stream,))
    thread.start()
    native_id = thread.native_id
    thread.join()
    stream.close()

    assert seen == [{threading.get_native_id()}, {native_id}]


def test_a_call_that_waits_for_a_place_is_not_run(telemetry):
    """A limiter makes it wait, and that is no lock of the model's."""
    seen = []

    class Place:
        waited_s = 0.0

        def release(self, *, ok=True):
            del ok

    class Limiter:
        limit, in_use, rejected = 1, 0, 0

        def acquire(self, _model, _size=None):
            seen.append(_threads())
            return Place()

        async def acquire_async(self, model, size=None):
            return self.acquire(model, size)

    otel_inference.limit("ranker", Limiter())
    try:
        with observe("ranker"):
            seen.append(_threads())
    finally:
        otel_inference.unlimit("ranker")

    assert seen == [set(), {threading.get_native_id()}]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_runs_its_calls_in_a_thread_of_its_own(telemetry):
    """The kernel gives it another id than the thread had that forked, inside a call or not."""
    with observe("ranker"):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with observe("ranker"):
                    status = 0 if _threads() == {threading.get_native_id()} else 1
            finally:
                os._exit(status)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
