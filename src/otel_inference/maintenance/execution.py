"""Foreign code called once, on a thread of its own that nobody has to wait for."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context

from otel_inference.maintenance.journal import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_inference.maintenance.action import MaintenanceEvent

THREAD_NAME: Final = "otel-inference-action"
_LONGEST_TEXT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended."""

    outcome: Outcome
    """`done`, `failed` or `timed_out`."""
    value: Any = None
    """What it returned."""
    error: BaseException | None = None
    detail: str = ""


class Execution(Thread):
    """One call of an action's function; everything it raises stays here, `SystemExit` included.

    The thread is a daemon: an action that hangs neither holds up maintenance nor the exit of the process.

    Args:
        function: What to call.
        event: What to call it with.
        context: OpenTelemetry's context that is current meanwhile.
    """

    def __init__(
        self, function: Callable[[MaintenanceEvent], Any], event: MaintenanceEvent, context: otel_context.Context
    ) -> None:
        super().__init__(name=THREAD_NAME, daemon=True)
        self._function = function
        self._event = event
        self._context = context
        self._ending: Ending | None = None

    def run(self) -> None:
        """See `threading.Thread.run`."""
        try:
            otel_context.attach(self._context)  # never detached: the context is this thread's own, and ends with it
            self._ending = Ending(outcome=Outcome.DONE, value=self._function(self._event))
        except BaseException as error:  # noqa: BLE001 - whatever an action raises concerns nobody else
            self._ending = Ending(outcome=Outcome.FAILED, error=error, detail=_text_of(error))

    def ending(self, timeout_s: float) -> Ending:
        """Begin the call and wait for its end, no longer than `timeout_s`; `is_alive` tells whether it goes on."""
        try:
            self.start()
        except RuntimeError as error:  # no thread can be had: at exit, or at a limit of the system
            return Ending(outcome=Outcome.FAILED, error=error, detail=_text_of(error))
        self.join(timeout_s)
        if self.is_alive():
            return Ending(outcome=Outcome.TIMED_OUT, detail=f"it had not returned after {timeout_s:g} s")
        # Without an ending the thread was killed from outside, by an exception set in it.
        return self._ending or Ending(outcome=Outcome.FAILED, detail="its thread was killed")


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the host's own class, doing what it likes
        text = "(its text cannot be had)"
    return f"{type(error).__name__}: {text}"[:_LONGEST_TEXT].removesuffix(": ")
