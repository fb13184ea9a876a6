"""torch: the outermost call of a module in eval mode."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from otel_inference.engines._forward import ENGINE_NAME, begin_forward, forward_target
from otel_inference.engines._measured import measured
from otel_inference.nesting import running_call
from otel_inference.patching import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_inference.protocols import Outlet


class TorchEngine:
    """Counts what is called from outside; a training step is left alone unless asked for."""

    name = ENGINE_NAME
    distribution = "torch"
    requires = "torch >= 2.2"

    def targets(self, outlet: Outlet, /) -> Sequence[Target]:
        """The one entry point that every module shares, and that of scripted functions."""
        scripted = functools.partial(_wrap_scripted, outlet)
        return (forward_target(), Target(module="torch", path="jit.ScriptFunction.__call__", wrap=scripted))


ENGINE = TorchEngine()


def _wrap_scripted(outlet: Outlet, original: Callable[..., Any]) -> Callable[..., Any]:
    # What torch has there is a built-in method, which does not bind as a function does.
    bind = original.__get__

    @functools.wraps(original)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        sink = outlet.sink
        if sink is None or running_call() is not None:
            return bind(self)(*args, **kwargs)
        return measured(sink, begin_forward(sink, self, args, kwargs), bind(self), args, kwargs)

    __call__.__annotations__ = {}  # it has none either
    return __call__
