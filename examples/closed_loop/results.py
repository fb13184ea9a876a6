"""What a run gave, phase by phase, and what was found and done meanwhile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from load import Answer

DEADLINE_S = 0.5
RECOVERED = 0.9
"""Share of the requests that are answered in time once a server has recovered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of constant load."""

    name: str
    load: float
    """Requests per second over what the server can do at most."""
    hogs: int = 0
    """Processes that burn the server's core meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """What the server can do at most, without overload."""

    per_s: float
    per_cpu_s: float
    """The same by second of the server's own CPU time, whatever else the machine does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one phase gave."""

    phase: Phase
    began_s: float
    seconds: float
    answers: list[Answer]
    cpu_s: float
    """CPU time of the server, to the last answer."""
    rss_bytes: float

    @property
    def good(self) -> int:
        """Answers within the deadline."""
        return sum(map(in_time, self.answers))

    @property
    def goodput(self) -> float:
        """Answers within the deadline per second."""
        return self.good / self.seconds

    @property
    def p99_s(self) -> float:
        """99th percentile of what was served."""
        return p99([answer.took_s for answer in self.answers if answer.status == 200])

    def share(self, status: int) -> float:
        """Share of requests with this status; 0 is no answer."""
        return sum(answer.status == status for answer in self.answers) / max(1, len(self.answers))

    @property
    def ended_s(self) -> float:
        """When its load ended; answers may have come later."""
        return self.began_s + self.seconds

    def good_from_s(self) -> float | None:
        """From when on nine of ten requests were answered in time; `None` where that never was."""
        answers = sorted(self.answers, key=lambda answer: answer.at_s)
        good = 0
        since_s = None
        for count, answer in enumerate(reversed(answers), start=1):
            good += in_time(answer)
            if good >= RECOVERED * count:
                since_s = answer.at_s
        return since_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that was found or done."""

    at_s: float
    what: str
    """Such as `finding opened` or `action done`."""
    which: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All phases, with or without maintenance."""

    name: str
    best: Best
    results: list[Result]
    events: list[Event]

    def place_of(self, at_s: float) -> tuple[Result, float] | None:
        """In which phase a time lies, and how long after its begin; `None` before the first."""
        during = [result for result in self.results if result.began_s <= at_s]
        return (during[-1], at_s - during[-1].began_s) if during else None

    def recovered_after_s(self, overload: str, after: str) -> float | None:
        """Seconds from the end of one phase's load until requests of the next were answered in time again."""
        good_from_s = self.of(after).good_from_s()
        return None if good_from_s is None else good_from_s - self.of(overload).ended_s

    def grown_bytes(self, since: str, until: str) -> float:
        """Memory from the end of one phase to that of another."""
        return self.of(until).rss_bytes - self.of(since).rss_bytes

    def of(self, phase: str) -> Result:
        """The result of the phase of that name."""
        return next(result for result in self.results if result.phase.name == phase)


def in_time(answer: Answer) -> bool:
    """Whether an answer was of use."""
    return answer.status == 200 and answer.took_s <= DEADLINE_S


def p99(values: list[float]) -> float:
    """The 99th percentile; not a number without values."""
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else float("nan")


def read_events(findings: Path, journal: Path) -> list[Event]:
    """Findings as the server noted them, and the actions of maintenance's own journal; oldest first."""
    events = [
        Event(at_s=line["at"], what=f"finding {line['event']}", which=line["finding"], detail=line["advice"])
        for line in _lines(findings)
        if line["event"] != "updated"
    ]
    # A run is written again with its verdict: the later line of the two holds.
    runs = {(line["run"], line["outcome"]): line for line in _lines(journal)}
    for line in runs.values():
        verdict = f"verdict {line['verdict']}: " if "verdict" in line else ""
        what = f"action {line['outcome']}"
        at_s = datetime.fromisoformat(line["at"]).timestamp()
        events.append(Event(at_s=at_s, what=what, which=line["action"], detail=verdict + line.get("detail", "")))
    return sorted(events, key=lambda event: event.at_s)


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
