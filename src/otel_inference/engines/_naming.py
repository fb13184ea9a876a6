"""Names that torch modules and transformers models bring with them."""

from __future__ import annotations

from typing import Any, Final

from otel_inference.naming import last_part, name_of


def module_name(module: Any) -> str:
    """Given name, else `config._name_or_path`, else the class name."""
    return name_of(module, _derive)


# What wraps a model is not its name.
_WRAPPERS: Final = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def _derive(module: Any) -> str:
    wrapped = _WRAPPERS.get(type(module).__name__)
    if wrapped is not None:
        return module_name(getattr(module, wrapped))
    path = getattr(getattr(module, "config", None), "_name_or_path", None)
    if isinstance(path, str) and path:
        return last_part(path)
    # A scripted or traced module keeps the name of its class, a scripted function its own.
    scripted = getattr(module, "name" if type(module).__name__.endswith("ScriptFunction") else "original_name", None)
    return scripted if isinstance(scripted, str) and scripted else type(module).__name__
