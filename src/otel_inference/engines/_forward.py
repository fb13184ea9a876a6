"""The outermost call of a torch module: whether it counts, and what is known of it."""

from __future__ import annotations

import functools
import sys
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard, semconv
from otel_inference.engines._compilation import compilations, note_compilation
from otel_inference.engines._device_time import start_timer
from otel_inference.engines._measured import measured
from otel_inference.engines._module_call import frame_is_compiled, hide_frames_of, module_call_target
from otel_inference.engines._naming import module_name
from otel_inference.engines._values import batch_size_of, read, size_of, token_count
from otel_inference.nesting import silently
from otel_inference.protocols import outlet_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_inference.call import OpenCall
    from otel_inference.patching import Target
    from otel_inference.protocols import CallSink, Outlet


ENGINE_NAME: Final = "torch"


def forward_target() -> Target:
    """`torch.nn.Module.__call__`, reporting to the torch engine's outlet.

    The transformers engine needs the same layer, to time the steps of a generation, whether or not
    calls of bare modules are counted; hence the outlet is looked up here.
    """
    for function in (_outermost, frame_is_compiled):
        hide_frames_of(function)
    return module_call_target(functools.partial(_outermost, outlet_of(ENGINE_NAME)))


def _outermost(
    outlet: Outlet, dispatch: Callable[..., Any], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    sink = outlet.sink
    if sink is None or frame_is_compiled():
        return dispatch(module, *args, **kwargs)
    try:
        kind = _kind(module, count_training=outlet.training)
    except Exception:  # noqa: BLE001 - a module stranger than any known: its call goes on uncounted
        guard.failed("torch")
        kind = _Kind.SILENT
    if kind is _Kind.CALL:
        call = begin_forward(sink, module, args, kwargs)
        return measured(sink, call, dispatch, (module, *args), kwargs, note_result=note_compilation)
    if kind is _Kind.SILENT:
        return silently(dispatch, module, *args, **kwargs)
    return dispatch(module, *args, **kwargs)


class _Kind(Enum):
    """What the outermost call of a module is to us."""

    CALL = "a call of a model"
    SILENT = "nothing, and neither is what it calls"
    TRANSPARENT = "nothing, but what it calls may be calls"


def _kind(module: Any, *, count_training: bool) -> _Kind:
    torch = sys.modules["torch"]
    # A frozen scripted module has no `training`; it is one that can only infer.
    if getattr(module, "training", False) and not count_training and not _is_exported(module):
        # A training step is not inference, nor are the frozen parts inside it. Without gradients it
        # is no training step: somebody forgot eval() on the outside of a model.
        return _Kind.SILENT if torch.is_grad_enabled() else _Kind.TRANSPARENT
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or "_is_replica" in vars(module):
        # Making a graph is not inference; a replica is one share of a DataParallel call.
        return _Kind.SILENT
    return _Kind.CALL


def _is_exported(module: Any) -> bool:
    """Whether `module` is an exported program's, which calls itself in training mode for ever."""
    return any(kind.__name__ in {"_StatefulGraphModule", "UnflattenedModule"} for kind in type(module).__mro__)


def begin_forward(sink: CallSink, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> OpenCall | None:
    """Begin a call of `module(*args, **kwargs)`; `None` when it is not to be counted."""
    try:
        first = first_input(args, kwargs)
        device = read(first, "device")
        compiled = compilations()
        call = sink.begin(
            ENGINE_NAME,
            semconv.FORWARD,
            module_name(module),
            device=None if device is None else str(device),
            batch_size=batch_size_of(first),
            input_size=_input_size(first, kwargs),
        )
        if call is not None:
            call.compilations = compiled
            call.timer = start_timer(device)
        return call
    except Exception:  # noqa: BLE001 - the host's call goes on uncounted
        guard.failed("torch")
        return None


def _input_size(first: Any, kwargs: dict[str, Any]) -> int | None:
    mask = kwargs.get("attention_mask")
    tokens = None if mask is None else token_count(first, mask)
    return tokens if tokens is not None else size_of(first)


def first_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first positional argument, else the token ids, else the first keyword argument."""
    if args:
        return args[0]
    ids = kwargs.get("input_ids")
    return ids if ids is not None else next(iter(kwargs.values()), None)
