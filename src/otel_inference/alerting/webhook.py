"""Findings as JSON documents, posted to an address."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from otel_inference.alerting.endpoint import Endpoint
from otel_inference.alerting.json_value import rfc3339
from otel_inference.alerting.service import Service, instance, service_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_inference.finding import FindingChange

VERSION: Final = 1
"""Raised when a field changes its meaning or goes; new fields may come without."""


@dataclass(frozen=True, slots=True, repr=False)
class Webhook:
    """Posts every opening and closing of a finding as one JSON document; `docs/alerts.md` lists its fields.

    Raises:
        ConfigError: If an argument cannot be used.
    """

    name: ClassVar[str] = "webhook"
    url: str
    """Where to; `http` or `https`. `user:password@` is sent as basic authorization."""
    _: KW_ONLY
    timeout_s: float = 5.0
    """How long to wait for a connection, and then for the answer; at most 60."""
    headers: Mapping[str, str] | None = field(default=None, hash=False)
    """Sent along, such as `{"Authorization": "Bearer ..."}`."""
    service: Service = None
    """The service's name; default: `service.name` of the OpenTelemetry resource, where there is one."""
    _endpoint: Endpoint = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be sent to."""
        endpoint = Endpoint.of(self.url, timeout_s=self.timeout_s, headers=self.headers)
        object.__setattr__(self, "_endpoint", endpoint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._endpoint.address.origin!r})"

    def send(self, changes: Sequence[FindingChange]) -> None:
        """Post one document a change.

        Raises:
            DeliveryError: If one was not taken.
        """
        for change in changes:
            self._endpoint.post(document(change, service_name(self.service)))


def document(change: FindingChange, service: str | None) -> dict[str, Any]:
    """What a webhook receives of a change."""
    finding = change.finding
    return {
        "version": VERSION,
        "event": change.event.value,
        "key": finding.key,
        "kind": finding.kind.value,
        "severity": finding.severity.value,
        "service": service,
        "instance": instance(),
        "model": finding.model,
        "subject": finding.subject,
        "since": rfc3339(finding.since),
        "at": rfc3339(change.at),
        "evidence": dict(finding.evidence),
        "advice": finding.advice,
        "explained_by": finding.explained_by,
        "trace_id": finding.trace_id,
        "span_id": finding.span_id,
    }
