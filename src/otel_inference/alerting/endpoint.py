"""One HTTP endpoint that takes JSON.

The standard library's client, although `requests` comes with the OTLP exporter: the library below
that writes the path and the query of every request to its log, where tokens must not be.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_inference.address import Address
from otel_inference.alerting.json_value import finite
from otel_inference.alerting.sink import DeliveryError
from otel_inference.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TIMEOUT_S: Final = 60.0
_WORTH_ANOTHER_TRY: Final = frozenset({408, 425, 429})
"""Beside all from 500 up: too late, too early, too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to send JSON to.

    Proxies are taken from the environment (`https_proxy`, `no_proxy`) as Python does. Redirects are
    not followed: they turn a POST into a GET, and may lead where a secret must not go.
    """

    address: Address
    timeout_s: float
    """How long to wait for a connection, and then for each piece of the answer's head."""
    headers: tuple[tuple[str, str], ...] = field(repr=False)

    @classmethod
    def of(cls, url: str, *, timeout_s: float, headers: Mapping[str, str] | None) -> Endpoint:
        """Check what a user gave.

        Raises:
            ConfigError: If the address, the time or a header cannot be used; it shows no secret.
        """
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not 0 < timeout_s <= MAX_TIMEOUT_S:
            msg = f"timeout_s is {timeout_s!r}; expected more than 0 and at most {MAX_TIMEOUT_S:.0f} seconds"
            raise ConfigError(msg)
        given = tuple((headers or {}).items())
        for name, value in given:
            if not _is_token(name) or not _is_line(value):
                msg = f"the header {name!r} cannot be sent; expected a name and one line of ASCII text"
                raise ConfigError(msg)
        return cls(address=Address.of(url), timeout_s=timeout_s, headers=given)

    def post(self, document: object) -> None:
        """Send one JSON document; instrumentations of HTTP clients make no span of it.

        Raises:
            DeliveryError: If the answer is not 2xx, or there is none.
        """
        with suppress_instrumentation():
            outcome = self._exchange(json.dumps(finite(document), allow_nan=False, default=str).encode())
        # Outside of any `except`, so that the error carries no other one, whose message may show the address.
        if isinstance(outcome, str):
            msg = f"{self.address.origin}: {outcome}"
            raise DeliveryError(msg)
        if not 200 <= outcome < 300:  # noqa: PLR2004 - the class of status codes that says it was taken
            msg = f"{self.address.origin}: status {outcome}"
            raise DeliveryError(msg, is_final=outcome < 500 and outcome not in _WORTH_ANOTHER_TRY)  # noqa: PLR2004

    def _exchange(self, body: bytes) -> int | str:
        """The status of the answer, or the class of what came in its place."""
        # Here and not above: it takes 10 ms to import, which no program without alerts is to wait for.
        from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request  # noqa: PLC0415

        headers = {"Content-Type": "application/json", "User-Agent": "otel-inference"}
        if self.address.authorization is not None:
            headers["Authorization"] = self.address.authorization
        opener = OpenerDirector()  # without what would follow redirects, or open files
        for handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler()):
            opener.add_handler(handler)
        try:
            request = Request(self.address.url, data=body, headers={**headers, **dict(self.headers)}, method="POST")  # noqa: S310 - is http or https
            with opener.open(request, timeout=self.timeout_s) as answer:
                return int(answer.status)
        except Exception as error:  # noqa: BLE001 - whatever it was, its message may show the address
            reason = getattr(error, "reason", None)
            return type(reason if isinstance(reason, Exception) else error).__name__


def _is_token(name: object) -> bool:
    """Whether it may be the name of a header: RFC 9110, 5.6.2, without its rarer characters."""
    return isinstance(name, str) and name.isascii() and name.replace("-", "").replace("_", "").isalnum()


def _is_line(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()
