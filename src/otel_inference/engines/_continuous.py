"""Continuous batching of transformers: each request added to a manager is one call.

A request is added in one thread, and served in another together with whatever else is there. Its
call begins in the first, within that thread's context, and ends in the second, when the last of
its tokens is handed out. The manager stamps itself when a request leaves the queue; the first token
is looked for after each step, only while somebody waits for one. Tokens are counted from what the
host is given.

What a manager still owes is kept here by the identity of its output router, and never holds the
router, the manager or a request of theirs.
"""

from __future__ import annotations

import functools
import sys
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard, semconv
from otel_inference.engines import _generation
from otel_inference.engines._naming import module_name
from otel_inference.engines._requests import Request, Requests
from otel_inference.nesting import running_call, silently
from otel_inference.patching import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_inference.protocols import CallSink, Outlet

_ENGINE: Final = "transformers"
_PLACE: Final = "transformers.continuous_batching"
_PACKAGE: Final = "transformers.generation.continuous_batching"
_API: Final = f"{_PACKAGE}.continuous_api"


def targets(outlet: Outlet) -> Sequence[Target]:
    """Where requests come in, move on and go out; a version of the library that differs has none counted."""
    api: dict[str, Callable[[Any], Any]] = {
        "ContinuousBatchingManager.add_request": functools.partial(_wrap_add_request, outlet),
        "ContinuousBatchingManager._run_generation_loop": functools.partial(_wrap_loop, outlet),
        "ContinuousBatchProcessor.prepare_next_batch": _wrap_prepare,
        "ContinuousBatchProcessor.update_batch": _wrap_update,
        "ContinuousBatchProcessor._generation_step": functools.partial(_wrap_silent, outlet),
        "ContinuousBatchProcessor.warmup": functools.partial(_wrap_silent, outlet),
        "OutputRouter.deliver_batch": _wrap_deliver_batch,
        "OutputRouter.fail_and_deliver": _wrap_fail,
    }
    beside = (
        (f"{_PACKAGE}.requests", "RequestState.__post_init__", _wrap_state),
        (f"{_PACKAGE}.scheduler", "Scheduler.clear_cancelled_requests", _wrap_clear_cancelled),
    )
    every = *((_API, path, wrap) for path, wrap in api.items()), *beside
    return [Target(module=module, path=path, wrap=wrap, optional=True) for module, path, wrap in every]


_managers: dict[int, tuple[weakref.ref[Any], Requests]] = {}
"""Identity of an output router, of which each manager has one -> the manager's requests."""

_serving: Final[ContextVar[Requests | None]] = ContextVar("otel_inference_serving", default=None)
"""The requests of the manager that prepares its next batch in this thread."""

_adding: Final[ContextVar[_Adding | None]] = ContextVar("otel_inference_adding", default=None)
"""The request that is being added in this context."""


def _requests_of(router: Any) -> Requests | None:
    entry = _managers.get(id(router))
    return None if entry is None else entry[1]


def _requests_for(owner: Any) -> Requests | None:
    """The requests of a manager, or of its batch processor."""
    return _requests_of(getattr(owner, "output_router", None))


def _new_requests_of(router: Any) -> Requests:
    key = id(router)

    def dropped(_: weakref.ref[Any]) -> None:
        entry = _managers.pop(key, None)
        for request in entry[1].by_name.values() if entry is not None else ():
            request.sink.abandon(request.call)

    return _managers.setdefault(key, (weakref.ref(router, dropped), Requests()))[1]


class _Adding:
    """A request while the manager takes it in: its id, and that it is taken at all, show only there."""

    __slots__ = ("manager", "request", "sink")

    def __init__(self, sink: CallSink, manager: Any) -> None:
        self.sink = sink
        self.manager = manager
        self.request: Request | None = None

    def begin(self, state: Any) -> None:
        """Begin the call of the request that `state` is of."""
        if self.request is not None:
            return
        model = self.manager.model
        tokens = len(state.initial_tokens)
        sequences = 1 + state.num_children
        asked = {  # the arguments of `generate` that would ask for the same
            **state.logit_processor_kwargs,
            "max_new_tokens": state.max_new_tokens,
            "num_return_sequences": sequences,
            "streamer": True if state.streaming else None,
        }
        call = self.sink.begin(
            _ENGINE,
            semconv.GENERATE,
            module_name(model),
            device=str(model.device),
            input_size=tokens,
            usage_operation=semconv.TEXT_COMPLETION,
            request=_generation._request((), asked, self.manager.generation_config),
        )
        if call is None:
            return
        self.sink.leave(call)
        call.add_tokens(tokens, None)
        self.request = Request(self.sink, call, state.request_id, sequences)
        (_requests_for(self.manager) or _new_requests_of(self.manager.output_router)).add(self.request)

    def fail(self, error: BaseException) -> None:
        """End the call of a request that could not be added after all, such as to a full queue."""
        requests = _requests_for(self.manager)
        if self.request is not None and requests is not None and requests.remove(self.request):
            self.sink.end(self.request.call, error)


def _wrap_add_request(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    is_known = _is_known_version()

    @functools.wraps(original)
    def add_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        sink = outlet.sink
        if sink is None or not is_known or running_call() is not None:
            return original(self, *args, **kwargs)
        adding = _Adding(sink, self)
        token = _adding.set(adding)
        try:
            return original(self, *args, **kwargs)
        except BaseException as error:
            adding.fail(error)
            raise
        finally:
            _adding.reset(token)

    return add_request


def _is_known_version() -> bool:
    """Whether this library has what a call begun here needs to end; 5.0 has not."""
    api = sys.modules[_API]
    router, state = getattr(api, "OutputRouter", None), getattr(api, "RequestState", None)
    return all(hasattr(router, name) for name in ("deliver_batch", "fail_and_deliver")) and all(
        hasattr(state, name) for name in ("__post_init__", "lifespan", "num_children", "_true_initial_tokens")
    )


def _safely(note: Callable[..., None], *args: Any) -> None:
    try:
        note(*args)
    except Exception:  # noqa: BLE001 - the host's request goes on, its loop and its results too
        guard.failed(_PLACE)


def _wrap_state(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __post_init__(self: Any) -> Any:  # noqa: N807
        result = original(self)
        adding = _adding.get()
        if adding is not None:
            _safely(adding.begin, self)
        return result

    return __post_init__


def _wrap_loop(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _run_generation_loop(self: Any) -> Any:
        try:
            result = original(self)
        except BaseException as error:
            with guard.guarded(_PLACE):
                _end_rest(outlet, self, error, frozenset())
            raise
        with guard.guarded(_PLACE):
            with self.input_queue.mutex:
                queued = frozenset(state.request_id for state in self.input_queue.queue)
            _end_rest(outlet, self, RuntimeError("the generation loop ended without this request"), queued)
        return result

    return _run_generation_loop


def _end_rest(outlet: Outlet, manager: Any, error: BaseException, queued: frozenset[str]) -> None:
    requests = _requests_for(manager)
    if requests is not None:
        requests.end_rest(outlet.sink, error, queued)


def _wrap_silent(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if outlet.sink is None:
            return original(self, *args, **kwargs)
        return silently(original, self, *args, **kwargs)

    return step


def _wrap_prepare(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def prepare_next_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _serving.set(_requests_for(self))
        try:
            return original(self, *args, **kwargs)
        finally:
            _serving.reset(token)

    return prepare_next_batch


def _wrap_clear_cancelled(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def clear_cancelled_requests(self: Any, *args: Any, **kwargs: Any) -> Any:
        states = original(self, *args, **kwargs)
        requests = _serving.get()
        if states and requests is not None:
            cancelled = sys.modules["asyncio"].CancelledError("the request was cancelled")
            for state in states:
                _safely(requests.end_early, state, cancelled)
        return states

    return clear_cancelled_requests


def _wrap_update(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def update_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        requests = _requests_for(self)
        if requests is not None and requests.awaiting:
            _safely(requests.note_step, self.scheduler.active_requests)
        return result

    return update_batch


def _wrap_deliver_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    decoding = getattr(getattr(sys.modules[_API], "RequestStatus", None), "DECODING", None)

    @functools.wraps(original)
    def deliver_batch(self: Any, outputs: Any, *args: Any, **kwargs: Any) -> Any:
        requests = _requests_of(self)
        if requests is not None:
            _safely(requests.note_outputs, outputs, decoding)
        return original(self, outputs, *args, **kwargs)

    return deliver_batch


def _wrap_fail(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def fail_and_deliver(self: Any, state: Any, error: Any, *args: Any, **kwargs: Any) -> Any:
        requests = _requests_of(self)
        if requests is not None:
            _safely(requests.end_early, state, error)
        return original(self, state, error, *args, **kwargs)

    return fail_and_deliver
