"""A model that takes a growing share of the process's time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from otel_inference.diagnosis.lifecycle import Latch, Verdict
from otel_inference.finding import FindingKind, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_inference.diagnosis.observation import ModelObservation

_NOW_HALF_LIFE_S: Final = 60.0
_USUAL_HALF_LIFE_S: Final = 3600.0
_LEARN_S: Final = 600.0
_GAIN: Final = 0.2
_GREW: Final = 1.3
_FEWEST_CALLS: Final = 100.0


class ShareRule:
    """Finds that one of several models came to take a fifth more of all calls' time, and at least 1.3 times as much.

    Shares of the last minutes are compared with those of the last hours. It says nothing of how fast the model is.
    """

    def __init__(self) -> None:
        self._shares: dict[str, _Share] = {}
        self._began_s: float | None = None
        self._updated_s = 0.0
        self._verdicts: Sequence[Verdict] = ()

    def judge(self, models: Mapping[str, ModelObservation], at_s: float) -> Sequence[Verdict]:
        """What holds now."""
        if not any(seen.stretches for seen in models.values()):
            return self._verdicts
        elapsed_s = at_s - self._updated_s
        if self._began_s is None:
            self._began_s, elapsed_s = at_s, 0.0
        self._updated_s = at_s
        for model in self._shares.keys() - models.keys():
            del self._shares[model]
        for model, seen in models.items():
            share = self._shares.get(model)
            if share is None:
                share = self._shares[model] = _Share()
            share.add(seen, elapsed_s)
        self._verdicts = self._judge(at_s) if at_s - self._began_s >= _LEARN_S else ()
        return self._verdicts

    def _judge(self, at_s: float) -> list[Verdict]:
        now_s = sum(each.now_s for each in self._shares.values())
        usual_s = sum(each.usual_s for each in self._shares.values())
        verdicts = []
        for model, share in self._shares.items():
            now, usual = _ratio(share.now_s, now_s), _ratio(share.usual_s, usual_s)
            level = min((now - usual) / _GAIN, now / (_GREW * usual)) if usual > 0 else 0.0
            if share.latch.update(level if share.calls >= _FEWEST_CALLS else 0.0, at_s):
                verdicts.append(_verdict(model, now, usual, share.latch.since_s))
        return verdicts


class _Share:
    """Time that one model took."""

    __slots__ = ("calls", "latch", "now_s", "usual_s")

    def __init__(self) -> None:
        self.calls = self.now_s = self.usual_s = 0.0
        self.latch = Latch()

    def add(self, seen: ModelObservation, elapsed_s: float) -> None:
        """Let time pass, and add what ended in it."""
        spent_s = sum(stretch.duration_s for stretch in seen.stretches)
        recent = math.exp2(-elapsed_s / _NOW_HALF_LIFE_S)
        self.now_s = self.now_s * recent + spent_s
        self.calls = self.calls * recent + sum(stretch.calls for stretch in seen.stretches)
        self.usual_s = self.usual_s * math.exp2(-elapsed_s / _USUAL_HALF_LIFE_S) + spent_s


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _verdict(model: str, now: float, usual: float, since_s: float) -> Verdict:
    return Verdict(
        kind=FindingKind.INPUT_SHIFT,
        subject="share",
        severity=Severity.INFO,
        model=model,
        since_s=since_s,
        evidence={
            "share_of_time_ratio": round(now, 3),
            "usual_share_of_time_ratio": round(usual, 3),
            "window_s": _NOW_HALF_LIFE_S,
        },
        advice="This model takes a growing share of the process's time: give it a limiter or a process of its own.",
    )
