"""Calls during which torch compiled something: as slow as a first call, and marked like one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_inference.call import OpenCall


def compilations() -> int:
    """How many frames torch's compiler has compiled in this process; 0 while it is not even imported."""
    utils = sys.modules.get("torch._dynamo.utils")
    counters = getattr(utils, "counters", None)  # absent while another thread is importing it
    return 0 if counters is None else counters["frames"]["total"]


def note_compilation(call: OpenCall, _: Any = None) -> None:
    """Mark `call` cold if something has been compiled since it began (see `OpenCall.compilations`)."""
    if compilations() != call.compilations:
        call.cold = True
