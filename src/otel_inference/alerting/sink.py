"""What an alert sink is, and how a plain function becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_inference.finding import FindingChange


class AlertSink(Protocol):
    """Somebody to be told of findings.

    A sink that has an attribute `refresh_s` is told again of all that is open, as `updated`, every so
    many seconds: for a receiver that takes silence for the end.
    """

    @property
    def name(self) -> str:
        """What it is called in the log, and in `inference.self.dropped` as `alerts.<name>`."""
        ...

    def send(self, changes: Sequence[FindingChange]) -> None:
        """Tell of the changes. Always called by the same thread, which is this sink's own, so it may take its time.

        Raises:
            DeliveryError: If it is known whether another try may help.
            Exception: Any other means that another try may help. All of the changes then come again.
        """
        ...


class DeliveryError(Exception):
    """An alert was not taken. The message goes to the log, so it holds no secret.

    Args:
        message: What happened.
        is_final: Whether another try is useless, since the receiver understood and refused.
    """

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class FunctionSink:
    """A function that is called with each change."""

    function: Callable[[FindingChange], object]

    @property
    def name(self) -> str:
        """The function's own name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def send(self, changes: Sequence[FindingChange]) -> None:
        """Call the function."""
        for change in changes:
            self.function(change)
