"""Whether an action may run now: pure, with the clock passed in.

Guard-rails after the practice of automatic remediation: cool-down, caps by the hour, one at a time,
one unjudged change at a time, and a circuit that opens after repeated failure or repeated harm.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from otel_inference.errors import ConfigError
from otel_inference.maintenance.action import unknown

if TYPE_CHECKING:
    from otel_inference.maintenance.action import Action

HOUR_S: Final = 3600.0
MAX_PER_HOUR_IN_ALL: Final = 20
"""Runs in an hour of all actions of a process together."""
MAX_FAILURES: Final = 3
"""Failures in a row that disable an action."""
MAX_ROLLBACKS: Final = 3
"""Runs in an hour that were taken back because they made it worse, which disable an action."""


class Mode(StrEnum):
    """What maintenance may do."""

    ACT = "act"
    """What is registered or enabled runs."""
    OBSERVE = "observe"
    """Nothing runs; the journal says what would have."""
    OFF = "off"


def mode_of(name: Mode | str) -> Mode:
    """The mode that `name` names.

    Raises:
        ConfigError: If there is none; it says which comes nearest.

    >>> mode_of("observe")
    <Mode.OBSERVE: 'observe'>
    """
    try:
        return Mode(name)
    except ValueError:
        raise ConfigError(unknown("maintenance mode", name, [mode.value for mode in Mode])) from None


class Ruling(StrEnum):
    """What a decision comes to."""

    GO = "go"
    WAIT = "wait"
    """Not yet: nothing unusual, asked again at the next evaluation."""
    REFUSE = "refuse"
    """A guard holds it back; worth an entry in the journal."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether an action may run now, and why not."""

    ruling: Ruling
    reason: str = ""


class RunCount:
    """When runs of the last hour began."""

    __slots__ = ("_at_s",)

    def __init__(self) -> None:
        self._at_s: deque[float] = deque()

    def add(self, now_s: float) -> None:
        """Count one."""
        self._at_s.append(now_s)

    def last_hour(self, now_s: float) -> int:
        """How many there were."""
        while self._at_s and now_s - self._at_s[0] >= HOUR_S:
            self._at_s.popleft()
        return len(self._at_s)


class History:
    """What became of one action so far. One thread uses it.

    Attributes:
        disabled: Why it may run no more, until somebody enables it; empty while it may.
    """

    __slots__ = ("_failures", "_last_s", "_rollbacks", "_runs", "_told", "disabled")

    def __init__(self) -> None:
        self._runs = RunCount()
        self._rollbacks = RunCount()
        self._failures = 0
        self._last_s: dict[str, float] = {}
        self._told = ""
        self.disabled = ""

    def begin(self, finding: str, now_s: float, *, counts: bool = True) -> None:
        """Note that it was tried for the finding of this key.

        Args:
            finding: Key of the finding.
            now_s: The time.
            counts: Whether it counts as a run; where its precondition forbade it, it only has to cool down.
        """
        self._last_s[finding] = now_s
        if counts:
            self._runs.add(now_s)
            self._told = ""

    def succeed(self) -> None:
        """Note that a run ended well."""
        self._failures = 0

    def fail(self) -> None:
        """Note that a run failed or timed out; the third in a row disables it."""
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self.disabled = f"it failed {self._failures} times in a row"

    def roll_back(self, now_s: float) -> None:
        """Note that a run made it worse and was taken back; the third in an hour disables it."""
        self._rollbacks.add(now_s)
        count = self._rollbacks.last_hour(now_s)
        if count >= MAX_ROLLBACKS:
            self.disabled = f"it made things worse {count} times in an hour"

    def enable(self) -> None:
        """Let it run again, its failures forgotten; its caps stand."""
        self.disabled = self._told = ""
        self._failures = 0
        self._rollbacks = RunCount()

    def is_news(self, reason: str) -> bool:
        """Whether it was last refused for another reason, or ran since; telling of it each time would bury the rest."""
        told, self._told = self._told, reason
        return told != reason

    def runs(self, now_s: float) -> int:
        """Runs in the last hour."""
        return self._runs.last_hour(now_s)

    def cools_down(self, finding: str, now_s: float, cooldown_s: float) -> bool:
        """Whether its last try for this finding is less than the cool-down ago."""
        last_s = self._last_s.get(finding)
        return last_s is not None and now_s - last_s < cooldown_s

    def forget(self, now_s: float, cooldown_s: float, open_keys: set[str]) -> None:
        """Drop what is no longer needed of findings that have closed, so that memory stays bounded."""
        for key in [key for key in self._last_s if key not in open_keys]:
            if not self.cools_down(key, now_s, cooldown_s):
                del self._last_s[key]


def decide(
    action: Action,
    history: History,
    *,
    finding: str,
    now_s: float,
    runs_in_all: int,
    hangs: bool = False,
    unjudged: str | None = None,
) -> Decision:
    """Whether `action` may run for the open finding of this key; the mode is asked elsewhere.

    Args:
        action: What is due.
        history: What became of it so far.
        finding: Key of the finding.
        now_s: The time.
        runs_in_all: Runs of all actions in the last hour.
        hangs: Whether an earlier run has not returned yet.
        unjudged: The action whose effect on the same model is still being watched, if there is one. What can be
            undone waits for it, for else nobody could tell which of the two made it worse.

    >>> from otel_inference.maintenance.action import Action
    >>> decide(Action(name="shed", kind="stall", run=print), History(), finding="stall::", now_s=0, runs_in_all=20).reason
    '20 actions ran in this process within an hour'
    """
    if history.cools_down(finding, now_s, action.cooldown_s):
        return Decision(Ruling.WAIT, "it cools down")
    if history.disabled:
        return Decision(Ruling.REFUSE, f"disabled: {history.disabled}")
    if hangs:
        return Decision(Ruling.REFUSE, "disabled: an earlier run has not returned")
    if history.runs(now_s) >= action.max_per_hour:
        return Decision(Ruling.REFUSE, f"it ran {action.max_per_hour} times within an hour")
    if runs_in_all >= MAX_PER_HOUR_IN_ALL:
        return Decision(Ruling.REFUSE, f"{MAX_PER_HOUR_IN_ALL} actions ran in this process within an hour")
    if unjudged is not None and action.undo is not None:
        return Decision(Ruling.WAIT, f"{unjudged} has not been judged yet")
    return Decision(Ruling.GO)
