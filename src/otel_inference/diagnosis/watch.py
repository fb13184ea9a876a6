"""Watching a stream of windows for a lasting change: what is learned from, and when a change begins and ends."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNS: Final = (2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 31, 36)
"""Numbers of latest windows that are looked at together."""
LONGEST_RUN: Final = RUNS[-1]
RETURN_RUN: Final = 3
"""Windows that it takes at least to see that a change is over."""

_FEW: Final = 4
_SPARE_OF_FEW: Final = 1.5
_SPARE_OF_MANY: Final = 1.25

_PENDING: Final = 12
_PENDING_SHARE: Final = 3
"""The latest windows, a third of all but at most twelve, which are not learned from yet, so that a change does not hide
in what is usual."""
_STALE_S: Final = 7200.0
"""Older windows are not learned from either."""
_REFRESH: Final = 10
"""Windows after which it is learned again ..."""
_REFRESH_EARLY: Final = 5
_ENOUGH: Final = 30
"""... sooner while it was learned from fewer than this."""
_ACCEPT_S: Final = 1800.0
"""After so long, a change is what is usual."""
_IDLE_S: Final = 1800.0
"""After a gap of so long nothing is known."""


class Window(Protocol):
    """A window of a stream."""

    @property
    def at_s(self) -> float:
        """When it ended."""
        ...


_W = TypeVar("_W", bound=Window)


class Watch(ABC, Generic[_W]):
    """What detectors share; a detector says what is usual, and how surely the latest windows differ from it.

    Args:
        threshold: Standard errors by which a run of windows must differ from what is usual.
        learned_from: The fewest windows that what is usual is learned from, and the most.
        phase: Detectors of different phases learn at different times, so that no evaluation of many is long.

    Attributes:
        shifted: Whether there is a change now.
        since_s: When it began, as far as can be told; `None` unless there is one.
        accepted_s: When a change was last accepted as what is usual; `None` if none ever was.
    """

    def __init__(self, *, threshold: float, learned_from: tuple[int, int], phase: int) -> None:
        self._threshold = threshold
        self._fewest, most = learned_from
        self._kept = most + _PENDING
        self._phase = phase % _REFRESH
        self.accepted_s: float | None = None
        self._restart()

    def _restart(self) -> None:
        self._settled: deque[_W] = deque(maxlen=self._kept)
        """Healthy windows."""
        self._during: deque[_W] = deque(maxlen=self._kept)
        """Windows since the change began."""
        self._knows = False
        self._is_first = True
        self._until_learned = 0
        self._step_s = math.inf
        self._before_s = self._last_s = self._opened_s = -math.inf
        self._begins: deque[float] = deque(maxlen=LONGEST_RUN)
        """When the latest windows began, of those that were judged."""
        self._sureness = 0.0
        self.shifted = False
        self.since_s: float | None = None
        self._forget()

    def idle(self, at_s: float) -> None:
        """Note that there was no window until `at_s`: after half an hour nothing is known any more, nor of a change."""
        if self._last_s > -math.inf and at_s - self._last_s > _IDLE_S:
            self._restart()

    @abstractmethod
    def _forget(self) -> None:
        """Begin to learn what is usual anew."""

    @abstractmethod
    def _learn(self, windows: Sequence[_W], at_s: float) -> None:
        """Learn what is usual now from healthy windows, oldest first."""

    @abstractmethod
    def _evidence(self, window: _W) -> tuple[float, int]:
        """Take the latest window; standard errors of the most telling run, and how many windows it has."""

    @abstractmethod
    def _returned(self) -> bool:
        """Whether the latest windows of the change show that it is over."""

    @abstractmethod
    def _clear(self) -> None:
        """Let the latest windows go, as a change has ended."""

    def _take(self, window: _W) -> float:
        """Take the next window; returns how surely there is a change."""
        if window.at_s - self._last_s > _IDLE_S:
            self._restart()
        self._before_s, self._last_s = self._last_s, window.at_s
        if self._knows:
            self._judge(window)
        if self.shifted:
            self._follow(window)
        else:
            self._settle(window)
        return self._sureness

    def _judge(self, window: _W) -> None:
        self._begins.append(max(self._before_s, window.at_s - self._step_s))
        evidence, length = self._evidence(window)
        self._sureness = evidence**2 / (evidence**2 + self._threshold**2)
        if evidence >= self._threshold and not self.shifted:
            self.shifted = True
            self.since_s = self._begins[-length]
            self._opened_s = window.at_s
            self._during.clear()
            while self._settled and self._settled[-1].at_s > self.since_s:
                self._during.appendleft(self._settled.pop())

    def _follow(self, window: _W) -> None:
        """Look whether the change is over, or to be accepted."""
        self._during.append(window)
        if window.at_s - self._opened_s >= _ACCEPT_S:
            self.accepted_s = window.at_s
            self._settled, self._during = self._during, self._settled
            self._close()
            self._forget()
            self._learn_settled(window.at_s)
        elif self._returned():
            self._close()

    def _close(self) -> None:
        self.shifted = False
        self.since_s = None
        self._sureness = 0.0
        self._during.clear()
        self._begins.clear()
        self._clear()

    def _settle(self, window: _W) -> None:
        self._settled.append(window)
        self._until_learned -= 1
        if self._until_learned <= 0:
            self._learn_settled(window.at_s)

    def _learn_settled(self, at_s: float) -> None:
        recent = [each for each in self._settled if each.at_s > at_s - _STALE_S]
        windows = recent[: len(recent) - min(_PENDING, len(recent) // _PENDING_SHARE)]
        self._knows = len(windows) >= self._fewest
        self._until_learned = 1
        if self._knows:
            self._until_learned = _REFRESH if len(windows) >= _ENOUGH else _REFRESH_EARLY
            if self._is_first:
                self._until_learned += self._phase
                self._is_first = False
            self._step_s = min(after.at_s - before.at_s for before, after in pairwise(windows))
            self._learn(windows, at_s)


def spare(length: int) -> float:
    """How many times what a run of so many windows tells without its most extreme one it may tell in all.

    Like windows are not held back by it, as n of them tell √(n / (n - 1)) times what n - 1 do. Among a few, the most
    extreme one makes more of a difference by chance, so they are let do more.
    """
    return _SPARE_OF_FEW if length <= _FEW else _SPARE_OF_MANY
