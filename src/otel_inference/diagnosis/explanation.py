"""Which finding follows from which, so that one cause is one problem and not five."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from otel_inference.finding import FindingKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_inference.diagnosis.lifecycle import Verdict


class _Which(NamedTuple):
    """Some findings: of one kind, about one of some subjects, or about any where there are none."""

    kind: FindingKind
    subjects: tuple[str, ...] = ()

    def holds(self, verdict: Verdict) -> bool:
        return verdict.kind is self.kind and (not self.subjects or verdict.subject in self.subjects)


_BURNING_LATENCY: Final = _Which(FindingKind.SLO_BURN, ("latency",))
_BURNING_ERRORS: Final = _Which(FindingKind.SLO_BURN, ("errors",))
_SLOWER: Final = _Which(FindingKind.LATENCY_SHIFT)
_FEWER: Final = _Which(FindingKind.THROUGHPUT_DROP)
_FAILING: Final = _Which(FindingKind.ERROR_BURST)
_STALLED: Final = _Which(FindingKind.STALL)
_LARGER: Final = _Which(FindingKind.INPUT_SHIFT, ("sizes",))
_QUEUE: Final = _Which(FindingKind.BOTTLENECK, ("queue",))
_PLACES: Final = _Which(FindingKind.SATURATION, ("concurrency",))
_WORK: Final = _Which(
    FindingKind.BOTTLENECK,
    ("cpu", "cpu_throttled", "memory", "gpu", "gpu_memory", "preprocess", "prefill", "decode", "gc", "lock", "model"),
)

# Ordered so that nothing explains what explains it: growth, saturation, what the work waits for, the work is
# slower or larger, calls queue for it, places are taken, budgets burn.
_LINKS: Final[tuple[tuple[_Which, _Which], ...]] = (
    (_Which(FindingKind.SATURATION, ("memory",)), _Which(FindingKind.MEMORY_GROWTH)),
    (_Which(FindingKind.BOTTLENECK, ("cpu", "cpu_throttled")), _Which(FindingKind.SATURATION, ("cpu",))),
    (_Which(FindingKind.BOTTLENECK, ("memory",)), _Which(FindingKind.SATURATION, ("memory",))),
    (_Which(FindingKind.BOTTLENECK, ("gpu",)), _Which(FindingKind.SATURATION, ("gpu",))),
    (_Which(FindingKind.BOTTLENECK, ("gpu_memory",)), _Which(FindingKind.SATURATION, ("gpu_memory",))),
    (_SLOWER, _WORK),
    (_FAILING, _Which(FindingKind.SATURATION, ("gpu_memory",))),
    (_QUEUE, _SLOWER),
    (_QUEUE, _LARGER),
    (_QUEUE, _Which(FindingKind.SATURATION, ("cpu", "gpu"))),
    (_PLACES, _QUEUE),
    (_PLACES, _WORK),
    (_PLACES, _SLOWER),
    (_PLACES, _LARGER),
    (_FEWER, _STALLED),
    (_FEWER, _WORK),
    (_FEWER, _SLOWER),
    (_FEWER, _LARGER),
    (_FEWER, _QUEUE),
    (_BURNING_LATENCY, _WORK),
    (_BURNING_LATENCY, _SLOWER),
    (_BURNING_LATENCY, _LARGER),
    (_BURNING_LATENCY, _QUEUE),
    (_BURNING_ERRORS, _FAILING),
    (_BURNING_ERRORS, _QUEUE),
)


def explanations(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """The key of what each verdict follows from, by its own key; those that nothing explains are not in it.

    A cause is looked for in the same model and in the whole process. Following the keys leads to the root cause.

    Args:
        verdicts: All that hold now.
    """
    by_model: dict[str | None, list[Verdict]] = {}
    for verdict in verdicts:
        by_model.setdefault(verdict.model, []).append(verdict)
    of_process = by_model.get(None, [])
    found: dict[str, str] = {}
    for model, own in by_model.items():
        candidates = own if model is None else [*own, *of_process]
        for verdict in own:
            cause = _cause(verdict, candidates)
            if cause is not None:
                found[verdict.key] = cause.key
    return found


def _cause(verdict: Verdict, candidates: list[Verdict]) -> Verdict | None:
    if len(candidates) == 1:
        return None
    for follows, cause in _LINKS:
        if follows.holds(verdict):
            for candidate in candidates:
                if cause.holds(candidate):
                    return candidate
    return None
