"""Signals of the machine and the interpreter that slow calls: each look finds one of them, or not.

The thresholds are those by which kernels and schedulers call a resource short: the kernel's documentation of PSI,
GLib's memory monitor, the alert on throttling of `kubernetes-mixin`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis import signals
from otel_inference.diagnosis.scan import Cause

if TYPE_CHECKING:
    from otel_inference.diagnosis.scan import Change, Scan, Slowdown

_WAIT_ROSE: Final = 0.1
_CPU_WAIT: Final = 0.2
_CPU_OWN: Final = 0.7
_BUSY: Final = 0.9
_TAKEN: Final = 0.6
"""Share of their time from which on processors may be what tasks wait for."""
_THROTTLED: Final = 0.25
_SELDOM: Final = 0.05
_MEMORY_WAIT: Final = 0.05
_GC_PAUSE: Final = 0.01
_INTERPRETER_DELAY_S: Final = 0.004
_MOST: Final = 0.5
_LOCKED: Final = 0.1
_CPU_ROSE: Final = 1.15


def _crowded_out(scan: Scan) -> Change | None:
    """How much more tasks wait for a processor, where that is much and the processors are in use.

    Without PSI: how much more the processors are in use, where they came to be used up.
    """
    if scan.change(signals.CPU_WAIT_RATIO) is None:
        return scan.risen(signals.CPU_BUSY_RATIO, to=_BUSY, by=_WAIT_ROSE)
    return None if _is_idle(scan) else _waits(scan)


def _waits(scan: Scan) -> Change | None:
    return scan.risen(signals.CPU_WAIT_RATIO, to=_CPU_WAIT, by=max(_WAIT_ROSE, scan.dose))


def _is_idle(scan: Scan) -> bool:
    """Whether the processors have time left, where that is known."""
    busy = scan.change(signals.CPU_BUSY_RATIO)
    return busy is not None and busy.after < _TAKEN


def throttled(scan: Scan) -> Cause | None:
    """A CPU quota stops the process in a quarter of its periods, or less often and tasks wait while processors are idle."""
    waits_idly = _is_idle(scan) and _waits(scan) is not None
    least = _SELDOM if waits_idly else _THROTTLED
    stopped = scan.risen(signals.THROTTLED_RATIO, to=least, by=least / 2)
    if stopped is None:
        return None
    return Cause(
        subject="cpu_throttled",
        evidence=stopped.evidence,
        advice=(
            "The CPU quota stops the process: raise the quota, or run fewer threads"
            " (reduce_torch_threads, a lower limit of an AdaptiveLimiter)."
        ),
    )


def memory(scan: Scan) -> Cause | None:
    """Tasks wait while the kernel reclaims memory; without PSI: the limit is run into."""
    waits = scan.risen(signals.MEMORY_WAIT_RATIO, to=_MEMORY_WAIT, by=scan.dose)
    hits = scan.risen(signals.MEMORY_LIMIT_HITS, to=1.0)
    # Without PSI it is not known how long tasks waited, only that the limit was run into.
    if waits is None and (hits is None or scan.change(signals.MEMORY_WAIT_RATIO) is not None):
        return None
    return Cause(
        subject="memory",
        evidence=_evidence(waits, hits),
        advice="Memory is short and the kernel reclaims it: raise the limit, hold less (collect_garbage, trim_heap), or recycle_worker.",
    )


def gpu_memory(scan: Scan) -> Cause | None:
    """The caching allocator of torch had to free its cache to find room."""
    retries = scan.risen(signals.GPU_ALLOC_RETRIES, to=0.0)
    if retries is None:
        return None
    return Cause(
        subject="gpu_memory",
        evidence=retries.evidence,
        advice="The allocator waits for the accelerator to find memory: release_accelerator_cache, or let a Tuner lower the batch size.",
    )


def gc(scan: Scan) -> Cause | None:
    """Collections stop all Python of the process, for a share of the time that matters."""
    pauses = scan.risen(signals.GC_PAUSE_RATIO, to=_GC_PAUSE, by=scan.dose)
    if pauses is None:
        return None
    return Cause(
        subject="gc",
        evidence=pauses.evidence,
        advice="Garbage collection stops the process: gc.freeze() after start-up or a higher gc.set_threshold, and make fewer objects.",
    )


def interpreter(scan: Scan) -> Cause | None:
    """Threads wait for the interpreter lock, and not for a processor."""
    delay = scan.risen(signals.INTERPRETER_DELAY_S, to=_INTERPRETER_DELAY_S, by=_INTERPRETER_DELAY_S / 2)
    if delay is None:
        return None
    if _crowded_out(scan) is not None:
        return None  # whoever waits for a processor gets the interpreter late too
    return Cause(
        subject="lock",
        evidence=delay.evidence,
        advice=(
            "Threads wait for the interpreter lock: take Python work out of the process,"
            " or run fewer calls at once (AdaptiveLimiter)."
        ),
    )


def lock(scan: Scan) -> Cause | None:
    """Most of the added time was spent waiting for another thread of the process."""
    locked = scan.risen(signals.CALL_LOCK_RATIO, to=_LOCKED, by=_MOST * scan.slowdown.lost_ratio)
    if locked is None or _is_starved(scan, locked):
        return None
    crowds = scan.change(signals.CPU_WAIT_RATIO)
    return Cause(
        subject="lock",
        evidence=locked.evidence,
        is_last_resort=crowds is not None and crowds.rise > _WAIT_ROSE / 2,  # the kernel's averages follow slowly
        advice=(
            "Calls wait for other threads of the process: look for a lock that is held long,"
            " or run fewer calls at once (AdaptiveLimiter)."
        ),
    )


def pause(scan: Scan) -> Cause | None:
    """Most of the added time was spent waiting for input, output or a time: for nothing that the machine is short of."""
    lost_ratio = scan.slowdown.lost_ratio
    paused = scan.change(signals.CALL_PAUSE_RATIO)
    # Calls that wait all the time, as for another server, do so for longer, though for no greater share of it.
    if paused is None or paused.after - paused.before * (1.0 - lost_ratio) < max(_LOCKED, _MOST * lost_ratio):
        return None
    if paused.rise >= _LOCKED and scan.risen(signals.CALL_PAUSE_RATIO, to=_LOCKED) is None:
        return None  # it rose at another time
    return Cause(
        subject="model",
        evidence=paused.evidence,
        advice="Calls wait for input, output or a sleep: look at what the model's own code asks of others.",
        is_last_resort=True,
    )


def _is_starved(scan: Scan, locked: Change) -> bool:
    """Whether the threads that calls wait for wait for a processor themselves, as those of a pool may.

    Then tasks wait for one for about as much of the time as calls wait for them; that is known to half.
    """
    waits, waiting_ratio = _crowded_out(scan), locked.rise * min(1.0, scan.slowdown.after.in_flight)
    return waits is not None and waits.rise >= _MOST * waiting_ratio


def cpu(scan: Scan) -> Cause | None:
    """Tasks wait for a processor, or this process came to use all it may."""
    used, waits = scan.risen(signals.CPU_RATIO, to=_BUSY, by=_WAIT_ROSE), _crowded_out(scan)
    if waits is None and used is None:
        return None
    own = scan.now(signals.CPU_RATIO)
    if own is not None and own < _CPU_OWN:
        advice = "Others take the processors: move them away, or give this process processors of its own."
    else:
        advice = "The processors are used up: limit the calls that run at once (AdaptiveLimiter), reduce_torch_threads, or add processors."
    return Cause(subject="cpu", evidence=_evidence(scan.change(signals.CPU_RATIO), waits), advice=advice)


def crowded_core(scan: Scan) -> Cause | None:
    """Tasks wait for a processor though others are idle, and calls are not seen to wait for anything else.

    Threads that may run on a few processors only wait so, when others come onto those.
    """
    waits = _waits(scan) if _is_idle(scan) else None
    locked, paused = scan.change(signals.CALL_LOCK_RATIO), scan.change(signals.CALL_PAUSE_RATIO)
    if waits is None or locked is None or paused is None or computes_more(scan):
        return None
    if locked.rise + paused.rise >= _MOST * scan.slowdown.lost_ratio:
        return None
    return Cause(
        subject="cpu",
        evidence=_evidence(scan.change(signals.CPU_BUSY_RATIO), waits),
        advice=(
            "Calls wait for a processor while others are idle: let their threads run on more of them"
            " (affinity, OMP_PROC_BIND), or move away what runs on theirs."
        ),
        is_last_resort=True,
    )


def computes_more(scan: Scan) -> bool:
    """Whether this process came to use more processors when its calls slowed."""
    used = scan.risen(signals.CPU_USED_CORES, to=0.0)
    return used is not None and used.after > _CPU_ROSE * used.before


def gpu(scan: Scan) -> Cause | None:
    """The accelerator is held down, became fully used, or takes most of the added time."""
    held = scan.risen(signals.GPU_CLOCKS_HELD, to=_MOST, by=_MOST)
    used = scan.risen(signals.GPU_RATIO, to=_BUSY, by=_WAIT_ROSE)
    device = _device_growth(scan.slowdown)
    if held is not None:
        advice = "Heat or a fault holds the accelerator's clocks down: look at its cooling and power."
    elif device >= _MOST or used is not None:
        advice = "The accelerator is what calls wait for: let a Tuner find the batch size, or limit the calls at once (AdaptiveLimiter)."
    else:
        return None
    return Cause(
        subject="gpu", evidence={**_evidence(held, used), "device_share_of_growth": round(device, 3)}, advice=advice
    )


def _device_growth(slowdown: Slowdown) -> float:
    """Share of the added time that an accelerator worked."""
    before, after = slowdown.before, slowdown.after
    added_s = after.service_per_call_s - before.service_per_call_s * slowdown.input_ratio
    if not (before.device_s and after.device_s and before.calls and after.calls) or added_s <= 0:
        return 0.0
    device_s = after.device_s / after.calls - before.device_s / before.calls * slowdown.input_ratio
    return max(0.0, min(1.0, device_s / added_s))


def _evidence(*changes: Change | None) -> dict[str, float]:
    return {name: value for change in changes if change is not None for name, value in change.evidence.items()}
