"""The health of every model, put together from its window, its running calls and the machine."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Final

from otel_inference import semconv
from otel_inference.health.judging import state_by, state_of
from otel_inference.health.snapshot import ModelHealth, latency_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_inference.finding import Finding
    from otel_inference.telemetry.registry import HealthRegistry, ModelStatistics

_FRESH_S: Final = 1.0


class HealthView:
    """Health of all models, computed when it is asked for.

    Args:
        registry: The models' statistics.
        running: When the calls of a model that run now began, on the registry's clock.
        resources: Utilization of the machine by resource, as read last.
        capacity: How many calls of a model can run at once.
        findings: What is open about a model.
    """

    def __init__(
        self,
        registry: HealthRegistry,
        *,
        running: Callable[[str], list[float]],
        resources: Callable[[], Mapping[str, float]],
        capacity: Callable[[str], float],
        findings: Callable[[str], tuple[Finding, ...]] = lambda _: (),
    ) -> None:
        self._registry = registry
        self._running = running
        self._resources = resources
        self._capacity = capacity
        self._findings = findings
        self._cached: tuple[float, dict[str, ModelHealth]] = (-_FRESH_S, {})

    def health(self) -> dict[str, ModelHealth]:
        """Every model's health now."""
        resources = self._resources()
        return {name: self._of(name, model, resources) for name, model in self._registry.models().items()}

    def recent(self) -> dict[str, ModelHealth]:
        """Every model's health, at most a second old: several gauges ask at once, under the SDK's lock."""
        at_s, found = self._cached
        now_s = monotonic()
        if now_s - at_s >= _FRESH_S or not found:
            found = self.health()
            self._cached = (now_s, found)
        return found

    def renewed(self, found: Mapping[str, ModelHealth]) -> dict[str, ModelHealth]:
        """The same health with the findings of now."""
        return {name: self._with_findings(model) for name, model in found.items()}

    def _with_findings(self, model: ModelHealth) -> ModelHealth:
        findings = self._findings(model.model)
        if findings == model.findings:
            return model
        state = max(state_of(model.window), state_by(findings))
        return replace(model, findings=findings, state=state)

    def _of(self, name: str, model: ModelStatistics, resources: Mapping[str, float]) -> ModelHealth:
        running_since_s = self._running(name)
        window, concurrency = model.snapshot(running_since_s)
        oldest_active_s = self._registry.now_s() - min(running_since_s) if running_since_s else 0.0
        findings = self._findings(name)
        return ModelHealth(
            model=name,
            throughput=window.throughput,
            latency=latency_of(window),
            error_ratio=window.error_ratio,
            error_ratio_interval=window.error_ratio_interval,
            utilization={**resources, semconv.RESOURCE_CONCURRENCY: concurrency / self._capacity(name)},
            active_calls=len(running_since_s),
            oldest_active_s=oldest_active_s,
            concurrency=concurrency,
            state=max(state_of(window), state_by(findings)),
            findings=findings,
            calls=window.calls,
            errors=window.errors,
            window=window,
        )
