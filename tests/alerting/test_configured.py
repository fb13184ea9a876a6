"""From a configuration to sinks."""

from __future__ import annotations

import functools

import pytest

from otel_inference.alerting import Alertmanager, Webhook
from otel_inference.alerting.configured import sinks_from
from otel_inference.errors import ConfigError


def test_nothing_configured_is_no_sink():
    """Without addresses and functions nobody is told."""
    assert sinks_from(None, None) == ()


def test_makes_a_sink_of_everything(change, listener):
    """Addresses come first; functions are called with each change; sinks are taken as they are."""
    told = []
    own = listener()
    sinks = sinks_from("http://hook", "http://am", (told.append, own, functools.partial(told.append)))

    assert [sink.name for sink in sinks] == ["webhook", "alertmanager", "append", "listener", "partial"]
    sinks[2].send([change(), change()])
    assert told == [change(), change()]
    assert sinks[3] is own


def test_tells_sinks_the_service():
    """Sinks of ours that were not told a service's name get it; a name given in code stays."""
    given = (Webhook("http://a"), Webhook("http://b", service="own"), Alertmanager("http://c"))
    sinks = sinks_from("http://d", None, given, service="ranking")

    assert [sink.service for sink in sinks] == ["ranking", "ranking", "own", "ranking"]


async def _coroutine(change):
    """Is never awaited by anybody."""


class _AsyncSink:
    """Would have to be awaited."""

    name = "async"

    async def send(self, changes):
        """Is never awaited by anybody."""


class _AsyncCall:
    """Likewise."""

    async def __call__(self, change):
        """Is never awaited by anybody."""


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://me:s3cret@host", "str"),
        (3, "int"),
        (Webhook, "Webhook"),
        (_coroutine, "_coroutine"),
        (_AsyncSink(), "_AsyncSink"),
        (_AsyncCall(), "_AsyncCall"),
    ],
)
def test_refuses_what_is_no_sink(given, shown):
    """What can be told nothing is an error that names it without showing what it holds."""
    with pytest.raises(ConfigError, match=f"an alert sink is {shown}; expected a function") as refusal:
        sinks_from(None, None, (given,))

    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("addresses", [("s3cret", None), (None, "s3cret")])
def test_refuses_addresses_it_cannot_use(addresses):
    """A wrong address is an error that does not show it."""
    with pytest.raises(ConfigError, match="expected an http") as refusal:
        sinks_from(*addresses)

    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize("refresh_s", [0, -1.0, float("nan"), "60"])
def test_refuses_to_tell_again_without_pause(listener, refresh_s):
    """A sink cannot have its thread run all the time."""
    with pytest.raises(ConfigError, match=r"refresh_s of the alert sink listener is .*; expected at least 1 second"):
        sinks_from(None, None, (listener(refresh_s=refresh_s),))


def test_tells_again_as_often_as_asked(listener):
    """Once a second or less is a sink's own choice."""
    assert len(sinks_from(None, None, (listener(refresh_s=1), listener(refresh_s=None)))) == 2
