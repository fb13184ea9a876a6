"""What one evaluation looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.health.stretch import Exemplar, Stretch


class Counts(Protocol):
    """Good and bad over any horizon up to six hours."""

    def __call__(self, horizon_s: float) -> tuple[int, int]:
        """All calls and the bad ones of the last `horizon_s` seconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelObservation:
    """One model, as an evaluation finds it."""

    health: ModelHealth
    """Figures of the window; its `findings` are those of the evaluation before."""
    stretches: Sequence[Stretch] = ()
    """Stretches of ten seconds that were completed since the evaluation before, oldest first; idle ones too."""
    errors: Counts
    """Bad is failed or rejected."""
    slow: Counts | None = None
    """Bad is slower than the latency objective; `None` without one."""
    age_s: float
    """Seconds since the model's first call."""
    stalled: Exemplar | None = None
    """The span of the oldest running call."""
