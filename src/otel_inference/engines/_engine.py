"""What an engine is to the rest of the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_inference.patching import Target
    from otel_inference.protocols import Outlet


class Engine(Protocol):
    """Turns one library's calls into calls of ours.

    An engine is one file that defines `ENGINE`, and its line in `engines/__init__.py`. It imports
    its library only inside wrappers, which exist only once the host has imported it.
    """

    @property
    def name(self) -> str:
        """Name of the engine: `inference.engine` in telemetry, `engines=` in code."""
        ...

    @property
    def distribution(self) -> str:
        """Name of the library's distribution, for its version."""
        ...

    @property
    def requires(self) -> str:
        """Requirement specifier of the library's supported versions, such as `torch >= 2.2`."""
        ...

    def targets(self, outlet: Outlet, /) -> Sequence[Target]:
        """The entry points of the library; their wrappers report to `outlet`."""
        ...
