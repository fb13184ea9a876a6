"""Asking a limiter for a place before a call is worked on, and giving the place back when it has ended."""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING

from otel_inference import guard
from otel_inference.errors import OverloadedError

if TYPE_CHECKING:
    from otel_inference.call import OpenCall
    from otel_inference.protocols import Announcement, CallSink, Limiter, Permit


def admit(call: OpenCall, limiter: Limiter) -> None:
    """See `protocols.CallSink.admit`."""
    waiting_since_ns = perf_counter_ns()
    try:
        _note_permit(call, limiter.acquire(call.model, call.input_size))
    except OverloadedError:
        _note_rejection(call, waiting_since_ns)
        raise
    except Exception:  # noqa: BLE001 - a limiter that does not work lets every call through
        guard.failed("limiter")


async def admit_async(call: OpenCall, limiter: Limiter) -> None:
    """See `protocols.CallSink.admit_async`."""
    waiting_since_ns = perf_counter_ns()
    try:
        _note_permit(call, await limiter.acquire_async(call.model, call.input_size))
    except OverloadedError:
        _note_rejection(call, waiting_since_ns)
        raise
    except Exception:  # noqa: BLE001 - a limiter that does not work lets every call through
        guard.failed("limiter")


def announce(sink: CallSink, limiter: Limiter, engine: str, operation: str, model: str) -> Announcement | None:
    """See `protocols.CallSink.announce`. A call that is turned away is begun and ended with `sink`, as a later one is.

    Args:
        sink: Counts it.
        limiter: The limiter of the model.
        engine: What the call is counted as.
        operation: Likewise.
        model: Name of the model.
    """
    try:
        told = getattr(limiter, "announce", None)
        return None if told is None else told(model)
    except OverloadedError as error:
        call = sink.begin(engine, operation, model)
        if call is not None:
            call.rejected = True
            sink.end(call, error)
        raise
    except Exception:  # noqa: BLE001 - a limiter that does not work lets every call through
        guard.failed("limiter")
        return None


def release(call: OpenCall, *, ok: bool) -> None:
    """Give the place of an ended call back.

    Args:
        call: The call; without a place nothing is done.
        ok: Whether its duration says something of the service.
    """
    permit, call.permit = call.permit, None
    if permit is not None:
        with guard.guarded("limiter"):
            permit.release(ok=ok)


def _note_permit(call: OpenCall, permit: Permit) -> None:
    call.permit = permit
    if permit.waited_s > 0:
        call.queue_ns = int(permit.waited_s * 1e9)


def _note_rejection(call: OpenCall, waiting_since_ns: int) -> None:
    call.rejected = True
    call.queue_ns = perf_counter_ns() - waiting_since_ns
