"""Which exporters the SDK would take for a signal, read from the variables as it reads them itself.

One name that it does not find is enough for it to refuse the whole configuration, of all signals.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Final

from otel_inference.cli.check import Result, Verdict
from otel_inference.cli.listener import GRPC, HTTP
from otel_inference.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES: Final = {GRPC: "otlp_proto_grpc", HTTP: "otlp_proto_http"}
"""Names of entry points by protocol."""
_BY_PROTOCOL: Final = "otlp"
"""The name that leaves the protocol to other variables."""


def chosen(signal: str, environ: Mapping[str, str]) -> list[str]:
    """The names that a signal's variable lists; none where it is not exported. The distro's default is `otlp`."""
    names = environ.get(variable(signal), _BY_PROTOCOL)
    if not names or names.strip().lower() == "none":
        return []
    return [name.strip() for name in names.split(",")]


def variable(signal: str) -> str:
    """The environment variable that names the exporters of a signal."""
    return f"OTEL_{signal.upper()}_EXPORTER"


def protocol_of(signal: str, name: str, environ: Mapping[str, str]) -> str | None:
    """The protocol of OTLP that an exporter would speak, not always one that there is; `None` for other exporters."""
    if name != _BY_PROTOCOL:
        return next((protocol for protocol, own in NAMES.items() if own == name), None)
    own, general = (environ.get(f"OTEL_EXPORTER_OTLP_{of}PROTOCOL") for of in (f"{signal.upper()}_", ""))
    return (own or general or GRPC).strip()


def refused(signal: str, name: str, protocol: str | None) -> Result | None:
    """What is wrong with a name or its protocol; `None` if the SDK finds the exporter."""
    if name == _BY_PROTOCOL and protocol not in NAMES:
        found = f"the protocol {protocol} is not one that the SDK for Python has"
        remedy = f"Set OTEL_EXPORTER_OTLP_PROTOCOL to {' or '.join(NAMES)}."
        return Result(subject=signal, verdict=Verdict.FAILED, found=found, remedy=remedy)
    known = {point.name for point in importlib.metadata.entry_points(group=f"opentelemetry_{signal}_exporter")}
    needed = name if protocol is None else NAMES[protocol]
    if needed in known:
        return None
    found = (
        f"{variable(signal)} names {name or 'nothing between two commas'}, and no exporter {needed!r} is there: "
        "the SDK refuses its configuration, and nothing is exported"
    )
    return Result(subject=signal, verdict=Verdict.FAILED, found=found, remedy=_remedy(needed, protocol, known))


def _remedy(needed: str, protocol: str | None, known: set[str]) -> str:
    if protocol is not None:
        return f"pip install opentelemetry-exporter-{needed.replace('_', '-')}"
    if needed == "none":
        return "Leave none out of the list: it stands alone or not at all."
    meant = nearest(needed, known)
    if meant is not None:
        return f"Did you mean {meant}?"
    return f"Known here are {', '.join(sorted(known))}. Name one of them, or install the package that has it."
