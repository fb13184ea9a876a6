"""Addresses that alerts go to. All but scheme, host and port of one is taken for a secret."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from otel_inference.errors import ConfigError

EXPECTED: Final = "an http:// or https:// address, such as https://alerts.example.com/hook"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to send to; what must not be shown is not in its `repr`."""

    origin: str
    """Scheme, host and port: all that may be logged or shown."""
    path: str = field(repr=False)
    query: str = field(repr=False)
    authorization: str | None = field(repr=False)
    """The header that `user:password@` stands for, by HTTP's basic scheme (RFC 7617)."""

    @classmethod
    def of(cls, text: str) -> Address:
        """Read an address.

        >>> Address.of("https://me:secret@example.com:8443/hook/secret?key=secret")
        Address(origin='https://example.com:8443')

        Raises:
            ConfigError: If it is not of HTTP or cannot be understood. The message shows its scheme, and
                its host only where that is surely one.
        """
        parts = _parts(text)
        userinfo, _, place = parts.netloc.rpartition("@")
        origin = f"{parts.scheme}://{place}"
        if parts.scheme not in {"http", "https"}:
            raise _unusable(repr(origin))
        return cls(
            origin=origin,
            path=parts.path,
            query=f"?{parts.query}" if parts.query else "",
            authorization=_basic(userinfo) if userinfo else None,
        )

    @property
    def url(self) -> str:
        """What is asked of the server, without user and password."""
        return f"{self.origin}{self.path or '/'}{self.query}"


def _parts(text: str) -> SplitResult:
    """The parts of an address whose host can be told from its secrets."""
    scheme = _SCHEME.match(text) if isinstance(text, str) else None
    if scheme is None:
        no_scheme = "something that does not begin with http:// or https://"
        raise _unusable(no_scheme)
    shown = repr(f"{scheme.group()}...")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _unusable(shown, " of ASCII characters without spaces; write others as %20 and the like")
    parts = _split(text)
    # An unescaped / ? or # in a password ends the host: what is then taken for the host is a part of the password.
    if parts is not None and ("@" in parts.path + parts.query or "#" in text):
        raise _unusable(shown, "; within user, password, path and query, write @ / ? # as %40 %2F %3F %23")
    if parts is None or not parts.hostname:
        raise _unusable(shown)
    return parts


def _split(text: str) -> SplitResult | None:
    """The parts of an address; `None` if they make no sense. Python's own message would show them."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # refuses what is no number
    except ValueError:
        return None
    return parts


def _unusable(given: str, remedy: str = "") -> ConfigError:
    return ConfigError(f"an alert address is {given}; expected {EXPECTED}{remedy}")


def _basic(userinfo: str) -> str:
    user, _, password = userinfo.partition(":")
    credentials = f"{unquote(user)}:{unquote(password)}"
    return "Basic " + base64.b64encode(credentials.encode()).decode()
