"""Which model is called by the requests of a path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from otel_inference.errors import ConfigError

asked: Final[set[str]] = set()
"""Every model that a path was said to call."""

_PARAMETERS: Final = frozenset("{}<>")
"""How frameworks write parts of a path that vary; requests never have them."""
UNREFUSED: Final = "OPTIONS"
"""Method of requests that call no model: a browser that asks whether it may ask takes a refusal for a no."""


class ModelPaths:
    """Models by path; the longest path that a request's begins with, segment by segment, says which.

    Args:
        models: Names of models by path, without the application's own prefix; `None` for a path that calls none though
            one that it begins with does.

    Raises:
        ConfigError: If that is no mapping, a path does not begin with a slash or has parameters, or a model has no name.

    >>> paths = ModelPaths({"/embed": "minilm", "/embed/large": "bert", "/embed/health": None})
    >>> paths.model_of("/embed"), paths.model_of("/embed/large/1"), paths.model_of("/embed/health"), paths.model_of("/embedding")
    ('minilm', 'bert', None, None)
    """

    __slots__ = ("_models",)

    def __init__(self, models: Mapping[str, str | None]) -> None:
        if not isinstance(models, Mapping):
            msg = f"models is {models!r}; expected names of models by path, such as {{'/embed': 'minilm'}}"
            raise ConfigError(msg)
        for path, model in models.items():
            names_one = model is None or (isinstance(model, str) and model)
            if not isinstance(path, str) or not path.startswith("/") or not names_one:
                msg = f"models has {path!r}: {model!r}; expected a path and the name of the model that it calls, such as '/embed': 'minilm'"
                raise ConfigError(msg)
            if _PARAMETERS & set(path):
                msg = f"models has the path {path!r}; expected it as requests have it, without parameters: all paths below one are meant too"
                raise ConfigError(msg)
        asked.update(model for model in models.values() if model is not None)
        longest_first = sorted(models, key=len, reverse=True)
        self._models = [(path.rstrip("/"), path.rstrip("/") + "/", models[path]) for path in longest_first]

    def __bool__(self) -> bool:
        return bool(self._models)

    def model_of(self, path: str) -> str | None:
        """The model that requests of this path call; `None` where none is known."""
        for itself, below, model in self._models:
            if path == itself or path.startswith(below):
                return model
        return None
