"""Actions on resources that come with the package: each does nothing until its user names it.

No library is imported for them; one that is not in the process already has nothing to release.
"""

from __future__ import annotations

import ctypes
import gc
import math
import sys
from typing import TYPE_CHECKING, Any, Final

from otel_inference.errors import ConfigError
from otel_inference.finding import FindingKind
from otel_inference.maintenance import recycling
from otel_inference.maintenance.action import Action, unknown
from otel_inference.maintenance.builtin_knobs import torch_threads
from otel_inference.resources.cpu import CpuProbe
from otel_inference.resources.reading import GPU_MEMORY, MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otel_inference.maintenance.action import MaintenanceEvent
    from otel_inference.maintenance.knob import Knob

_CPU_THROTTLED: Final = "cpu_throttled"
"""Subject of a bottleneck: the quota stops the process."""


def builtin(names: Iterable[str]) -> list[Action]:
    """The built-in actions of these names, ready to be added to the maintainer.

    Args:
        names: `release_accelerator_cache`, `collect_garbage`, `trim_heap`, `reduce_torch_threads`, `recycle_worker`.

    Raises:
        ConfigError: If a name is unknown; it says which comes nearest.
    """
    if isinstance(names, str):
        msg = f"actions is the string {names!r}; expected a list of names, such as [{names!r}]"
        raise ConfigError(msg)
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in _MADE_BY:
            raise ConfigError(unknown("action", name, list(_MADE_BY)))
    # In the order of the table, gentlest first, whatever order they were named in.
    return [action for name, make in _MADE_BY.items() if name in chosen for action in make()]


def release_accelerator_cache(modules: Mapping[str, Any] = sys.modules) -> list[Action]:
    """Give what torch's allocator caches of an accelerator's memory back to the device.

    It waits for the device to finish what it is at, and later calls have to allocate anew.
    """

    def has_cuda(_event: MaintenanceEvent) -> bool | str:
        cuda = getattr(modules.get("torch"), "cuda", None)
        # Never `is_available`: what initialises CUDA takes seconds and breaks a later fork.
        is_initialized = getattr(cuda, "is_initialized", None)
        return (is_initialized is not None and is_initialized()) or "torch does not use CUDA in this process"

    def release(_event: MaintenanceEvent) -> None:
        modules["torch"].cuda.empty_cache()

    return [
        Action(name="release_accelerator_cache", kind=kind, subject=GPU_MEMORY, run=release, precondition=has_cuda)
        for kind in (FindingKind.SATURATION, FindingKind.BOTTLENECK)
    ]


def collect_garbage() -> list[Action]:
    """Collect garbage of all generations, and the first time keep what is left out of later collections.

    No thread runs Python while it collects: about 0.1 s for a million live containers. What is left out
    (`gc.freeze`) is models and caches for the most part, and is not looked at again for cycles.
    """

    def collect(_event: MaintenanceEvent) -> None:
        gc.collect()
        if gc.get_freeze_count() == 0:  # else it was frozen before, by an earlier run or by the host
            gc.freeze()

    return [Action(name="collect_garbage", kind=FindingKind.MEMORY_GROWTH, run=collect)]


def trim_heap(malloc_trim: Callable[[int], int] | None = None) -> list[Action]:
    """Give the free pages of the C library's heap back to the system: glibc keeps what was freed in small pieces.

    Args:
        malloc_trim: Does it; default: glibc's, where the process has that.
    """
    trim = malloc_trim or _malloc_trim()

    def has_trim(_event: MaintenanceEvent) -> bool | str:
        return trim is not None or "the C library has no malloc_trim; it is glibc's"

    def release(_event: MaintenanceEvent) -> None:
        if trim is not None:
            trim(0)

    return [
        Action(name="trim_heap", kind=FindingKind.MEMORY_GROWTH, run=release, precondition=has_trim),
        Action(name="trim_heap", kind=FindingKind.SATURATION, subject=MEMORY, run=release, precondition=has_trim),
    ]


def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or a system without `dlopen(NULL)`
        return None


def reduce_torch_threads(
    modules: Mapping[str, Any] = sys.modules, usable_cores: Callable[[], float | None] | None = None
) -> list[Action]:
    """Compute on as many threads as the quota has processors: more of them only use it up sooner, and then all stop.

    Args:
        modules: Where torch is found, if it is imported.
        usable_cores: What quota, affinity and machine leave; default: read when asked.
    """
    cores = usable_cores or _usable_cores
    changed: list[tuple[Knob, float]] = []

    def number() -> int | None:
        # On an action's thread, which has not computed yet, it is what threads that begin now will have.
        get = getattr(modules.get("torch"), "get_num_threads", None)  # absent while torch is being imported
        return None if get is None else get()

    def fits(_event: MaintenanceEvent) -> bool | str:
        now, wanted = number(), _whole(cores())
        if now is None:
            return "torch is not imported"
        return now > wanted or f"torch computes on {now} threads already, of {wanted} usable"

    def reduce(_event: MaintenanceEvent) -> None:
        knob = torch_threads()
        changed.append((knob, knob.read()))
        knob.write(_whole(cores()))

    def restore(_event: MaintenanceEvent) -> None:
        knob, before = changed.pop()
        knob.write(before)

    return [
        Action(
            name="reduce_torch_threads",
            kind=kind,
            subject=_CPU_THROTTLED,
            run=reduce,
            undo=restore,
            precondition=fits,
            # Threads that have computed keep a pool; each change costs the next call of each a new one.
            cooldown_s=300.0,
        )
        for kind in (FindingKind.BOTTLENECK, FindingKind.SATURATION)
    ]


def _usable_cores() -> float | None:
    return CpuProbe().read(0.0).cpu_limit_cores


def _whole(cores: float | None) -> int:
    return max(1, math.floor(cores or 1.0))


def recycle_worker() -> list[Action]:
    """Have the server replace this worker: it ends gracefully, and gunicorn or uvicorn starts another."""

    def can(_event: MaintenanceEvent) -> bool | str:
        return recycling.why_not() or True

    def recycle(_event: MaintenanceEvent) -> None:
        if not recycling.recycle():
            msg = "another worker of this server is being recycled"
            raise RuntimeError(msg)

    return [
        Action(
            name="recycle_worker",
            kind=FindingKind.MEMORY_GROWTH,
            run=recycle,
            precondition=can,
            cooldown_s=600.0,
            max_per_hour=1,
        )
    ]


_MADE_BY: Final[Mapping[str, Callable[[], list[Action]]]] = {
    "collect_garbage": collect_garbage,
    "trim_heap": trim_heap,
    "release_accelerator_cache": release_accelerator_cache,
    "reduce_torch_threads": reduce_torch_threads,
    "recycle_worker": recycle_worker,
}
