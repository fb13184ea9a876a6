"""onnxruntime: construction of a session and its runs."""

from __future__ import annotations

import functools
import os
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard, semconv
from otel_inference.engines._measured import measured
from otel_inference.engines._values import batch_size_of, size_of
from otel_inference.naming import name_of
from otel_inference.nesting import load_counts, running_call
from otel_inference.patching import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_inference.call import OpenCall
    from otel_inference.protocols import CallSink, Outlet

_MODULE: Final = "onnxruntime.capi.onnxruntime_inference_collection"


class OnnxRuntimeEngine:
    """Counts each run of a session that no other call of ours surrounds."""

    name = "onnxruntime"
    distribution = "onnxruntime"
    requires = "onnxruntime >= 1.17"

    def targets(self, outlet: Outlet, /) -> Sequence[Target]:
        """`InferenceSession` construction and the four ways to run it."""
        return (
            Target(module=_MODULE, path="InferenceSession.__init__", wrap=functools.partial(_wrap_init, outlet)),
            Target(module=_MODULE, path="Session.run", wrap=_run_wrap(outlet, 1, "input_feed")),
            Target(
                module=_MODULE, path="Session.run_with_ort_values", wrap=_run_wrap(outlet, 1, "input_dict_ort_values")
            ),
            Target(module=_MODULE, path="Session.run_with_iobinding", wrap=_run_wrap(outlet, None, "")),
            Target(module=_MODULE, path="Session.run_async", wrap=functools.partial(_wrap_run_async, outlet)),
        )


ENGINE = OnnxRuntimeEngine()


def _run_wrap(outlet: Outlet, position: int | None, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The wrap of a run whose feed is the argument at `position`, called `name`; `None` where it has none."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            sink = outlet.sink
            if sink is None or running_call() is not None:
                return original(self, *args, **kwargs)
            feed = None if position is None else _argument(args, kwargs, position, name)
            return measured(sink, _begin(sink, self, feed), original, (self, *args), kwargs)

        return run

    return wrap


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


_CALLBACK: Final = 2
"""Position of the callback among the arguments of `run_async`."""


def _wrap_run_async(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        sink = outlet.sink
        callback = _argument(args, kwargs, _CALLBACK, "callback")
        if sink is None or running_call() is not None or not callable(callback):
            return original(self, *args, **kwargs)
        call = _begin(sink, self, _argument(args, kwargs, 1, "input_feed"))
        if call is None:
            return original(self, *args, **kwargs)
        ending = _ending(sink, call, callback)
        if len(args) > _CALLBACK:
            args = (*args[:_CALLBACK], ending, *args[_CALLBACK + 1 :])
        else:
            kwargs["callback"] = ending
        sink.leave(call)  # before it runs: the callback may come first, on its own thread
        try:
            if call.limited:
                sink.admit(call)
            return original(self, *args, **kwargs)
        except BaseException as error:
            sink.end(call, error)
            raise

    return run_async


def _ending(sink: CallSink, call: OpenCall, callback: Callable[..., Any]) -> Callable[..., Any]:
    """`callback`, preceded by the end of `call`; onnxruntime runs it on a thread of its own."""

    @functools.wraps(callback)
    def ended(results: Any, user_data: Any, message: str) -> Any:
        sink.end(call, RuntimeError(message) if message else None)
        return callback(results, user_data, message)

    return ended


def _begin(sink: CallSink, session: Any, feed: Any) -> OpenCall | None:
    try:
        first = _first_input(session, feed)
        return sink.begin(
            ENGINE.name,
            semconv.RUN,
            name_of(session, _derive_name),
            device=_provider(session),
            batch_size=batch_size_of(first),
            input_size=size_of(first),
        )
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed("onnxruntime")
        return None


def _first_input(session: Any, feed: Any) -> Any:
    """The value of the model's first declared input."""
    inputs = session.get_inputs()
    return feed.get(inputs[0].name) if inputs and isinstance(feed, dict) else None


def _provider(session: Any) -> str | None:
    providers = session.get_providers()
    return providers[0] if providers else None


def _derive_name(session: Any) -> str:
    """File stem, else graph name, else class name."""
    path = getattr(session, "_model_path", None)
    if path:
        return PurePath(os.fsdecode(path)).stem
    return session.get_modelmeta().graph_name or type(session).__name__


def _wrap_init(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        sink = outlet.sink
        if sink is None or not load_counts():
            original(self, *args, **kwargs)
            return
        source = args[0] if args else kwargs.get("path_or_bytes")
        call = _begin_load(sink, self, source)
        measured(sink, call, original, (self, *args), kwargs, note_result=functools.partial(_note_loaded, self))

    return __init__


def _begin_load(sink: CallSink, session: Any, source: Any) -> OpenCall | None:
    try:
        # The graph's name is known only once the bytes have been read.
        known = isinstance(source, (str, os.PathLike))
        name = PurePath(os.fsdecode(source)).stem if known else type(session).__name__
        return sink.begin(ENGINE.name, semconv.LOAD, name)
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed("onnxruntime")
        return None


def _note_loaded(session: Any, call: OpenCall, _: Any) -> None:
    call.model = name_of(session, _derive_name)
    call.device = _provider(session)
