"""How big an input is, read from its shape alone.

Values of the host are never iterated, truth-tested, measured with `len()` (lists apart), copied or
synchronised with an accelerator, and never kept.
"""

from __future__ import annotations

import math
from typing import Any, Final

MATRIX: Final = 2
"""Dimensions of a batch of token rows."""


def batch_size_of(value: Any) -> int | None:
    """Rows of a list, or of an array with at least two dimensions; else `None`."""
    if isinstance(value, list):
        return len(value)
    shape = shape_of(value)
    return shape[0] if shape is not None and len(shape) > 1 else None


def size_of(value: Any) -> int | None:
    """Elements of an array, or of nested lists of numbers; `None` for what has no shape."""
    shape = _list_shape(value) if isinstance(value, list) else shape_of(value)
    return None if shape is None else math.prod(shape)


def _list_shape(value: Any) -> tuple[int, ...] | None:
    """The shape of nested lists, down their first elements; `None` if those are no numbers."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape) if isinstance(value, (list, int, float)) else None


def read(value: Any, name: str) -> Any:
    """An attribute that the type of `value` defines, as arrays and tensors do; else `None`.

    Whatever else the host passes may do anything when it is asked for an attribute.
    """
    return getattr(value, name) if hasattr(type(value), name) else None


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of an array or tensor, if it is one of plain integers.

    Symbolic sizes are left alone: to read one as a number while a graph is traced would pin the
    graph to that number.
    """
    shape = read(value, "shape")
    if type(value).__name__ == "OrtValue":
        shape = tuple(value.shape())  # a method there, and one that copies nothing
    if not isinstance(shape, tuple):
        return None
    for size in shape:
        if type(size) is not int:
            return None
    return shape


def token_count(ids: Any, mask: Any = None) -> int | None:
    """Tokens of a two-dimensional integer tensor, over all rows; `None` for anything else.

    Args:
        ids: Token ids of shape (rows, tokens).
        mask: Attention mask of the same shape. Padding is left out only if it lies on the CPU,
            where counting costs no copy and waits for nothing.
    """
    shape = shape_of(ids)
    if shape is None or len(shape) != MATRIX or "int" not in str(read(ids, "dtype")):
        return None
    device = read(mask, "device")
    if shape_of(mask) == shape and getattr(device, "type", device) == "cpu" and _is_whole(mask):
        try:
            return int(mask.sum())
        except Exception:  # noqa: BLE001 - inside a transform a tensor has no value to read
            return math.prod(shape)
    return math.prod(shape)


def _is_whole(mask: Any) -> bool:
    """Whether a mask counts by ones and zeros; one to be added to scores does not."""
    kind = str(read(mask, "dtype"))
    return "int" in kind or "bool" in kind
