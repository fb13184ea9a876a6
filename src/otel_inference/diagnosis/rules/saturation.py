"""Resources of the process that are used up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis import signals
from otel_inference.diagnosis.lifecycle import Latch, Verdict
from otel_inference.diagnosis.signals import SLOT_S
from otel_inference.finding import FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.diagnosis.signals import Signals

_WINDOW_S: Final = 30.0
_STALE_S: Final = 60.0
_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resource:
    """When a resource is used up."""

    subject: str
    limits: tuple[tuple[str, float], ...]
    """Signals, and the value of each from which on the resource counts as used up."""
    critical: tuple[str, float]
    """A signal, and the value from which on the process is about to fail."""
    harmless: bool
    """Whether to be used up is how it works best, so long as no calls suffer."""
    advice: str


_RESOURCES: Final = (
    _Resource(
        subject="cpu",
        limits=((signals.CPU_RATIO, 0.95), (signals.THROTTLED_RATIO, 0.25)),
        critical=(signals.CPU_RATIO, _NEVER),
        harmless=True,
        advice="The processors are used up: limit the calls at once (AdaptiveLimiter), reduce_torch_threads, or raise the quota.",
    ),
    _Resource(
        subject="memory",
        limits=((signals.MEMORY_RATIO, 0.9),),
        critical=(signals.MEMORY_RATIO, 0.97),
        harmless=False,
        advice="Memory is nearly used up: collect_garbage and trim_heap, recycle_worker, or raise the limit.",
    ),
    _Resource(
        subject="gpu",
        limits=((signals.GPU_RATIO, 0.97),),
        critical=(signals.GPU_RATIO, _NEVER),
        harmless=True,
        advice="The accelerator is used up: let a Tuner find the batch size, limit the calls at once (AdaptiveLimiter), or add one.",
    ),
    _Resource(
        subject="gpu_memory",
        limits=((signals.GPU_MEMORY_RATIO, 0.97), (signals.GPU_OOMS, 0.001)),
        critical=(signals.GPU_OOMS, 0.001),
        harmless=False,
        advice="The accelerator's memory is nearly used up: release_accelerator_cache, or let a Tuner lower the batch size.",
    ),
)


class SaturationRule:
    """Finds resources that are used up, by means over half a minute.

    Args:
        seen: What the probes saw.
    """

    def __init__(self, seen: Signals) -> None:
        self._seen = seen
        self._latches = {resource.subject: Latch() for resource in _RESOURCES}
        self._first_s: float | None = None
        self._noted_s = -_NEVER

    def judge(self, at_s: float, *, fresh: bool, suffers: bool) -> Sequence[Verdict]:
        """What holds now.

        Args:
            at_s: Now.
            fresh: Whether there is a new reading.
            suffers: Whether calls of any model are slow or wait.
        """
        if fresh:
            self._noted_s = at_s
            self._first_s = at_s if self._first_s is None else self._first_s
        elif at_s - self._noted_s > _STALE_S:
            return ()
        verdicts = []
        for resource in _RESOURCES:
            values = {name: self._mean(name, at_s) for name, _ in (*resource.limits, resource.critical)}
            latch = self._latches[resource.subject]
            if fresh and (self._has_seen_enough(at_s) or not resource.harmless):
                latch.update(max(values[name] / limit for name, limit in resource.limits), at_s)
            if latch.is_on:
                verdicts.append(_verdict(resource, latch, values, suffers=suffers))
        return verdicts

    def _has_seen_enough(self, at_s: float) -> bool:
        """Whether there are readings of half a minute: a process that starts uses all that it may."""
        return self._first_s is not None and at_s - self._first_s >= _WINDOW_S

    def _mean(self, name: str, at_s: float) -> float:
        return self._seen.mean(name, at_s - _WINDOW_S, at_s + SLOT_S) or 0.0


def _verdict(resource: _Resource, latch: Latch, values: dict[str, float], *, suffers: bool) -> Verdict:
    name, limit = resource.critical
    severity = Severity.WARNING if suffers or not resource.harmless else Severity.INFO
    return Verdict(
        kind=FindingKind.SATURATION,
        subject=resource.subject,
        severity=Severity.CRITICAL if values[name] >= limit else severity,
        since_s=latch.since_s,
        evidence={**{name: round(value, 4) for name, value in values.items()}, "window_s": _WINDOW_S},
        advice=resource.advice,
    )
