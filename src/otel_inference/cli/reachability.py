"""Whether what the SDK would export arrives: the exporters themselves are asked, with an empty request."""

from __future__ import annotations

import importlib.metadata
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry.sdk.metrics.export import MetricsData

from otel_inference.cli.check import Result, Verdict, heard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SIGNALS: Final = ("traces", "metrics", "logs")
SKEW_WARNING_S: Final = 5.0
"""The header has whole seconds, and the way there takes some of one."""
SKEW_FAILURE_S: Final = 60.0
_PROTOCOLS: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_USUAL_PORTS: Final = {4317: "grpc", 4318: "http/protobuf"}
_MAX_TEXT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How one signal leaves the process."""

    signal: str
    protocol: str
    exporter: Any
    host: str
    port: int
    url: str

    @property
    def place(self) -> str:
        """Scheme, host and port: what may be shown."""
        return f"{self.host}:{self.port}"


def of_endpoints(environ: Mapping[str, str], timeout_s: float) -> list[Result]:
    """Check each signal's endpoint, and the clock of those that speak HTTP.

    Args:
        environ: The variables of the server to be; the exporters read those of this process.
        timeout_s: How long to wait for each connection and each answer.
    """
    results: list[Result] = []
    clocks: dict[str, str] = {}
    for signal in SIGNALS:
        way = _way(signal, environ, timeout_s)
        if isinstance(way, Result):
            results.append(way)
            continue
        result = _delivered(way, environ, timeout_s)
        results.append(result)
        if way.protocol == "http/protobuf" and result.verdict is Verdict.OK:
            clocks.setdefault(way.place, way.url)
    return [*results, *_clocks(clocks.values(), timeout_s)]


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


def _way(signal: str, environ: Mapping[str, str], timeout_s: float) -> Way | Result:
    chosen = environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip() or "otlp"
    general = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", general).strip()
    if chosen != "otlp":
        found = "not exported" if chosen == "none" else f"exported by {chosen}, which is not looked at"
        return Result(subject=signal, verdict=Verdict.SKIPPED, found=found)
    if protocol not in _PROTOCOLS:
        found = f"the protocol {protocol} is not one that the SDK for Python has"
        remedy = f"Set OTEL_EXPORTER_OTLP_PROTOCOL to {' or '.join(_PROTOCOLS)}."
        return Result(subject=signal, verdict=Verdict.FAILED, found=found, remedy=remedy)
    try:
        (point,) = importlib.metadata.entry_points(group=f"opentelemetry_{signal}_exporter", name=_PROTOCOLS[protocol])
        exporter = point.load()(timeout=timeout_s)
        url = exporter._endpoint
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except Exception as error:  # noqa: BLE001 - whatever a wrong variable does to an exporter
        remedy = "Look at the variables OTEL_EXPORTER_OTLP_*."
        return Result(subject=signal, verdict=Verdict.FAILED, found=f"no exporter can be made: {error}", remedy=remedy)
    return Way(signal=signal, protocol=protocol, exporter=exporter, host=parts.hostname or "", port=port, url=url)


def _delivered(way: Way, environ: Mapping[str, str], timeout_s: float) -> Result:
    try:
        with socket.create_connection((way.host, way.port), timeout=timeout_s):
            pass
    except OSError as error:
        return Result(
            subject=way.signal,
            verdict=Verdict.FAILED,
            found=f"nobody answers at {way.place} ({error.strerror or error})",
            remedy="Start a Collector there (collector-config/README.md), or set OTEL_EXPORTER_OTLP_ENDPOINT.",
        )
    with heard("opentelemetry") as said:
        outcome = _export(way)
    if outcome == "SUCCESS":
        return Result(subject=way.signal, verdict=Verdict.OK, found=f"{way.place} takes them, by {way.protocol}")
    reason = " ".join(said[-1].split())[:_MAX_TEXT] if said else outcome
    return Result(
        subject=way.signal,
        verdict=Verdict.FAILED,
        found=f"{way.place} is there and does not take them: {reason}",
        remedy=_remedy(way, reason, environ),
    )


def _export(way: Way) -> str:
    """The name of what the exporter says became of an empty request."""
    try:
        outcome = way.exporter.export(MetricsData(resource_metrics=[]) if way.signal == "metrics" else [])
        return str(outcome.name)
    except Exception as error:  # noqa: BLE001 - an exporter that raises has not delivered
        return f"{type(error).__name__}: {error}"
    finally:
        way.exporter.shutdown()


def _remedy(way: Way, reason: str, environ: Mapping[str, str]) -> str:
    usual = _USUAL_PORTS.get(way.port, way.protocol)
    if usual != way.protocol:
        return f"Port {way.port} usually takes {usual}: set OTEL_EXPORTER_OTLP_PROTOCOL={usual}, or the other port."
    if any(sign in reason for sign in ("401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED")):
        has = "is set" if environ.get("OTEL_EXPORTER_OTLP_HEADERS") else "is not set"
        return f"It asks who you are: OTEL_EXPORTER_OTLP_HEADERS {has}."
    if "404" in reason or "UNIMPLEMENTED" in reason:
        return f"It does not take {way.signal}: set OTEL_{way.signal.upper()}_EXPORTER=none, or send them elsewhere."
    return "Look at the log of what listens there."


def _clocks(urls: Iterable[str], timeout_s: float) -> list[Result]:
    results = [clock(_date(url, timeout_s), datetime.now(UTC), urlsplit(url).netloc.rpartition("@")[2]) for url in urls]
    found = "only an endpoint that takes OTLP over HTTP says what time it is"
    return results or [Result(subject="clock", verdict=Verdict.SKIPPED, found=found)]


def _date(url: str, timeout_s: float) -> str | None:
    """The `Date` of any answer, also of a refusal."""
    from requests import RequestException, Session  # noqa: PLC0415 - comes with the OTLP exporter over HTTP

    try:
        with Session() as session:
            return session.head(url, timeout=timeout_s, allow_redirects=False).headers.get("Date")
    except RequestException:
        return None
