"""Calls that wait for a place, or get none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis.lifecycle import Latch, Verdict
from otel_inference.diagnosis.profile import Profile
from otel_inference.finding import FindingKind, Severity
from otel_inference.health.window import wilson_interval
from otel_inference.resources.reading import CPU, GPU

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.diagnosis.observation import ModelObservation
    from otel_inference.diagnosis.work import Work
    from otel_inference.health.stretch import Stretch

_RECENT: Final = 3
_OLDEST: Final = 30
"""Stretches that are looked at: the latest three, and more where they had few calls."""
_QUEUE_RATIO: Final = 0.5
_LEAST_WAIT_S: Final = 0.01
_FEWEST_CALLS: Final = 20
_GREW: Final = 1.5
_REJECTED_RATIO: Final = 0.05
_FEWEST_REJECTED: Final = 3
_CRITICAL_RATIO: Final = 0.5
_SATURATED: Final = 0.95
_BUSY: Final = 0.6


class QueueRule:
    """Finds that waiting is most of the calls' time, or most of what was added to it, or that calls are turned away.

    Args:
        model: The model's name.
        work: What is known of its calls.
    """

    def __init__(self, model: str, work: Work) -> None:
        self._model = model
        self._work = work
        self._waiting = Latch()
        self._full = Latch()
        self._recent: list[Stretch] = []
        self._profile = Profile()

    @property
    def waits(self) -> bool:
        """Whether calls stand in a queue."""
        return self._waiting.is_on

    def judge(self, seen: ModelObservation, at_s: float) -> Sequence[Verdict]:
        """What holds now."""
        for stretch in seen.stretches:
            self._recent = _latest([*self._recent, stretch])
            self._profile = Profile.of(self._recent)
            self._waiting.update(self._level(), stretch.started_s)
        concurrency = seen.health.utilization.get("concurrency", 0.0)
        # Without a limiter there are no places: what is beyond the number of cores then waits for nothing.
        self._full.update(concurrency / _SATURATED if self._has_places() else 0.0, at_s)
        verdicts = []
        if self._waiting.is_on:
            verdicts.append(self._bottleneck(seen))
        if self._full.is_on:
            verdicts.append(self._saturation(seen, concurrency))
        return verdicts

    def _has_places(self) -> bool:
        return self._profile.queue_per_call_s >= _LEAST_WAIT_S or self._rejected()[0] > 0

    def _level(self) -> float:
        return max(self._waiting_level(), self._rejecting_level())

    def _waiting_level(self) -> float:
        profile, usual = self._profile, self._work.usual
        if profile.ended < _FEWEST_CALLS or profile.queue_per_call_s < _LEAST_WAIT_S:
            return 0.0
        level = profile.queue_ratio / _QUEUE_RATIO
        usual_s = usual.service_per_call_s + usual.queue_per_call_s
        added_s = profile.service_per_call_s + profile.queue_per_call_s - usual_s
        if usual.ended >= _FEWEST_CALLS and added_s >= (_GREW - 1) * usual_s:
            level = max(level, (profile.queue_per_call_s - usual.queue_per_call_s) / added_s / _QUEUE_RATIO)
        return level

    def _rejecting_level(self) -> float:
        rejected, calls = self._rejected()
        if rejected < _FEWEST_REJECTED:
            return 0.0
        return wilson_interval(rejected, calls)[0] / _REJECTED_RATIO

    def _rejected(self) -> tuple[int, int]:
        return sum(each.rejected for each in self._recent), sum(each.calls for each in self._recent)

    def _bottleneck(self, seen: ModelObservation) -> Verdict:
        rejected, calls = self._rejected()
        turned_away = wilson_interval(rejected, calls)[0] >= _CRITICAL_RATIO
        used = {name: seen.health.utilization[name] for name in (CPU, GPU) if name in seen.health.utilization}
        return Verdict(
            kind=FindingKind.BOTTLENECK,
            subject="queue",
            severity=Severity.CRITICAL if turned_away else Severity.WARNING,
            model=self._model,
            since_s=self._waiting.since_s,
            evidence={
                "queue_ratio": round(self._profile.queue_ratio, 3),
                "queue_per_call_s": round(self._profile.queue_per_call_s, 4),
                "service_per_call_s": round(self._profile.service_per_call_s, 4),
                "rejected": rejected,
                "calls": calls,
                "window_s": round(self._recent[-1].ended_s - self._recent[0].started_s, 1),
                **{f"{name}_ratio": round(ratio, 3) for name, ratio in used.items()},
            },
            advice=_advice(idle=CPU in used and max(used.values()) < _BUSY, is_limited=rejected > 0),
            exemplar=self._work.slowest(),
        )

    def _saturation(self, seen: ModelObservation, concurrency: float) -> Verdict:
        return Verdict(
            kind=FindingKind.SATURATION,
            subject="concurrency",
            severity=Severity.WARNING if self._waiting.is_on else Severity.INFO,
            model=self._model,
            since_s=self._full.since_s,
            evidence={
                "concurrency_ratio": round(concurrency, 3),
                "in_flight": round(seen.health.concurrency, 2),
                "window_s": round(seen.health.window.covered_s, 1),
            },
            advice="All places are taken and calls wait for them: let an AdaptiveLimiter learn how many there may be, or add replicas.",
        )


def _latest(stretches: list[Stretch]) -> list[Stretch]:
    """The latest three of these stretches, and as many more as it takes for calls to judge by, within five minutes."""
    if not any(stretch.calls for stretch in stretches[-_RECENT:]):
        return stretches[-_RECENT:]  # nobody calls, so nobody waits
    calls = 0
    for length, stretch in enumerate(reversed(stretches), 1):
        calls += stretch.calls
        if length >= _RECENT and calls >= _FEWEST_CALLS:
            return stretches[-length:]
    return stretches[-_OLDEST:]


def _advice(*, idle: bool, is_limited: bool) -> str:
    if idle and is_limited:
        return "A limiter turns calls away while processors are idle: give it more workers, a longer deadline, or sizes to learn from."
    if idle:
        return (
            "Calls wait while processors are idle: let more run at once (an AdaptiveLimiter without `workers` learns how many),"
            " unless they wait for one another inside the model."
        )
    if is_limited:
        return "More calls arrive than can be served in time: add replicas, or let a Tuner find the batch size."
    return "More calls arrive than can be served: bound the wait (`deadline_s` of AdaptiveLimiter), add replicas, or let a Tuner find the batch size."
