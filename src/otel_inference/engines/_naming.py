"""Names that torch modules and transformers models bring with them."""

from __future__ import annotations

from typing import Any

from otel_inference.naming import last_part, name_of


def module_name(module: Any) -> str:
    """Given name, else `config._name_or_path`, else the class name."""
    return name_of(module, _derive)


def _derive(module: Any) -> str:
    # What wraps a model is not its name: torch.compile, DataParallel and DistributedDataParallel.
    for attribute in ("_orig_mod", "module"):
        inner = vars(module).get("_modules", {}).get(attribute)
        if inner is not None and type(module).__name__ in {
            "OptimizedModule",
            "DataParallel",
            "DistributedDataParallel",
        }:
            return module_name(inner)
    path = getattr(getattr(module, "config", None), "_name_or_path", None)
    if isinstance(path, str) and path:
        return last_part(path)
    scripted = getattr(module, "original_name", None)
    return scripted if isinstance(scripted, str) and scripted else type(module).__name__
