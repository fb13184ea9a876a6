"""Ending this worker so that its server starts a fresh one: only where a server is known to do that.

SIGTERM is what both servers take for "finish what you are at, and go". Sent to anything but a worker
of theirs it would end the program for good, hence everything is checked that can be.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from multiprocessing import current_process
from threading import Timer
from typing import TYPE_CHECKING, Any, Final

import psutil  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from collections.abc import Mapping

GRACE_S: Final = 1.0
"""Between the decision and the signal, in which the journal and the event are written."""
YOUNG_S: Final = 60.0
"""Age below which another worker may still be loading its models."""
_HANDLERS: Final = ("SIGTERM", "SIGUSR1")
"""Signals that gunicorn's workers handle by a method of theirs; uvicorn's own takes SIGTERM away from it."""

_held: list[socket.socket] = []
"""The claim to be the one worker that is being recycled; it ends with the process."""


def why_not(modules: Mapping[str, Any] = sys.modules) -> str | None:
    """Why this process cannot be recycled now; `None` if it can."""
    if signal.getsignal(signal.SIGTERM) in {signal.SIG_DFL, signal.SIG_IGN}:
        return "nothing in this process ends it gracefully on SIGTERM"
    if not (_is_gunicorn_worker(modules) or _is_uvicorn_worker(modules)):
        return "this process is no worker of gunicorn's or uvicorn's, so nothing would start another"
    if any(age_s < YOUNG_S for age_s in _ages_of_siblings_s()):
        return f"another worker is less than {YOUNG_S:.0f} s old"
    return None if _held or _is_free() else "another worker is being recycled"


def recycle() -> bool:
    """Send this process SIGTERM in a second; returns false where another worker has just begun to do that."""
    if not _held:
        claim = _claim()
        if claim is None:
            return False
        _held.append(claim)
    timer = Timer(GRACE_S, os.kill, (os.getpid(), signal.SIGTERM))
    timer.name, timer.daemon = "otel-inference-recycling", True
    timer.start()
    return True


def _is_gunicorn_worker(modules: Mapping[str, Any]) -> bool:
    """Whether a method of gunicorn's worker handles signals here, and its arbiter is this process's parent.

    A process that a worker forked has the handlers too, but another id.
    """
    worker_type = getattr(modules.get("gunicorn.workers.base"), "Worker", None)
    if worker_type is None:
        return False
    handlers = (signal.getsignal(getattr(signal, name)) for name in _HANDLERS if hasattr(signal, name))
    owners = [getattr(handler, "__self__", None) for handler in handlers]
    return any(
        isinstance(owner, worker_type) and (owner.pid, owner.ppid) == (os.getpid(), os.getppid()) for owner in owners
    )


def _is_uvicorn_worker(modules: Mapping[str, Any]) -> bool:
    """Whether this process runs what uvicorn's supervisor of several workers runs in each.

    Its supervisor for development (`--reload`) starts no other; nor does the one before 0.30, which has no `Process`.
    """
    process_type = getattr(modules.get("uvicorn.supervisors.multiprocess"), "Process", None)
    process = current_process()
    target = getattr(process, "_kwargs", {}).get("target")
    is_ours = process_type is not None and isinstance(getattr(target, "__self__", None), process_type)
    return is_ours and getattr(process, "_parent_pid", None) == os.getppid()


def _ages_of_siblings_s() -> list[float]:
    """Ages of the other children of this process's parent that have not ended."""
    now_s, ages = time.time(), []
    try:
        siblings = psutil.Process(os.getppid()).children()
    except psutil.Error:  # it has ended
        return []
    for sibling in siblings:
        try:
            if sibling.pid != os.getpid() and sibling.status() != psutil.STATUS_ZOMBIE:
                ages.append(now_s - sibling.create_time())
        except psutil.Error:  # it has ended
            continue
    return ages


def _is_free() -> bool:
    claim = _claim()
    if claim is not None:
        claim.close()
    return claim is not None


def _claim() -> socket.socket | None:
    """Take a name that only one worker of this server can have, as long as its socket is open; `None` if it is taken.

    Workers that leak do so together, and would otherwise all go at once.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if not sys.platform.startswith("linux"):  # elsewhere such a name is a file, which would stay
        return claim
    parent = psutil.Process(os.getppid())
    try:
        claim.bind(f"\0otel-inference-recycling-{parent.pid}-{parent.create_time()}")
    except OSError:
        claim.close()
        return None
    return claim
