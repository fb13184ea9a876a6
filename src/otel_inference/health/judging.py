"""From numbers to a state: is this model well?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_inference.finding import Severity
from otel_inference.health.snapshot import HealthState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_inference.finding import Finding
    from otel_inference.health.window import WindowSnapshot

DEGRADED_ERROR_RATIO: Final = 0.05
CRITICAL_ERROR_RATIO: Final = 0.5
FEWEST_ERRORS: Final = 2
_STATES: Final = {
    Severity.INFO: HealthState.OK,
    Severity.WARNING: HealthState.DEGRADED,
    Severity.CRITICAL: HealthState.CRITICAL,
}


def state_of(window: WindowSnapshot) -> HealthState:
    """The state that a window's errors show.

    They are judged by the lower bound of their interval: degraded from 5 %, critical from 50 %. A single failure,
    such as one out of three, is no verdict.
    """
    surely_failing = window.error_ratio_interval[0] if window.errors >= FEWEST_ERRORS else 0.0
    if surely_failing >= CRITICAL_ERROR_RATIO:
        return HealthState.CRITICAL
    return HealthState.DEGRADED if surely_failing >= DEGRADED_ERROR_RATIO else HealthState.OK


def state_by(findings: Iterable[Finding]) -> HealthState:
    """The state that open findings show: that of the worst of them."""
    return max((_STATES[finding.severity] for finding in findings), default=HealthState.OK)
