"""Replace functions of libraries, all or nothing, and take back only what is ours.

A `Target` names one function and says how to wrap it. A `PatchSet` is the targets of one module:
it is applied as soon as the module has been imported, at once if it already is, and never imports
it. Two holders of the same target (engines that both need it) share one layer.

Taking a layer back puts the very object back that was there before. Where somebody has wrapped our
layer in the meantime it cannot be taken out without destroying theirs: it stays, its wrapper finds
no sink (see `protocols.Outlet`), and the next `apply` uses it again instead of adding another.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from wrapt import register_post_import_hook

from otel_inference import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

_log = logging.getLogger("otel_inference")
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One function to wrap.

    Attributes:
        module: The defining module, never a lazy package that re-exports it.
        path: Attribute path inside it: `Class.method` or `function`.
        wrap: Takes the original function, gives its replacement: a plain function.
        optional: Whether a version of the library may lack it.
    """

    module: str
    path: str
    wrap: Callable[[Any], Any]
    optional: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What makes two targets the same."""
        return (self.module, self.path)


class _Layer:
    """One replaced attribute: what was there, what is there now, who needs it."""

    __slots__ = ("attribute", "before", "holders", "owner", "replacement")

    def __init__(self, owner: Any, attribute: str, before: Any, replacement: Any) -> None:
        self.owner = owner
        self.attribute = attribute
        self.before = before
        self.replacement = replacement
        self.holders: set[str] = set()

    def put(self) -> None:
        setattr(self.owner, self.attribute, self.replacement)

    def take_back(self) -> bool:
        """Restore what was there if we are outermost; `False` if somebody wrapped us."""
        if vars(self.owner).get(self.attribute, _ABSENT) is not self.replacement:
            return not self.is_inside()
        if self.before is _ABSENT:
            delattr(self.owner, self.attribute)
        else:
            setattr(self.owner, self.attribute, self.before)
        return True

    def is_inside(self) -> bool:
        """Whether our function is the current one or somewhere below it."""
        ours = _plain(self.replacement)
        found = _plain(vars(self.owner).get(self.attribute))
        for _ in range(64):
            if found is ours:
                return True
            found = _plain(getattr(found, "__wrapped__", None))
            if found is None:
                return False
        return False


class Patches:
    """The layers of this process, and the modules that are waited for."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._layers: dict[tuple[str, str], _Layer] = {}
        self._wanted: dict[str, dict[str, Sequence[Target]]] = {}
        """Module -> holder -> its targets there."""
        self._hooked: set[str] = set()

    def apply(self, holder: str, targets: Sequence[Target]) -> None:
        """Wrap `targets` for `holder`, each as soon as its module has been imported.

        A set that cannot be applied whole is not applied: one log line says what is missing.
        """
        by_module: dict[str, list[Target]] = {}
        for target in targets:
            by_module.setdefault(target.module, []).append(target)
        for module, wanted in by_module.items():
            with self._lock:
                self._wanted.setdefault(module, {})[holder] = wanted
                loaded = sys.modules.get(module)
                must_hook = loaded is None and module not in self._hooked
                if must_hook:
                    self._hooked.add(module)
            # Never with our lock held: importing threads hold import locks when they come for ours.
            if loaded is not None:
                self._arrived(loaded)
            elif must_hook:
                register_post_import_hook(self._arrived, module)

    def revert(self, holder: str) -> None:
        """Take back the layers that only `holder` needed, and wait for no module on its behalf."""
        with self._lock:
            for waiting in self._wanted.values():
                waiting.pop(holder, None)
            for key, layer in list(self._layers.items()):
                layer.holders.discard(holder)
                if not layer.holders and layer.take_back():
                    del self._layers[key]

    def reset_after_fork(self) -> None:
        """Make the lock usable in a forked child, whose parent may have held it."""
        self._lock = RLock()

    def _arrived(self, module: ModuleType) -> None:
        # An exception that leaves a post-import hook makes the host's import fail.
        with guard.guarded("patching"):
            _wait_until_loaded(module)
            with self._lock:
                self._hooked.discard(module.__name__)
                for holder, targets in self._wanted.get(module.__name__, {}).items():
                    self._apply_set(holder, module, targets)

    def _apply_set(self, holder: str, module: ModuleType, targets: Sequence[Target]) -> None:
        created: list[tuple[tuple[str, str], _Layer]] = []
        held: list[_Layer] = []
        try:
            for target in targets:
                layer = self._existing(target.key)
                if layer is None:
                    layer = _new_layer(module, target)
                    if layer is None:
                        continue
                    layer.put()
                    created.append((target.key, layer))
                held.append(layer)
        except Exception as error:  # noqa: BLE001 - whatever a foreign version of the library does
            for _, layer in reversed(created):
                layer.take_back()
            _log.warning("cannot instrument %s for %s: %s; it is left as it is", module.__name__, holder, error)
            guard.failed("patching")
            return
        self._layers.update(created)
        for layer in held:
            layer.holders.add(holder)

    def _existing(self, key: tuple[str, str]) -> _Layer | None:
        layer = self._layers.get(key)
        if layer is not None and not layer.is_inside():
            del self._layers[key]  # somebody put the original back over our head
            return None
        return layer


def _new_layer(module: ModuleType, target: Target) -> _Layer | None:
    *parents, attribute = target.path.split(".")
    try:
        owner: Any = functools.reduce(getattr, parents, module)
        getattr(owner, attribute)
    except AttributeError:
        if target.optional:
            return None
        msg = f"{target.module} has no {target.path}"
        raise AttributeError(msg) from None
    before = vars(owner).get(attribute, _ABSENT)
    found = _inherited(owner, attribute) if before is _ABSENT else before
    replacement = target.wrap(_plain(found))
    # So that what the host pickles by name is found again under that name.
    replacement.__name__ = attribute
    replacement.__qualname__ = target.path
    replacement.__module__ = target.module
    if isinstance(found, classmethod | staticmethod):
        replacement = type(found)(replacement)
    return _Layer(owner, attribute, before, replacement)


def _inherited(owner: Any, attribute: str) -> Any:
    return next(vars(base)[attribute] for base in owner.__mro__ if attribute in vars(base))


def _plain(function: Any) -> Any:
    """The function behind a class or static method."""
    return function.__func__ if isinstance(function, classmethod | staticmethod) else function


def _wait_until_loaded(module: ModuleType) -> None:
    """Return once the import of `module` is over, if another thread is at it."""
    if getattr(module.__spec__, "_initializing", False):
        importlib.import_module(module.__name__)  # in the importing thread itself it returns at once
