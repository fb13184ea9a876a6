"""A call that does not come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis.lifecycle import Verdict
from otel_inference.finding import FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.diagnosis.observation import ModelObservation

_FACTOR: Final = 10.0
_AT_LEAST_S: Final = 30.0
_FEWEST_CALLS: Final = 5


class StallRule:
    """Finds a running call older than ten times p99, and at least 30 seconds, at once.

    The last p99 of at least five calls is remembered: a window may be empty because all calls hang. Fewer calls can
    only raise it: a model whose calls take a minute never has five in a window, and does not hang.

    Args:
        model: The model's name.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._after_s = _AT_LEAST_S

    def judge(self, seen: ModelObservation, at_s: float) -> Sequence[Verdict]:
        """What holds now."""
        health = seen.health
        if health.window.warm_calls >= _FEWEST_CALLS:
            self._after_s = max(_AT_LEAST_S, _FACTOR * health.latency.p99)
        elif health.window.warm_calls:
            self._after_s = max(self._after_s, _FACTOR * health.latency.p99)
        if not health.active_calls or health.oldest_active_s <= self._after_s:
            return ()
        all_hang = health.calls == 0 and health.active_calls > 1
        return (
            Verdict(
                kind=FindingKind.STALL,
                severity=Severity.CRITICAL if all_hang else Severity.WARNING,
                model=self._model,
                since_s=at_s - health.oldest_active_s,
                evidence={
                    "oldest_active_s": round(health.oldest_active_s, 1),
                    "stall_after_s": round(self._after_s, 1),
                    "active_calls": health.active_calls,
                    "window_s": round(health.window.covered_s, 1),
                },
                advice="A call hangs: look at its trace and at the process's threads; restart the process if it does not end.",
                exemplar=seen.stalled,
            ),
        )
