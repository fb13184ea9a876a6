"""torch: the outermost call of a module in eval mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_inference.engines._forward import ENGINE_NAME, forward_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.patching import Target
    from otel_inference.protocols import Outlet


class TorchEngine:
    """Counts what is called from outside; a training step is left alone unless asked for."""

    name = ENGINE_NAME
    distribution = "torch"
    requires = "torch >= 2.2"

    def targets(self, _outlet: Outlet, /) -> Sequence[Target]:
        """The one entry point that every module shares."""
        return (forward_target(),)


ENGINE = TorchEngine()
