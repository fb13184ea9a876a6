"""Seams that two packages share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_inference.call import OpenCall


class CallSink(Protocol):
    """Where an engine reports its calls. No method of it ever raises an `Exception`."""

    def begin(
        self,
        engine: str,
        operation: str,
        model: str,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        input_size: int | None = None,
        usage_operation: str | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> OpenCall | None:
        """Begin a call and make it current; `None` when it is not to be counted."""
        ...

    def admit(self, call: Any) -> None:
        """Wait for a place for a `limited` call; to be called between `begin` and the engine's work.

        Raises:
            OverloadedError: If there is none in time. The call still has to be ended, with this error.
        """
        ...

    async def admit_async(self, call: Any) -> None:
        """Like `admit`, without blocking the event loop."""
        ...

    def announce(self, model: str) -> Announcement | None:
        """Say that a request has come that will call `model`; `None` where that makes no difference.

        Raises:
            OverloadedError: If its limiter would turn the call away. It is counted, and must not be made.
        """
        ...

    def end(self, call: Any, error: BaseException | None = None) -> None:
        """End what `begin` returned, in the context it was begun in. Only the first end counts."""
        ...

    def enter(self, call: Any) -> None:
        """Make a call current in this context: before each step of one that goes on after its function returned."""
        ...

    def leave(self, call: Any) -> None:
        """Make current again what was before `enter`."""
        ...

    def abandon(self, call: Any) -> None:
        """End a call nobody waits for any more, without an error. Safe in a finalizer: what may lock is done later."""
        ...


class Permit(Protocol):
    """A place that a limiter gave to one call."""

    @property
    def waited_s(self) -> float:
        """How long the call waited for it."""
        ...

    def release(self, *, ok: bool = True) -> None:
        """Give it back; only the first time counts. Safe in a finalizer and in a signal handler.

        Args:
            ok: Whether the call's duration says something of the service (it did not fail, it was not cold).
        """
        ...


class Announcement(Protocol):
    """A call that is on its way to a limiter."""

    def withdraw(self) -> None:
        """Say that it will not come; does nothing if it has."""
        ...


class Limiter(Protocol):
    """Decides how many calls run at once. See `maintenance.limiter.AdaptiveLimiter`."""

    @property
    def limit(self) -> int:
        """How many calls may run at once, as things are."""
        ...

    @property
    def in_use(self) -> int:
        """How many run."""
        ...

    @property
    def rejected(self) -> int:
        """How many were turned away so far."""
        ...

    def acquire(self, model: str, size: int | None = None) -> Permit:
        """A place for one call; waits where that leaves a chance to meet its deadline.

        In a thread that runs an event loop it never waits: what would free a place may need that loop.

        Args:
            model: The model called, for messages.
            size: Tokens or elements of the input, where known.

        Raises:
            OverloadedError: If there is no place in time.
        """
        ...

    def announce(self, model: str) -> Announcement:
        """Say that a call of `model` will come soon, in this context or one that takes it along. Never waits.

        Optional: a limiter without it is asked when the call is there.

        Args:
            model: The model to be called, for messages.

        Raises:
            OverloadedError: If it would be turned away if it came now; it then counts as turned away.
        """
        ...

    async def acquire_async(self, model: str, size: int | None = None) -> Permit:
        """Like `acquire`, without blocking the event loop."""
        ...


class Outlet:
    """What the wrappers of one engine hold for as long as the process lives.

    A wrapper that could not be removed, because somebody wrapped it, must become harmless: it finds
    no sink here. Attributes:

        sink: Where calls go; `None` while the engine is not instrumented.
        training: Whether modules in training mode count.
        capture_content: Whether prompts and outputs may be written to spans.
    """

    __slots__ = ("capture_content", "sink", "training")

    def __init__(self) -> None:
        self.sink: CallSink | None = None
        self.training = False
        self.capture_content = False


_outlets: dict[str, Outlet] = {}


def outlet_of(engine: str) -> Outlet:
    """The outlet of the engine called `engine`: one for the whole life of the process."""
    return _outlets.setdefault(engine, Outlet())
