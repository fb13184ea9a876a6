"""Importing on a thread of ours, so that a fork does not come in the middle of it."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_S: Final = 2.0
"""Not for ever: who forks may be importing what our thread waits for."""


class Loading:
    """Keeps forks and imports apart: a child would inherit locks of modules that nobody there releases."""

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Forget the threads of the parent."""
        self._lock = Lock()
        self._held_for_fork = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """For the time of an import."""
        lock = self._lock
        held = lock.acquire(timeout=_PATIENCE_S)
        try:
            yield
        finally:
            if held:
                lock.release()

    def hold_for_fork(self) -> None:
        """Wait until nothing is being imported, and keep it so until `go_on_after_fork`."""
        if self._lock.acquire(timeout=_PATIENCE_S):
            self._held_for_fork = True

    def go_on_after_fork(self) -> None:
        """Let the parent import on."""
        if self._held_for_fork:
            self._held_for_fork = False
            self._lock.release()


loading: Final = Loading()
"""The one of this process."""
