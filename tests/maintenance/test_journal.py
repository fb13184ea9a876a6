"""What is kept of what maintenance did."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest

from otel_inference import guard
from otel_inference.finding import FindingKind
from otel_inference.maintenance.journal import Journal, JournalEntry, Outcome
from otel_inference.maintenance.policy import Mode
from otel_inference.maintenance.verdict import Verdict


def entry(run=1, **known):
    """A run of `shed` that went well."""
    return JournalEntry(
        **{
            "run": run,
            "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "action": "shed",
            "finding": "saturation:cpu:ranker",
            "kind": FindingKind.SATURATION,
            "subject": "cpu",
            "model": "ranker",
            "mode": Mode.ACT,
            "outcome": Outcome.DONE,
            **known,
        }
    )


@pytest.fixture
def journal(tmp_path):
    """A journal that is also written to a file."""
    journal = Journal()
    journal.path = tmp_path / "journal.jsonl"
    return journal


def lines(journal):
    """What its file holds."""
    return [json.loads(line) for line in journal.path.read_text().splitlines()]


def test_keeps_the_last_entries_newest_last():
    """Memory is bounded: beyond so many the oldest entries go."""
    journal = Journal(max_entries=3)
    for run in range(5):
        journal.append(entry(run))

    assert [each.run for each in journal.entries()] == [2, 3, 4]


def test_writes_json_lines(journal):
    """Each entry is a line of JSON with what is known of it, its process and its time."""
    journal.append(entry(detail="", duration_s=0.5, before={"mean_s": 0.1, "p99_s": float("nan")}))

    assert lines(journal) == [
        {
            "run": 1, "at": "2026-01-02T03:04:05+00:00", "action": "shed", "finding": "saturation:cpu:ranker",
            "kind": "saturation", "subject": "cpu", "model": "ranker", "mode": "act", "outcome": "done",
            "duration_s": 0.5, "before": {"mean_s": 0.1}, "pid": os.getpid(),
        }
    ]  # fmt: skip


def test_a_verdict_completes_its_entry(journal):
    """In memory the entry is replaced where it stands; in the file a later line with the same run holds."""
    first = entry(1)
    journal.append(first)
    journal.append(entry(2))
    judged = journal.judge(first, verdict=Verdict.IMPROVED, reason="cpu 50% used", after={"calls": 7})

    assert [(each.run, each.verdict) for each in journal.entries()] == [(1, Verdict.IMPROVED), (2, None)]
    assert judged in journal.entries()
    assert lines(journal)[-1]["run"] == 1
    assert lines(journal)[-1]["verdict"] == "improved"
    assert lines(journal)[-1]["after"] == {"calls": 7}


def test_a_verdict_on_what_is_no_longer_kept_is_still_written():
    """An entry that has left memory by the time it is judged is not put back."""
    journal = Journal(max_entries=1)
    first = entry(1)
    journal.append(first)
    journal.append(entry(2))

    assert journal.judge(first, verdict=Verdict.WORSE, reason="", after={}).verdict is Verdict.WORSE
    assert [each.run for each in journal.entries()] == [2]


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/journal.jsonl", "nul\0byte"])
def test_a_file_that_cannot_be_written_is_counted(path):
    """A full disk or a bad path loses lines, which are counted, and nothing else."""
    before = guard.drop_counts().get("journal", 0)
    journal = Journal()
    journal.path = Path(path)
    journal.append(entry())

    assert len(journal.entries()) == 1
    assert guard.drop_counts()["journal"] == before + 1


def test_the_event_has_what_is_known():
    """The attributes of the event leave out what is not known."""
    assert entry(model=None, subject=None).attributes == {
        "inference.maintenance.action": "shed",
        "inference.maintenance.outcome": "done",
        "inference.finding.kind": "saturation",
        "inference.maintenance.mode": "act",
        "inference.maintenance.duration": 0.0,
    }
    assert entry(verdict=Verdict.WORSE).attributes["inference.maintenance.verdict"] == "worse"


def test_many_threads_write_whole_lines(journal):
    """Entries of several threads are all there, in memory and in the file."""
    threads = [Thread(target=lambda: [journal.append(entry(run)) for run in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(journal.entries()) == len(lines(journal)) == 80


def test_a_forked_child_begins_anew(journal):
    """The child's journal is empty, its lock is its own, and it writes to the same file."""
    journal.append(entry(1))
    journal._lock.acquire()
    journal.reset_after_fork()
    journal.append(entry(2))

    assert [each.run for each in journal.entries()] == [2]
    assert [each["run"] for each in lines(journal)] == [1, 2]
