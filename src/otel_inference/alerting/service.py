"""Whose findings they are."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TypeAlias

Service: TypeAlias = str | Callable[[], str | None] | None
"""The name of the service (`service.name`), or what tells it once it is asked for; `None` if unknown."""


def service_name(service: Service) -> str | None:
    """The name of the service, where it is known.

    >>> service_name(lambda: "ranking"), service_name(None)
    ('ranking', None)
    """
    return service() if callable(service) else service


def instance() -> str:
    """Host and process: each process judges for itself, and one must not close what is open in another."""
    return f"{socket.gethostname()}:{os.getpid()}"
