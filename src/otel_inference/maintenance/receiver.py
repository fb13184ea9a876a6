"""Alerts over a whole fleet as findings: an HTTP endpoint that Prometheus Alertmanager notifies.

What one process sees may be well where the fleet is not. Rules over all processes are evaluated by
Prometheus, and Alertmanager tells a receiver of those that fire (its webhook, version 4 of the JSON:
https://prometheus.io/docs/alerting/latest/configuration/#webhook_config). An alert that carries
`scope: fleet` and a finding's `kind` as labels becomes a `Finding`, which sets maintenance off as one of the
process's own does; others are passed over, those that processes send themselves among them.

The endpoint (`maintenance.endpoint`) listens on the loopback address unless told otherwise, on threads of its own,
and takes nothing without its token.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from otel_inference import guard
from otel_inference.errors import ConfigError
from otel_inference.finding import Finding, FindingKind, Severity
from otel_inference.maintenance.endpoint import PATH, THREAD_NAME, Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOLD_S: Final = 1800.0
"""How long a finding stays open without being heard of again; longer than Alertmanager's `repeat_interval`."""
MAX_OPEN: Final = 1000
MIN_TOKEN_LENGTH: Final = 16

_TURN_S: Final = 2.0
"""How long a notification waits for the one before it; Alertmanager sends again what was not taken."""
_FLEET: Final = "fleet"
_MAX_TEXT: Final = 500
_ORDER: Final = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One alert of a notification, as far as it concerns maintenance."""

    fingerprint: str
    """What makes it the same alert when it is told of again."""
    finding: Finding | None
    """`None` when it is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    finding: Finding
    at_s: float


class Receiver:
    """Takes Alertmanager's notifications and says what is open over the fleet.

    Args:
        notice: Told of all findings that are open, whenever that changes; on a thread of the receiver's, one at a time.
        token: What a notification has to show as `Authorization: Bearer <token>`, at least 16 characters.
        host: Address to listen on; default: the loopback address.
        port: Port to listen on; 0 for one that is free.
        hold_s: Seconds after which an alert that was neither repeated nor resolved is taken for over.
        clock: Monotonic seconds.

    Raises:
        ConfigError: If the token is too short to keep anybody out, or a number means nothing.
    """

    def __init__(
        self,
        notice: Callable[[tuple[Finding, ...]], object],
        *,
        token: str,
        host: str = "127.0.0.1",
        port: int = 9095,
        hold_s: float = HOLD_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if not isinstance(token, str) or len(token) < MIN_TOKEN_LENGTH or not token.isascii():
            msg = f"the receiver's token is too short or not ASCII; expected at least {MIN_TOKEN_LENGTH} random characters"
            raise ConfigError(msg)
        if not hold_s > 0:
            msg = f"hold_s is {hold_s!r}; expected a number of seconds above 0"
            raise ConfigError(msg)
        self._notice = notice
        self._token = token.encode()
        self._place = (host, port)
        self._hold_s = hold_s
        self._clock = clock
        # Replaced as a whole, under the lock, and read by any thread without it.
        self._heard: Mapping[str, _Heard] = {}
        self._lock = Lock()
        self._server: Endpoint | None = None
        self._thread: Thread | None = None

    @property
    def url(self) -> str | None:
        """Where Alertmanager is to post to; `None` while nothing listens."""
        if self._server is None:
            return None
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}{PATH}"

    def start(self) -> None:
        """Listen, until `stop`. Idempotent.

        Raises:
            ConfigError: If the address cannot be listened on.
        """
        if self._server is not None:
            return
        try:
            self._server = Endpoint(self._place, allows=self.allows, take=self.take)
        except OSError as error:
            msg = f"the receiver cannot listen on {self._place[0]}:{self._place[1]} ({error.strerror}); choose another port"
            raise ConfigError(msg) from error
        _listening.append(self)
        self._thread = Thread(target=self._serve, args=(self._server,), name=THREAD_NAME, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Listen no longer, and forget what was open. Idempotent."""
        server, thread, self._server, self._thread = self._server, self._thread, None, None
        self._heard = {}
        if self in _listening:
            _listening.remove(self)
        if server is not None and thread is not None:
            if thread is not current_thread():
                thread.join(timeout_s)
            server.server_close()

    def findings(self) -> tuple[Finding, ...]:
        """What is open over the fleet now, the worst of each key."""
        since_s = self._clock() - self._hold_s
        worst: dict[str, Finding] = {}
        for heard in self._heard.values():
            finding = heard.finding
            known = worst.get(finding.key)
            is_worse = known is None or _ORDER.index(finding.severity) > _ORDER.index(known.severity)
            if heard.at_s >= since_s and is_worse:
                worst[finding.key] = finding
        return tuple(worst.values())

    def take(self, document: Any) -> int:
        """Take in one notification.

        Returns:
            How many of its alerts concern maintenance.

        Raises:
            ValueError: If it is not a notification of Alertmanager's.
            TimeoutError: If what is told of an earlier one does not come back; nothing is taken then.
        """
        notices = list(notices_in(document))
        with self._turn():
            before, heard, now_s = self.findings(), dict(self._heard), self._clock()
            for notice in notices:
                if notice.finding is None:
                    heard.pop(notice.fingerprint, None)
                elif notice.fingerprint in heard or len(heard) < MAX_OPEN:
                    heard[notice.fingerprint] = _Heard(finding=notice.finding, at_s=now_s)
                else:
                    guard.dropped("receiver")
            self._replace(heard, before)
        return len(notices)

    def forget_unrepeated(self) -> None:
        """Take those for over that have not been heard of for too long; the receiver's thread does so by itself."""
        since_s = self._clock() - self._hold_s
        late = [fingerprint for fingerprint, heard in self._heard.items() if heard.at_s < since_s]
        # Whoever holds the lock may be a callback that hangs, and this thread is wanted for other requests.
        if late and self._lock.acquire(blocking=False):
            try:
                before = tuple(heard.finding for heard in self._heard.values())
                self._replace({key: heard for key, heard in self._heard.items() if key not in late}, before)
            finally:
                self._lock.release()

    def allows(self, authorization: str | None) -> bool:
        """Whether a request may be taken, compared in constant time."""
        given = (authorization or "").encode("utf-8", "replace")
        return hmac.compare_digest(given, b"Bearer " + self._token)

    def reset_after_fork(self) -> None:
        """Close the child's copy of the socket: the parent listens, and goes on to."""
        server, self._server, self._thread = self._server, None, None
        self._heard, self._lock = {}, Lock()
        if self in _listening:
            _listening.remove(self)
        if server is not None:
            server.socket.close()

    def _serve(self, server: Endpoint) -> None:
        # Not `serve_forever`: what stops that waits without an end for a callback that hangs.
        while self._server is server:
            with guard.guarded("receiver"):
                server.handle_request()
                server.end_late()
                self.forget_unrepeated()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Of the notifications one at a time; not waited for without an end, for then each would keep its thread."""
        lock = self._lock
        if not lock.acquire(timeout=_TURN_S):
            msg = "an earlier notification is still being dealt with"
            raise TimeoutError(msg)
        try:
            yield
        finally:
            lock.release()

    def _replace(self, heard: Mapping[str, _Heard], before: tuple[Finding, ...]) -> None:
        self._heard = heard
        now = self.findings()
        if now != before:
            with guard.guarded("receiver"):
                self._notice(now)


_listening: list[Receiver] = []


def with_fleet(local: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """What is open in this process, and what the receivers that listen know to be open over the fleet.

    Args:
        local: The process's own findings; one of the same key goes before the fleet's.
    """
    known = {finding.key for finding in local}
    fleet = {finding.key: finding for receiver in tuple(_listening) for finding in receiver.findings()}
    return (*local, *(finding for key, finding in fleet.items() if key not in known))


def reset_after_fork() -> None:
    """Have no receiver in a forked child: the parent's go on to listen."""
    for receiver in tuple(_listening):
        receiver.reset_after_fork()


os.register_at_fork(after_in_child=reset_after_fork)


def notices_in(document: Any) -> Iterator[Notice]:
    """What of a notification concerns maintenance.

    Args:
        document: The JSON that Alertmanager posts.

    Raises:
        ValueError: If it is not that.

    >>> labels = {"alertname": "Burning", "scope": "fleet", "kind": "slo_burn", "inference_model": "ranker"}
    >>> alert = {"fingerprint": "1", "status": "firing", "labels": labels, "startsAt": "2026-08-01T12:00:00Z"}
    >>> [notice.finding.key for notice in notices_in({"alerts": [alert]})]
    ['slo_burn::ranker']
    """
    alerts = document.get("alerts") if isinstance(document, Mapping) else None
    if not isinstance(alerts, list) or not all(isinstance(alert, Mapping) for alert in alerts):
        msg = "expected a notification of Alertmanager's webhook, with a list of alerts"
        raise ValueError(msg)
    for alert in alerts:
        labels = _texts(alert.get("labels"))
        if labels.get("scope") != _FLEET or labels.get("kind") not in set(FindingKind):
            continue
        fingerprint = alert.get("fingerprint")
        yield Notice(
            fingerprint=fingerprint if isinstance(fingerprint, str) else json.dumps(sorted(labels.items())),
            finding=None if alert.get("status") == "resolved" else _finding(alert, labels),
        )


def _finding(alert: Mapping[str, Any], labels: Mapping[str, str]) -> Finding:
    annotations = _texts(alert.get("annotations"))
    severity = labels.get("severity", "")
    evidence = {
        "scope": _FLEET,
        "alert": labels.get("alertname", ""),
        "service": labels.get("job") or labels.get("service", ""),
        "summary": annotations.get("summary", ""),
    }
    return Finding(
        kind=FindingKind(labels["kind"]),
        severity=Severity(severity) if severity in set(Severity) else Severity.WARNING,
        model=labels.get("inference_model") or labels.get("model") or None,
        since=_time(alert.get("startsAt")),
        evidence={name: text for name, text in evidence.items() if text},
        advice=annotations.get("advice") or annotations.get("description") or "Look at the alert in Alertmanager.",
        subject=labels.get("subject") or None,
    )


def _texts(mapping: Any) -> dict[str, str]:
    """Labels or annotations, each cut to a length that a span or a journal can hold, of what they can write."""
    if not isinstance(mapping, Mapping):
        return {}
    return {str(name): _writable(text[:_MAX_TEXT]) for name, text in mapping.items() if isinstance(text, str)}


def _writable(text: str) -> str:
    r"""The text without half characters, which JSON can say and no file and no exporter can.

    >>> _writable("\ud800x")
    '?x'
    """
    return text.encode("utf-8", "replace").decode()


def _time(text: Any) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return datetime.now(UTC)
    return time.astimezone(UTC) if time.tzinfo is not None else time.replace(tzinfo=UTC)
