"""Which models need looking at, as the last evaluation found; what the sampler asks at each decision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_inference.health.snapshot import HealthState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Attention:
    """The state of each model, written by whoever evaluates and read by samplers.

    Both sides replace or read one reference, so that no lock is needed and no decision waits.

    Attributes:
        on_decision: Called at each sampling decision, on the thread of the host's call: a place to
            look whether an evaluation is due. It must cost no more than reading a clock, and start
            the evaluation elsewhere. `None` where nobody wants to know.
    """

    def __init__(self) -> None:
        self.on_decision: Callable[[], None] | None = None
        self._unwell: dict[str, HealthState] = {}

    def set(self, states: Mapping[str, HealthState]) -> None:
        """Replace what is known by the state of every model; one that is not named is well."""
        self._unwell = {model: state for model, state in states.items() if state is not HealthState.OK}

    def is_unwell(self, model: str) -> bool:
        """Whether `model` is degraded or critical."""
        return model in self._unwell

    def reset(self) -> None:
        """Know nothing, and tell nobody."""
        self.on_decision = None
        self._unwell = {}


attention = Attention()
"""The one of this process."""
