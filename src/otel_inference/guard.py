"""The only place that swallows exceptions: ours never reach the host's program.

Every swallowed exception is counted (`inference.self.errors`); the first of each place is logged
with its traceback, then one in every hundred, so that a broken step in a hot loop stays readable.
With `OTEL_INFERENCE_STRICT=1` they are raised instead, which the package's own tests do.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from contextlib import contextmanager
from threading import Lock
from types import FrameType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

_LOG_EVERY: Final = 100

_log = logging.getLogger("otel_inference")
_lock = Lock()
_errors: Counter[str] = Counter()
_dropped: Counter[str] = Counter()
_strict = False


def set_strict(*, strict: bool) -> None:
    """Raise our own failures instead of swallowing them, for tests."""
    global _strict  # noqa: PLW0603 - one switch for the process, read on the failure path only
    _strict = strict


def failed(where: str) -> None:
    """Count and log the exception being handled. Call it from an `except` block.

    Raises:
        Exception: The one being handled, if a signal handler of the host raised it while our code
            happened to run (a timeout by alarm): it is not ours to swallow. In strict mode, always.
    """
    if _raised_by_signal_handler(sys.exc_info()[2]):
        raise  # noqa: PLE0704 - re-raises the exception that the caller is handling
    with _lock:
        _errors[where] += 1
        count = _errors[where]
    if count % _LOG_EVERY == 1:
        _log.warning("internal failure in %s (%d so far); your program is not affected", where, count, exc_info=True)
    if _strict:
        raise  # noqa: PLE0704 - re-raises the exception that the caller is handling


def _raised_by_signal_handler(traceback: TracebackType | None) -> bool:
    """Whether a frame of the traceback was called as a signal handler is: with a number and a frame."""
    while traceback is not None:
        frame = traceback.tb_frame
        arguments = frame.f_code.co_varnames[: min(frame.f_code.co_argcount, 3)]
        values = [frame.f_locals.get(name) for name in arguments]
        if any(isinstance(value, FrameType) for value in values) and any(isinstance(value, int) for value in values):
            return True
        traceback = traceback.tb_next
    return False


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Keep every failure of the block inside; not for the hot path, which has its own `try`."""
    try:
        yield
    except Exception:  # noqa: BLE001 - that is its purpose
        failed(where)


def dropped(where: str, count: int = 1) -> None:
    """Count telemetry that had to be given up."""
    with _lock:
        _dropped[where] += count


def error_counts() -> Mapping[str, int]:
    """Failures of our own so far, by place."""
    with _lock:
        return dict(_errors)


def drop_counts() -> Mapping[str, int]:
    """Records given up so far, by place."""
    with _lock:
        return dict(_dropped)


def reset_after_fork() -> None:
    """Make the lock usable in a forked child, whose parent may have held it."""
    global _lock  # noqa: PLW0603 - a lock held by a thread that does not exist here can only be replaced
    _lock = Lock()
