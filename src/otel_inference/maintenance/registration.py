"""Which actions there are, and what a callback is called."""

from __future__ import annotations

import functools
from threading import Lock
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_inference.maintenance.action import Action


class Actions:
    """The actions that are registered, in the order in which they were; any thread may register.

    Reading takes no lock: the tuple is replaced, never changed.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._actions: tuple[Action, ...] = ()

    def current(self) -> tuple[Action, ...]:
        """All of them now."""
        return self._actions

    def add(self, action: Action) -> None:
        """Register an action, in place of one with the same name and trigger."""
        with self._lock:
            self._actions = (*(each for each in self._actions if each.trigger != action.trigger), action)

    def remove(self, name: str) -> bool:
        """Forget an action with all its triggers; returns whether there was one."""
        with self._lock:
            before = self._actions
            self._actions = tuple(each for each in before if each.name != name)
            return len(self._actions) < len(before)

    def forget_former_self(self, run: Callable[..., Any]) -> bool:
        """Forget what was registered for `run` as it was defined before; returns whether anything was.

        A function is defined again when its module is reloaded or its notebook cell is run again.
        """
        with self._lock:
            before = self._actions
            self._actions = tuple(each for each in before if not _is_former_self(each.run, run))
            return len(self._actions) < len(before)

    def name_for(self, run: Callable[..., Any]) -> str:
        """A name for a callback: its function's, with a number where another callback has it already."""
        taken = {each.name for each in self._actions if not _is_same(each.run, run)}
        plain = _plain_name(run)
        numbered = (plain if number == 1 else f"{plain}#{number}" for number in range(1, len(taken) + 2))
        return next(name for name in numbered if name not in taken)

    def reset_after_fork(self) -> None:
        """Make the lock usable in a forked child, whose parent may have held it."""
        self._lock = Lock()


def _plain_name(run: Callable[..., Any]) -> str:
    while isinstance(run, functools.partial):
        run = run.func
    name = getattr(run, "__name__", None)
    return name.strip("<>") if isinstance(name, str) and name else type(run).__name__


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether both do the same; a bound method is another object each time it is asked for."""
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return one.__func__ is other.__func__ and one.__self__ is other.__self__
    return one is other


def _is_former_self(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether `new` is the same function of the same module, compiled once more.

    Closures that one `def` in a loop makes share their code and are all kept, and so are functions
    that are called `_` or are lambdas, which says nothing of who they are.
    """
    name, code = getattr(new, "__qualname__", None), getattr(new, "__code__", None)
    if code is None or not isinstance(name, str) or name.rpartition(".")[2] in {"_", "<lambda>"}:
        return False
    return (
        getattr(old, "__qualname__", None) == name
        and getattr(old, "__module__", None) == getattr(new, "__module__", None)
        and getattr(old, "__code__", code) is not code
    )
