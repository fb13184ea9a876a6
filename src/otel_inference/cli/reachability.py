"""Whether what the SDK would export arrives: the exporters themselves are asked, with an empty request.

Where that fails, what listens there is looked at, since the exporters do not say.
"""

from __future__ import annotations

import importlib.metadata
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry.sdk.metrics.export import MetricsData

from otel_inference.cli import exporters
from otel_inference.cli.check import Result, Verdict, heard, is_true, left_to_file
from otel_inference.cli.listener import HTTP, listener

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SIGNALS: Final = ("traces", "metrics", "logs")
SKEW_WARNING_S: Final = 5.0
"""The header has whole seconds, and the way there takes some of one."""
SKEW_FAILURE_S: Final = 60.0
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_CERTIFICATE: Final = "OTEL_EXPORTER_OTLP_CERTIFICATE"
_STRONGER_CERTIFICATES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where one of these is set the exporter over HTTP passes over the variable above: so does its library."""
_UNSPECIFIC: Final = "max retries or shutdown"
"""What the exporter over HTTP says last, whatever the reason."""
_CODE: Final = r"\bcode: (?:StatusCode\.)?"
"""How both exporters begin to say the status; the same digits may stand in the port, which they say too."""
_CREDENTIALS: Final = re.compile(_CODE + r"(?:401|403|UNAUTHENTICATED|PERMISSION_DENIED)\b")
_UNKNOWN_THERE: Final = re.compile(_CODE + r"(?:404|UNIMPLEMENTED)\b")
_MAX_TEXT: Final = 200
_LOOK_S: Final = 2.0
"""How long at most to wait for each answer once an export has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How one signal leaves the process."""

    signal: str
    protocol: str
    exporter: Any
    host: str
    port: int
    url: str
    variable: str
    """The environment variable that says where to."""
    wants_tls: bool

    @property
    def place(self) -> str:
        """Host and port: what may be shown."""
        return f"{self.host}:{self.port}"


def of_endpoints(environ: Mapping[str, str], timeout_s: float) -> list[Result]:
    """Check each signal's endpoint, and the clock of those that speak HTTP.

    Args:
        environ: The variables of the server to be; the exporters read those of this process.
        timeout_s: How long to wait for each connection and each answer.
    """
    results: list[Result] = []
    clocks: dict[str, str] = {}
    for way in (way for signal in SIGNALS for way in _ways(signal, environ, timeout_s)):
        if isinstance(way, Result):
            results.append(way)
            continue
        result = _delivered(way, environ, timeout_s)
        results.append(result)
        if way.protocol == HTTP and result.verdict is Verdict.OK:
            clocks.setdefault(way.place, way.url)
    return [*results, *_clocks(clocks.values(), environ.get(_CERTIFICATE), timeout_s)]


def clock(date: str | None, now: datetime, place: str) -> Result:
    """Compare this machine's clock with an HTTP `Date` header (RFC 9110, 6.6.1)."""
    try:
        there = parsedate_to_datetime(date or "")
    except ValueError:
        found = f"{place} does not say what time it is"
        return Result(subject="clock", verdict=Verdict.SKIPPED, found=found)
    ahead_s = (now - there.astimezone(UTC)).total_seconds()
    found = f"this machine is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} {place}"
    if abs(ahead_s) < SKEW_WARNING_S:
        return Result(subject="clock", verdict=Verdict.OK, found=f"agrees with {place}")
    verdict = Verdict.FAILED if abs(ahead_s) >= SKEW_FAILURE_S else Verdict.WARNING
    remedy = "Synchronise both by NTP: spans of one trace would lie apart, and samples be refused as too old or in the future."
    return Result(subject="clock", verdict=verdict, found=found, remedy=remedy)


def _ways(signal: str, environ: Mapping[str, str], timeout_s: float) -> list[Way | Result]:
    """One for each exporter of a signal, or what there is to say in place of it."""
    by_file = left_to_file(signal, environ)
    if by_file is not None:
        return [by_file]
    names = exporters.chosen(signal, environ)
    if not names:
        return [Result(subject=signal, verdict=Verdict.SKIPPED, found="not exported")]
    return [_way(signal, name, environ, timeout_s) for name in names]


def _way(signal: str, name: str, environ: Mapping[str, str], timeout_s: float) -> Way | Result:
    protocol = exporters.protocol_of(signal, name, environ)
    refused = exporters.refused(signal, name, protocol)
    if refused is not None:
        return refused
    if protocol is None:
        found = f"exported by {name}, which is not looked at"
        return Result(subject=signal, verdict=Verdict.SKIPPED, found=found)
    try:
        return _made_way(signal, protocol, environ, timeout_s)
    except Exception as error:  # noqa: BLE001 - whatever a wrong variable does to an exporter
        remedy = "Look at the variables OTEL_EXPORTER_OTLP_*."
        return Result(subject=signal, verdict=Verdict.FAILED, found=f"no exporter can be made: {error}", remedy=remedy)


def _made_way(signal: str, protocol: str, environ: Mapping[str, str], timeout_s: float) -> Way | Result:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    variable = own if environ.get(own) else _ENDPOINT
    scheme = urlsplit(environ.get(variable) or "http://").scheme
    if protocol == HTTP and scheme not in {"http", "https"}:
        found = f"{variable} does not say http:// or https://, so nothing is sent by {protocol}"
        return Result(subject=signal, verdict=Verdict.FAILED, found=found, remedy=f"Write http:// first in {variable}.")
    name = exporters.NAMES[protocol]
    point, *_ = importlib.metadata.entry_points(group=f"opentelemetry_{signal}_exporter", name=name)
    exporter = point.load()(timeout=timeout_s)
    url = exporter._endpoint
    parts = urlsplit(url if "://" in url else f"//{url}")
    return Way(
        signal=signal,
        protocol=protocol,
        exporter=exporter,
        host=parts.hostname or "",
        port=parts.port or (443 if parts.scheme == "https" else 80),
        url=url,
        variable=variable,
        # The exporter over gRPC takes an address without a scheme for one that wants TLS, unless told otherwise.
        wants_tls=scheme != "http" and not (scheme != "https" and is_true(environ.get("OTEL_EXPORTER_OTLP_INSECURE"))),
    )


def _delivered(way: Way, environ: Mapping[str, str], timeout_s: float) -> Result:
    failure = _unreachable(way, timeout_s)
    if failure is not None:
        return failure
    with heard("opentelemetry") as said:
        outcome = _export(way)
    if outcome == "SUCCESS":
        return Result(subject=way.signal, verdict=Verdict.OK, found=f"{way.place} takes them, by {way.protocol}")
    telling = [text for text in said if _UNSPECIFIC not in text] or said
    reason = " ".join(telling[-1].split())[:_MAX_TEXT] if telling else outcome
    found, remedy = _refused(way, reason, environ) or _misunderstood(way, reason, environ, timeout_s)
    return Result(subject=way.signal, verdict=Verdict.FAILED, found=f"{way.place} {found}", remedy=remedy)


def _unreachable(way: Way, timeout_s: float) -> Result | None:
    """Why no connection comes about, or `None` if one does."""
    try:
        with socket.create_connection((way.host, way.port), timeout=timeout_s):
            return None
    except socket.gaierror as error:
        found = f"the name {way.host} is not known here ({error.strerror})"
        remedy = (
            f"Correct {way.variable}, or run this where the server runs: names of containers are known among them only."
        )
    except OSError as error:
        found = f"nobody answers at {way.place} ({error.strerror or error})"
        remedy = f"Start a Collector there (collector-config/README.md), or set {way.variable}."
    return Result(subject=way.signal, verdict=Verdict.FAILED, found=found, remedy=remedy)


def _export(way: Way) -> str:
    """The name of what the exporter says became of an empty request."""
    try:
        outcome = way.exporter.export(MetricsData(resource_metrics=[]) if way.signal == "metrics" else [])
        return str(outcome.name)
    except Exception as error:  # noqa: BLE001 - an exporter that raises has not delivered
        return f"{type(error).__name__}: {error}"
    finally:
        way.exporter.shutdown()


def _refused(way: Way, reason: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """What was found and what to do where it understood the request and refused it."""
    found = f"is there and does not take them: {reason}"
    if _CREDENTIALS.search(reason):
        has = "is set" if environ.get("OTEL_EXPORTER_OTLP_HEADERS") else "is not set"
        return found, f"It asks who you are: OTEL_EXPORTER_OTLP_HEADERS {has}."
    if _UNKNOWN_THERE.search(reason):
        where = f"set OTEL_{way.signal.upper()}_EXPORTER=none, or send them elsewhere"
        return found, f"It does not take {way.signal}: {where}."
    return None


def _misunderstood(way: Way, reason: str, environ: Mapping[str, str], timeout_s: float) -> tuple[str, str]:
    """What was found and what to do where the two may not speak the same."""
    stronger = next((name for name in _STRONGER_CERTIFICATES if way.protocol == HTTP and environ.get(name)), None)
    there = listener(
        way.host, way.port, min(timeout_s, _LOOK_S), certificates=environ.get(stronger or _CERTIFICATE) or None
    )
    if way.wants_tls and not there.speaks_tls:
        return "does not speak TLS, which its address asks for", f"Write http://{way.place} in {way.variable}."
    if there.speaks_tls and not way.wants_tls:
        return "speaks TLS only, and its address does not", f"Write https://{way.place} in {way.variable}."
    if there.distrust is not None:
        found = f"shows a certificate that is not trusted: {there.distrust}"
        if "mismatch" in there.distrust:  # of its names, by OpenSSL's words
            return found, f"Write a name in {way.variable} that the certificate has."
        remedy = f"Set {_CERTIFICATE} to the file of the authority that signed it."
        return found, f"{remedy} Unset {stronger}, which goes before it." if stronger else remedy
    if there.protocols and way.protocol not in there.protocols:
        (spoken,) = there.protocols
        return f"does not speak {way.protocol}", f"It speaks {spoken}: set OTEL_EXPORTER_OTLP_PROTOCOL={spoken}."
    if not there.protocols:
        return f"is there and answers neither HTTP nor gRPC: {reason}", "Is it an OTLP endpoint, and does it hang?"
    return f"is there and does not take them: {reason}", "Look at the log of what listens there."


def _clocks(urls: Iterable[str], certificates: str | None, timeout_s: float) -> list[Result]:
    results = [
        clock(_date(url, certificates, timeout_s), datetime.now(UTC), urlsplit(url).netloc.rpartition("@")[2])
        for url in urls
    ]
    found = "only an endpoint that takes OTLP over HTTP says what time it is"
    return results or [Result(subject="clock", verdict=Verdict.SKIPPED, found=found)]


def _date(url: str, certificates: str | None, timeout_s: float) -> str | None:
    """The `Date` of any answer, also of a refusal."""
    from requests import RequestException, Session  # noqa: PLC0415 - comes with the OTLP exporter over HTTP

    try:
        with Session() as session:
            return session.head(url, timeout=timeout_s, allow_redirects=False, verify=certificates or True).headers.get(
                "Date"
            )
    except RequestException:
        return None
