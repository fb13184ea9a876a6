"""The one wrapper that every submodule of every torch model passes through.

It is a plain function that does the dispatch of `torch.nn.Module` itself: inside a call that is
already counted it costs a context variable read and a few comparisons, and the frame that it adds
replaces the frame of torch's own dispatcher.
"""

from __future__ import annotations

import functools
import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

from otel_inference import guard
from otel_inference.call import ENDED
from otel_inference.nesting import current
from otel_inference.patching import Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

    from otel_inference.call import OpenCall


def module_call_target(outermost: Callable[..., Any]) -> Target:
    """The target `torch.nn.Module.__call__`.

    The hook is on `torch` itself, not on the submodule that defines the class: parts of torch keep
    a reference to `Module.__call__` while torch is being imported (`torch.fx`), and those have to
    see the original.

    Args:
        outermost: Called as `outermost(dispatch, module, args, kwargs)` where no call is running.
    """
    return Target(module="torch", path="nn.Module.__call__", wrap=lambda original: _wrap(original, outermost))


def _wrap(original: Callable[..., Any], outermost: Callable[..., Any]) -> Callable[..., Any]:
    make = _dispatching if _is_plain_dispatcher(original) else _delegating
    wrapper = functools.wraps(original)(make(original, outermost))
    _hide_from_dynamo(wrapper, original)
    return wrapper


def _dispatching(original: Callable[..., Any], outermost: Callable[..., Any]) -> Callable[..., Any]:  # noqa: C901 - written out for speed
    get = current.get

    def seldom(call: OpenCall, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In a call that has ended, or at the very module that a call watches."""
        if call.watched is ENDED:
            return outermost(original, module, args, kwargs)
        meter = call.meter
        if meter is not None:
            # `Meter.step` written out: under torch.compile each function called here would be a frame to compile.
            if meter.steps == meter.prefill_steps:
                meter.first_token_ns = perf_counter_ns()
            meter.steps += 1
        return original(module, *args, **kwargs)

    hide_frames_of(seldom)

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        call = get()
        if call is None:
            return outermost(original, self, args, kwargs)
        watched = call.watched
        if watched is not None and (watched is self or watched is ENDED):
            return seldom(call, self, args, kwargs)
        if self._compiled_call_impl is None:
            return self._call_impl(*args, **kwargs)
        return self._compiled_call_impl(*args, **kwargs)

    return __call__


def _delegating(original: Callable[..., Any], outermost: Callable[..., Any]) -> Callable[..., Any]:
    """For a `Module.__call__` that somebody else has replaced, or that a later torch changed."""
    get = current.get

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        call = get()
        if call is None or call.watched is ENDED:
            return outermost(original, self, args, kwargs)
        if call.watched is self and call.meter is not None:
            call.meter.step()
        return original(self, *args, **kwargs)

    return __call__


def _is_plain_dispatcher(original: Any) -> bool:
    """Whether `original` is torch's own two-line dispatcher, which we may then do ourselves."""
    code = getattr(original, "__code__", None)
    return code is not None and code.co_names == ("_compiled_call_impl", "_call_impl")


def _hide_from_dynamo(wrapper: Any, original: Any) -> None:
    """Let `torch.compile` and `torch.export` see the original where they would trace the wrapper.

    `_torchdynamo_inline` names the function to trace in place of this one; torch's own compiled
    functions carry it. `skip_code` makes the wrapper's frame one that is not compiled when it is
    the first frame under `torch.compile(module)`, as torch's own dispatcher is by its file name.
    The compiler is imported late, if ever: the hook waits for it.
    """
    wrapper._torchdynamo_inline = original
    hide_frames_of(wrapper)


_hidden: set[CodeType] = set()


def hide_frames_of(function: Any) -> None:
    """Have torch's compiler pass over the frames of `function`, not over those it calls."""
    code = function.__code__  # shared by every closure made of it, so once per process is enough
    if code not in _hidden:
        _hidden.add(code)
        register_post_import_hook(lambda module: _skip(module, code), "torch._dynamo.eval_frame")


def _skip(eval_frame: Any, code: CodeType) -> None:
    with guard.guarded("torch.compile"):
        eval_frame.skip_code(code)


def frame_is_compiled() -> bool:
    """Whether torch's compiler looks at the frames of this thread now, as under `torch.compile(model.__call__)`.

    What is called from here would become a frame to compile; the caller has to do nothing but go on.
    """
    ask = getattr(sys.modules["torch._C"]._dynamo.eval_frame, "get_eval_frame_callback", None)
    return ask is not None and ask() is not None
