"""What a webhook receives."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from otel_inference.alerting import Webhook
from otel_inference.errors import ConfigError
from otel_inference.finding import FindingEvent, FindingKind, Severity


def test_posts_the_documented_fields(receiver, change):
    """The document has all fields of `docs/alerts.md`, whether there is a value or not."""
    known = {"subject": "cpu", "explained_by": "stall::", "trace_id": "a" * 32, "span_id": "b" * 16}
    Webhook(receiver.url, service="ranking").send([change(kind=FindingKind.BOTTLENECK, **known)])

    assert receiver.documents == [
        {
            "version": 1,
            "event": "opened",
            "key": "bottleneck:cpu:ranker",
            "kind": "bottleneck",
            "severity": "warning",
            "service": "ranking",
            "instance": f"{socket.gethostname()}:{os.getpid()}",
            "model": "ranker",
            "since": "2026-08-01T12:00:00.000Z",
            "at": "2026-08-01T12:00:00.000Z",
            "evidence": {"p99_s": 0.75, "window_s": 60.0},
            "advice": "Use a smaller batch.",
            **known,
        }
    ]


def test_the_page_for_users_has_these_fields(receiver, change):
    """The example and the table of `docs/alerts.md` name all fields of the document, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    Webhook(receiver.url).send([change()])
    example = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])
    table = page.partition("| field |")[2].partition("\n\n")[0]

    assert example.keys() == receiver.documents[0].keys()
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))) == example.keys()


def test_what_is_unknown_is_null(receiver, change):
    """A finding of the process, of which nothing more is known, has the same fields."""
    closed = change(FindingEvent.CLOSED, model=None, severity=Severity.CRITICAL)
    Webhook(receiver.url).send([change(), closed])

    assert [document.keys() for document in receiver.documents[:1]] == [receiver.documents[1].keys()]
    assert [name for name, value in receiver.documents[1].items() if value is None] == [
        "service", "model", "subject", "explained_by", "trace_id", "span_id",
    ]  # fmt: skip


def test_asks_for_the_service_when_it_sends(receiver, change):
    """A name that becomes known later, as with an SDK that is set up later, is in what is sent later."""
    names = [None, "ranking"]
    webhook = Webhook(receiver.url, service=lambda: names.pop(0))
    webhook.send([change()])
    webhook.send([change()])

    assert [document["service"] for document in receiver.documents] == [None, "ranking"]


def test_shows_no_secret():
    """Its `repr`, which a configuration's `repr` contains, has the origin only."""
    webhook = Webhook("https://me:s3cret@host/s3cret", headers={"Authorization": "s3cret"})

    assert repr(webhook) == "Webhook('https://host')"
    assert webhook == Webhook("https://me:s3cret@host/s3cret", headers={"Authorization": "s3cret"})
    assert hash(webhook) == hash(Webhook("https://me:s3cret@host/s3cret"))


def test_refuses_what_it_cannot_use():
    """A wrong address is an error where it is given."""
    with pytest.raises(ConfigError, match="expected an http"):
        Webhook("hooks.example.com/s3cret")
