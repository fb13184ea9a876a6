"""Findings as alerts of Prometheus Alertmanager, by version 2 of its API.

Alertmanager takes an alert for resolved once its `endsAt` has passed. An open finding is therefore
sent with an end in five minutes, and sent again every minute: if this process dies, its alerts go.
See https://prometheus.io/docs/alerting/latest/clients/.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from otel_inference.alerting.endpoint import Endpoint
from otel_inference.alerting.json_value import rfc3339
from otel_inference.alerting.service import Service, instance, service_name
from otel_inference.finding import FindingEvent, FindingKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_inference.finding import Finding, FindingChange, Severity

HOLD_S: Final = 300.0
"""How long an alert stays open without being sent again: Alertmanager's own default `resolve_timeout`."""
_PATH: Final = "/api/v2/alerts"

_DESCRIPTIONS: Final = {
    FindingKind.SLO_BURN: "The error budget of an objective is being used up too fast.",
    FindingKind.LATENCY_SHIFT: "Calls take longer than they did, for inputs of the same size.",
    FindingKind.ERROR_BURST: "Calls fail more often than they did.",
    FindingKind.THROUGHPUT_DROP: "Far fewer calls end than did.",
    FindingKind.SATURATION: "A resource is used up.",
    FindingKind.BOTTLENECK: "Calls spend most of their time on one thing.",
    FindingKind.INPUT_SHIFT: "Inputs grew or their mix changed; the system did not slow.",
    FindingKind.STALL: "A call has been running for far too long.",
    FindingKind.MEMORY_GROWTH: "The memory of the process grows steadily towards its limit.",
}


@dataclass(frozen=True, slots=True, repr=False)
class Alertmanager:
    """Keeps an alert open for as long as a finding is, and resolves it when the finding closes.

    Raises:
        ConfigError: If an argument cannot be used.
    """

    name: ClassVar[str] = "alertmanager"
    refresh_s: ClassVar[float] = 60.0
    url: str
    """Where it listens, such as `http://alertmanager:9093`, with its path prefix if it has one."""
    _: KW_ONLY
    timeout_s: float = 5.0
    """How long to wait for a connection, and then for the answer; at most 60."""
    headers: Mapping[str, str] | None = field(default=None, hash=False)
    """Sent along, such as `{"Authorization": "Bearer ..."}`."""
    service: Service = None
    """The service's name; default: `service.name` of the OpenTelemetry resource, where there is one."""
    _endpoint: Endpoint = field(init=False, compare=False)
    _shown: dict[str, Severity] = field(init=False, compare=False)
    """How severe each finding was when last sent: severity is a label, and other labels are another alert."""

    def __post_init__(self) -> None:
        """Refuse what cannot be sent to."""
        endpoint = Endpoint.of(self.url, timeout_s=self.timeout_s, headers=self.headers)
        address = endpoint.address
        address = replace(address, path=address.path.rstrip("/").removesuffix(_PATH) + _PATH)
        object.__setattr__(self, "_endpoint", replace(endpoint, address=address))
        object.__setattr__(self, "_shown", {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.address.origin!r})"

    def send(self, changes: Sequence[FindingChange]) -> None:
        """Post all changes at once.

        Raises:
            DeliveryError: If they were not taken.
        """
        service = service_name(self.service)
        now = datetime.now(UTC)
        alerts: list[dict[str, Any]] = []
        for change in changes:
            finding = change.finding
            before = self._shown.get(finding.key, finding.severity)
            if before is not finding.severity:
                alerts.append(alert(replace(finding, severity=before), service, ends=now))
            is_closed = change.event is FindingEvent.CLOSED
            # An end counted from the change might have passed, when it is sent late.
            alerts.append(alert(finding, service, ends=change.at if is_closed else now + timedelta(seconds=HOLD_S)))
        self._endpoint.post(alerts)
        for change in changes:
            if change.event is FindingEvent.CLOSED:
                self._shown.pop(change.finding.key, None)
            else:
                self._shown[change.finding.key] = change.finding.severity


def alert(finding: Finding, service: str | None, *, ends: datetime) -> dict[str, Any]:
    """An alert that is open until `ends`."""
    return {
        "labels": _filled(
            alertname="Inference" + finding.kind.value.title().replace("_", ""),
            severity=finding.severity.value,
            kind=finding.kind.value,
            model=finding.model,
            subject=finding.subject,
            service=service,
            # Each process judges for itself: without this, one worker would resolve what is open in another.
            instance=instance(),
        ),
        "annotations": _filled(
            summary=_summary(finding),
            description=_DESCRIPTIONS[finding.kind],
            advice=finding.advice,
            evidence=", ".join(f"{name} {_number(value)}" for name, value in finding.evidence.items()),
            explained_by=finding.explained_by,
            trace_id=finding.trace_id,
        ),
        "startsAt": rfc3339(finding.since),
        "endsAt": rfc3339(max(ends, finding.since)),
    }


def _filled(**texts: str | None) -> dict[str, str]:
    """Those that are not empty, which to Alertmanager is the same as absent."""
    return {name: text for name, text in texts.items() if text}


def _summary(finding: Finding) -> str:
    """One line for a list: what, and where.

    Its words are those of the API, so that what is read can be searched for.
    """
    subject = f" ({finding.subject})" if finding.subject else ""
    return f"{finding.kind.value.replace('_', ' ')}{subject}: {finding.model or 'the whole process'}"


def _number(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
