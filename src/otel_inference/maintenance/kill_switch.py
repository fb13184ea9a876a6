"""A signal that switches maintenance off and on: for whoever has nothing but a shell."""

from __future__ import annotations

import signal
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBER: Final = getattr(signal, "SIGUSR2", None)
"""Not on Windows."""

_armed = False


def arm(*, armed: bool) -> None:
    """Say whether maintenance may act from now on, so that who registers an action takes the signal."""
    global _armed  # noqa: PLW0603 - one instrumentation per process, and one signal
    _armed = armed


def is_armed() -> bool:
    """Whether maintenance may act."""
    return _armed


class KillSwitch:
    """Has SIGUSR2 call a function, where the host has no use for that signal.

    Args:
        toggle: Called on the main thread, wherever that is at the time: it must neither lock nor log.
    """

    def __init__(self, toggle: Callable[[], None]) -> None:
        self._toggle = toggle

    def install(self) -> bool:
        """Take the signal; returns whether it is ours.

        It is not where its disposition is anything but the default, nor outside the main thread,
        which alone may set one.
        """
        if NUMBER is None or current_thread() is not main_thread():
            return False
        if signal.getsignal(NUMBER) is signal.SIG_DFL:
            signal.signal(NUMBER, self._handle)
        return signal.getsignal(NUMBER) == self._handle

    def remove(self) -> None:
        """Give the signal back, unless somebody has taken it since; does nothing outside the main thread."""
        if NUMBER is None or current_thread() is not main_thread():
            return
        if signal.getsignal(NUMBER) == self._handle:
            signal.signal(NUMBER, signal.SIG_DFL)

    def _handle(self, _number: int, _frame: object) -> None:
        self._toggle()
