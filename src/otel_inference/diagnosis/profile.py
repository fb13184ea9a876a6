"""Where the time of a model's calls goes, on average over some stretches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_inference.health.stretch import Stretch


class Profile:
    """Sums over stretches, from which means per call follow; older stretches may weigh less.

    Attributes:
        calls: Successful warm calls.
        service_s: Time they were worked on.
        queue_s: Time that calls waited before they were worked on.
        ended: Calls that were not turned away, failed and cold ones included.
        device_s: Time an accelerator worked.
        stage_s: Time by stage.
    """

    __slots__ = ("_covered_s", "_degrees", "_squares", "calls", "device_s", "ended", "queue_s", "service_s", "stage_s")

    def __init__(self) -> None:
        self.calls = self.ended = self.service_s = self.queue_s = self.device_s = 0.0
        self._covered_s = self._degrees = self._squares = 0.0
        self.stage_s: dict[str, float] = {}

    @classmethod
    def of(cls, stretches: Iterable[Stretch]) -> Profile:
        """The profile of some stretches, all of the same weight."""
        profile = cls()
        for stretch in stretches:
            profile.add(stretch)
        return profile

    def add(self, stretch: Stretch, *, keep: float = 1.0) -> None:
        """Add a stretch, after what is known already has been weighted with `keep`."""
        if keep != 1.0:
            self._fade(keep)
        self.ended += stretch.calls - stretch.rejected
        self.queue_s += stretch.queue_s
        self.device_s += stretch.device_s
        self._covered_s += stretch.ended_s - stretch.started_s
        for stage, spent_s in stretch.stage_s.items():
            self.stage_s[stage] = self.stage_s.get(stage, 0.0) + spent_s
        for totals in stretch.by_size.values():
            self.calls += totals.calls
            self.service_s += totals.service_s
            if totals.calls > 1:
                self._degrees += totals.calls - 1
                self._squares += max(0.0, totals.log_square - totals.log_service**2 / totals.calls)

    @property
    def service_per_call_s(self) -> float:
        """Mean time a call was worked on; 0 without calls."""
        return self.service_s / self.calls if self.calls else 0.0

    @property
    def queue_per_call_s(self) -> float:
        """Mean time a call waited; 0 without calls."""
        return self.queue_s / self.ended if self.ended else 0.0

    @property
    def queue_ratio(self) -> float:
        """Share of the calls' time that they waited."""
        total_s = self.service_per_call_s + self.queue_per_call_s
        return self.queue_per_call_s / total_s if total_s > 0 else 0.0

    @property
    def in_flight(self) -> float:
        """Mean number of calls worked on at once, by Little's law."""
        return self.service_s / self._covered_s if self._covered_s > 0 else 0.0

    @property
    def log_spread(self) -> float:
        """Standard deviation of ln(service) among calls of one size in one stretch; 0 where there were too few."""
        return math.sqrt(self._squares / self._degrees) if self._degrees > _FEWEST_DEGREES else 0.0

    def stage_per_call_s(self, stage: str) -> float:
        """Mean seconds of a call in `stage`."""
        return self.stage_s.get(stage, 0.0) / self.calls if self.calls else 0.0

    def _fade(self, keep: float) -> None:
        self.calls *= keep
        self.ended *= keep
        self.service_s *= keep
        self.queue_s *= keep
        self.device_s *= keep
        self._covered_s *= keep
        self._degrees *= keep
        self._squares *= keep
        for stage in self.stage_s:
            self.stage_s[stage] *= keep


_FEWEST_DEGREES: Final = 20
