"""Addresses, and what of them is shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference.address import Address
from otel_inference.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "origin", "url"),
    [
        ("http://host", "http://host", "http://host/"),
        ("HTTPS://Host:8443/a/b?c=d", "https://Host:8443", "https://Host:8443/a/b?c=d"),
        ("http://[::1]:9093/", "http://[::1]:9093", "http://[::1]:9093/"),
        ("http://host?key=s3cret", "http://host", "http://host/?key=s3cret"),
        ("https://me:s3cret@host/s3cret", "https://host", "https://host/s3cret"),
    ],
)
def test_reads_what_http_can_reach(text, origin, url):
    """The origin is all that is shown, and the address asked for has no user in it."""
    address = Address.of(text)

    assert (address.origin, address.url) == (origin, url)
    assert repr(address) == f"Address(origin={origin!r})"


def test_userinfo_becomes_basic_authorization():
    """User and password are sent as HTTP's basic scheme has it, unescaped (RFC 7617's example)."""
    assert Address.of("http://Aladdin:open%20sesame@host").authorization == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert Address.of("http://host").authorization is None


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("ftp://me:s3cret@host:21/s3cret", "'ftp://host:21'"),
        ("file:///etc/s3cret", "'file://...'"),
        ("me:s3cret@host", "something that does not begin with http:// or https://"),
        ("s3cret", "something that does not begin with http:// or https://"),
        ("", "something that does not begin with http:// or https://"),
        (None, "something that does not begin with http:// or https://"),
        ("http://", "'http://...'"),
        ("http:///s3cret", "'http://...'"),
        ("http://host:s3cret/", "'http://...'"),
        ("http://me:s3/cret@host/", "'http://...'"),
        ("https://s3/cret@host/", "'https://...'"),
        ("https://me:12#s3cret@host/", "'https://...'"),
        ("https://me:12?s3cret@host/", "'https://...'"),
        ("http://[s3cret/", "'http://...'"),
        ("http://host/s3cret\r\nHost: evil", "'http://...'"),
        ("http://host/s3cret é", "'http://...'"),
    ],
)
def test_refuses_what_it_cannot_send_to(text, given):
    """The message says what was given, as far as that is no secret, and what was expected; nothing hides behind it."""
    with pytest.raises(ConfigError, match=re.escape(f"is {given}; expected an http:// or https:// address")) as refusal:
        Address.of(text)

    assert "s3" not in str(refusal.value)
    assert "cret" not in str(refusal.value)
    assert refusal.value.__context__ is None


_SECRETS = st.text(st.sampled_from("sk-_.~!$&'()*+,;=:/?#[]@%é 0"), min_size=1)


@given(before=_SECRETS, after=_SECRETS)
@settings(max_examples=200, deadline=None)
def test_never_shows_what_may_be_a_secret(before, after):
    """Whatever stands before the host or after it: either the host alone is shown, or nothing but the scheme."""
    try:
        shown = Address.of(f"https://{before}@host.example/{after}").origin
    except ConfigError as refusal:
        shown = re.search(r"'(https://.*?)'", str(refusal))[1]

    assert shown in {"https://host.example", "https://..."}
