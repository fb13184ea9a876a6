"""Names of models: what the user called an object, else what its engine derives, found fast.

Objects are remembered by identity through weak references: nothing is written onto the host's
object, so that pickling, copying and state dicts are as before, and nothing keeps it alive.
"""

from __future__ import annotations

import logging
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_inference.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("otel_inference")

OTHER: Final = "other"
"""The name under which models beyond `max_models` are counted together."""

_named: dict[int, tuple[weakref.ref[Any], str, bool]] = {}
"""Identity -> (the object, its name, whether the user gave it)."""


def name_model(obj: object, name: str) -> None:
    """Call `obj` `name` in every span and metric from now on.

    Args:
        obj: A module, pipeline or session. It is referenced weakly.
        name: What to call it; keep the number of names small, at most `max_models` are kept.

    Raises:
        ConfigError: If the name is not a non-empty string or the object cannot be referenced weakly.
    """
    if not isinstance(name, str) or not name.strip():
        msg = f"name_model() got the name {name!r}; expected a non-empty string such as 'smollm2'"
        raise ConfigError(msg)
    if not _remember(obj, name.strip(), given=True):
        msg = f"name_model() got a {type(obj).__name__}, which cannot be referenced weakly; name the model inside it"
        raise ConfigError(msg)


def given_name(obj: object) -> str | None:
    """The name that the user gave `obj`, if any."""
    entry = _named.get(id(obj))
    return entry[1] if entry is not None and entry[2] and entry[0]() is obj else None


def name_of(obj: object, derive: Callable[[Any], str]) -> str:
    """The name of `obj`: given, else what `derive` made of it the first time it was asked."""
    entry = _named.get(id(obj))
    if entry is not None and entry[0]() is obj:
        return entry[1]
    name = derive(obj)
    _remember(obj, name, given=False)
    return name


def last_part(name_or_path: str) -> str:
    """A hub name as it is; of a local path its last part.

    >>> last_part("HuggingFaceTB/SmolLM2-135M")
    'HuggingFaceTB/SmolLM2-135M'
    >>> last_part("/srv/models/ranker/")
    'ranker'
    """
    path = Path(name_or_path)
    if path.is_absolute() or name_or_path.startswith((".", "~")) or path.is_dir():
        # Made absolute without following links: /srv/models/ranker stays "ranker" wherever it leads.
        return os.path.basename(os.path.abspath(name_or_path)) or name_or_path  # noqa: PTH100,PTH119
    return name_or_path


def _remember(obj: object, name: str, *, given: bool) -> bool:
    key = id(obj)

    def forget(reference: weakref.ref[Any]) -> None:
        entry = _named.get(key)
        if entry is not None and entry[0] is reference:
            _named.pop(key, None)

    try:
        reference = weakref.ref(obj, forget)
    except TypeError:
        return False
    _named[key] = (reference, name, given)
    return True


class NameLimit:
    """Lets the first `limit` names through and calls every later one `other`, with one warning.

    Args:
        limit: How many different names are kept, at least 1.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._admitted: set[str] = set()
        self._refused: str | None = None
        self._warned = False

    def admit(self, name: str) -> str:
        """`name`, or `other` once the limit is reached."""
        if name in self._admitted or name == OTHER:
            return name
        if len(self._admitted) < self.limit:
            self._admitted.add(name)
            return name
        self._refused = self._refused or name
        return OTHER

    def warn_once(self) -> None:
        """Say that a name came too late, if one did and it has not been said; not with a lock held."""
        if self._refused is not None and not self._warned:
            self._warned = True
            _log.warning(
                "more than %d model names; %r and all later ones are counted as %r (OTEL_INFERENCE_MAX_MODELS)",
                self.limit,
                self._refused,
                OTHER,
            )
