"""What maintenance did: kept for the last runs, readable by API and, where a file is given, as JSON lines."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard, semconv

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from otel_inference.finding import FindingKind
    from otel_inference.maintenance.policy import Mode
    from otel_inference.maintenance.verdict import Verdict

MAX_ENTRIES: Final = 500


class Outcome(StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    """It raised."""
    TIMED_OUT = "timed_out"
    """It had not returned when its time was over; it goes on in its own thread."""
    REFUSED = "refused"
    """It was due and a guard or its precondition forbade it."""
    WOULD_RUN = "would_run"
    """It was due, and the mode is `observe`."""
    UNDONE = "undone"
    """What it had done was taken back."""
    UNDO_FAILED = "undo_failed"
    """Taking it back failed or timed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One run of an action, or one that was due and did not run."""

    run: int
    """Number of the run in this process; its `undone` entry has the same."""
    at: datetime
    """When it ended, in UTC."""
    action: str
    finding: str
    """`Finding.key` of what set it off."""
    kind: FindingKind
    subject: str | None = None
    model: str | None = None
    mode: Mode
    outcome: Outcome
    detail: str = ""
    """Why: the exception, the guard, or the reason of the verdict."""
    duration_s: float = 0.0
    verdict: Verdict | None = None
    """Whether it helped; `None` until it is judged, and for what did not run."""
    before: Mapping[str, float] = field(default_factory=dict)
    """Figures of health when the run began, by name."""
    after: Mapping[str, float] = field(default_factory=dict)
    """The same figures when it was judged."""
    trace_id: str | None = None
    """32 hexadecimal digits: the trace of the run's span."""

    def to_json(self) -> str:
        """One line of JSON, with the process it is from; what is not known is left out."""
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        known["at"] = self.at.isoformat()
        known["pid"] = os.getpid()
        for figures in ("before", "after"):  # JSON has neither NaN nor infinity
            known[figures] = {name: value for name, value in known[figures].items() if math.isfinite(value)}
        return json.dumps({name: value for name, value in known.items() if value not in (None, "", {})})

    @property
    def attributes(self) -> Mapping[str, str | float]:
        """Attributes of the OpenTelemetry event that tells of it."""
        known: dict[str, Any] = {
            semconv.ACTION_NAME: self.action,
            semconv.ACTION_OUTCOME: self.outcome.value,
            semconv.FINDING_EVENT_KIND: self.kind.value,
            semconv.FINDING_SUBJECT: self.subject,
            semconv.MODEL: self.model,
            semconv.ACTION_MODE: self.mode.value,
            semconv.ACTION_DETAIL: self.detail or None,
            semconv.ACTION_DURATION: self.duration_s,
            semconv.ACTION_VERDICT: self.verdict and self.verdict.value,
        }
        return {name: value for name, value in known.items() if value is not None}


class Journal:
    """The last entries, oldest first; any thread may read and write.

    Args:
        max_entries: How many are kept in memory.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._entries: deque[JournalEntry] = deque(maxlen=max_entries)
        self._lock = Lock()
        self.path: Path | None = None
        """File that every entry is appended to as a line of JSON. One that was judged is appended again with its
        verdict, so that of two lines with the same `pid`, `run` and `outcome` the later one holds."""

    def append(self, entry: JournalEntry) -> None:
        """Add an entry."""
        with self._lock:
            self._entries.append(entry)
        self._write(entry)

    def judge(self, entry: JournalEntry, *, verdict: Verdict, reason: str, after: Mapping[str, float]) -> JournalEntry:
        """Put the verdict on a run into its entry; returns the entry as it is now."""
        judged = replace(entry, verdict=verdict, detail=reason, after=after)
        with self._lock:
            for index, each in enumerate(self._entries):
                if each is entry:
                    self._entries[index] = judged
        self._write(judged)
        return judged

    def entries(self) -> tuple[JournalEntry, ...]:
        """All that are kept, newest last."""
        with self._lock:
            return tuple(self._entries)

    def reset_after_fork(self) -> None:
        """Begin anew in a forked child: what the parent did is in the parent's journal."""
        self._lock = Lock()
        self._entries.clear()

    def _write(self, entry: JournalEntry) -> None:
        """Append to the file. It is opened each time, which a fork or somebody who moves it away cannot upset."""
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(entry.to_json() + "\n")
        except (OSError, ValueError):  # a full disk, a folder that is gone, a path with a NUL in it
            guard.dropped("journal")
