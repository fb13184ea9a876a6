"""Why calls of one size take longer than they did: the resource, the stage or the lock that their time goes to.

Waiting is told from work before this, and larger inputs from slower work (`mix.compare`). What is left is work that
slowed. Here the probes' signals are scanned for one that rose when the work slowed, and by enough to slow it that
much; then the stages of the calls; then whether the calls hinder one another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis import contention, signals
from otel_inference.diagnosis.scan import Cause, Scan

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_inference.diagnosis.scan import Slowdown
    from otel_inference.diagnosis.signals import Signals

_STAGES: Final = {
    "preprocess": "Preparing the input takes the time: use a fast tokenizer, prepare in batches, or in processes of its own.",
    "prefill": "Reading the prompt takes the time: cache prefixes, or let a Tuner lower the batch size.",
    "decode": "Writing tokens takes the time: let a Tuner find the batch size, or bound max_new_tokens.",
}
_ALMOST_ALL: Final = 0.8
_MOST: Final = 0.5
_MINOR: Final = 0.3
_IN_FLIGHT: Final = 1.2
_SPREAD: Final = 0.03


def causes(slowdown: Slowdown, seen: Signals) -> tuple[Cause, ...]:
    """What may explain a slowdown, likeliest first; empty only where nothing slowed.

    The order: one stage alone that took little time before; a quota, memory, collections and the interpreter's lock
    before the processors, because each of them keeps tasks waiting for a processor too; an accelerator before other
    threads, because calls may wait for it in the same way; what calls are seen to wait for before the processors;
    calls that hinder one another, where it cannot be seen; the stage that most of the time went to; the model itself.

    Args:
        slowdown: What was seen of the model.
        seen: What was seen of the process and the machine.
    """
    if slowdown.lost_ratio <= 0:
        return ()
    scan = Scan(slowdown, seen)
    return tuple(cause for look in _LOOKS if (cause := look(scan)) is not None) or (_model(scan),)


def _one_stage(scan: Scan) -> Cause | None:
    """A stage that used to be minor and now takes almost all of the added time."""
    stage, share = _grown_stage(scan.slowdown)
    before = scan.slowdown.before
    if share < _ALMOST_ALL or before.stage_per_call_s(stage) > _MINOR * before.service_per_call_s:
        return None
    return _stage_cause(stage, share, is_last_resort=False)


def _main_stage(scan: Scan) -> Cause | None:
    """The stage that most of the added time goes to."""
    stage, share = _grown_stage(scan.slowdown)
    return _stage_cause(stage, share, is_last_resort=True) if share >= _MOST else None


def _stage_cause(stage: str, share: float, *, is_last_resort: bool) -> Cause:
    return Cause(
        subject=stage,
        evidence={f"{stage}_share_of_growth": round(share, 3)},
        advice=_STAGES[stage],
        is_last_resort=is_last_resort,
    )


def _grown_stage(slowdown: Slowdown) -> tuple[str, float]:
    """The stage that grew most, and its share of the added time of a call."""
    before, after = slowdown.before, slowdown.after
    added_s = after.service_per_call_s - before.service_per_call_s * slowdown.input_ratio
    grown = {
        stage: after.stage_per_call_s(stage) - before.stage_per_call_s(stage) * slowdown.input_ratio
        for stage in _STAGES
    }
    stage = max(grown, key=grown.__getitem__)
    return stage, max(0.0, min(1.0, grown[stage] / added_s)) if added_s > 0 else 0.0


def _hindrance(scan: Scan) -> Cause | None:
    """Calls that run at once and wait for one another: their times spread, and they use no more processor."""
    before, after = scan.slowdown.before, scan.slowdown.after
    spread = after.log_spread**2 - before.log_spread**2
    if scan.change(signals.CALL_LOCK_RATIO) is not None:
        return None  # it was looked at what calls wait for
    if after.in_flight < _IN_FLIGHT or spread < _SPREAD or contention.computes_more(scan):
        return None
    return Cause(
        subject="lock",
        evidence={
            "in_flight": round(after.in_flight, 2),
            "log_spread": round(after.log_spread, 3),
            "log_spread_before": round(before.log_spread, 3),
        },
        advice="Calls wait for one another without using the processor: look for a lock, or run fewer at once (AdaptiveLimiter).",
        is_last_resort=True,
    )


def _model(scan: Scan) -> Cause:
    used = scan.change(signals.CPU_USED_CORES)
    computes = contention.computes_more(scan)
    return Cause(
        subject="model",
        evidence={} if used is None else used.evidence,
        advice=(
            "No resource is short: the model's own code computes more for an input of the same size."
            if computes
            else "No resource is short and calls use no more processor: the model's own code waits, for input, output or a sleep."
        ),
        is_last_resort=True,
        is_seen=computes,
    )


_LOOKS: Final[tuple[Callable[[Scan], Cause | None], ...]] = (
    _one_stage,
    contention.throttled,
    contention.memory,
    contention.gpu_memory,
    contention.gc,
    contention.interpreter,
    contention.gpu,
    contention.lock,
    contention.pause,
    contention.cpu,
    contention.crowded_core,
    _hindrance,
    _main_stage,
)
