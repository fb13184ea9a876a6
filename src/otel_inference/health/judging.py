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
STALL_FACTOR: Final = 10.0
STALL_AT_LEAST_S: Final = 30.0


def state_of(window: WindowSnapshot, oldest_active_s: float) -> HealthState:
    """The state that a window's errors and the oldest running call show.

    Errors are judged by the lower bound of their interval: degraded from 5 %, critical from 50 %. A single failure,
    such as one out of three, is no verdict. A call that has run longer than `stall_after_s` degrades.
    """
    surely_failing = window.error_ratio_interval[0] if window.errors >= FEWEST_ERRORS else 0.0
    if surely_failing >= CRITICAL_ERROR_RATIO:
        return HealthState.CRITICAL
    if surely_failing >= DEGRADED_ERROR_RATIO or oldest_active_s > stall_after_s(window):
        return HealthState.DEGRADED
    return HealthState.OK


def state_by(findings: Iterable[Finding]) -> HealthState:
    """The state that open findings show: that of the worst of them."""
    return max((_STATES[finding.severity] for finding in findings), default=HealthState.OK)


def stall_after_s(window: WindowSnapshot) -> float:
    """Seconds after which a running call is stalled: ten times p99, and at least 30."""
    if window.warm_calls == 0:
        return STALL_AT_LEAST_S
    return max(STALL_AT_LEAST_S, STALL_FACTOR * window.sketch.quantile(0.99))
