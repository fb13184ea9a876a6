"""What may be done about a finding, and what whoever does it is told."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from otel_inference.errors import ConfigError
from otel_inference.finding import FindingKind
from otel_inference.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_inference.finding import Finding
    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.maintenance.journal import JournalEntry

COOLDOWN_S: Final = 60.0
MAX_PER_HOUR: Final = 6
TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceEvent:
    """What an action is called with."""

    finding: Finding
    """What is wrong."""
    health: ModelHealth | Mapping[str, ModelHealth] | None
    """What `otel_inference.health(finding.model)` gives when the action begins: the model's health, and where the
    whole process is concerned that of every model by name; `None` where nothing is known of the model."""
    journal: tuple[JournalEntry, ...]
    """What maintenance did before, newest last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something to do about findings of one kind, and how often at most.

    Actions of one name are one action with several triggers: they share their history, and with it
    cool-downs, caps and failures.

    Raises:
        ConfigError: If a value means nothing.
    """

    name: str
    """What it is called in spans, metrics and the journal."""
    kind: FindingKind | str
    """The findings that set it off, by name: `saturation` and so on."""
    run: Callable[[MaintenanceEvent], Any]
    """Does it, on a thread of its own; what it returns is ignored, what it raises is a failure."""
    subject: str | None = None
    """Only findings with this `subject`; `None` for any."""
    model: str | None = None
    """Only findings of this model; `None` for those of any model and of the whole process."""
    undo: Callable[[MaintenanceEvent], Any] | None = None
    """Takes it back; called with the event of the run, when what followed was worse than before."""
    precondition: Callable[[MaintenanceEvent], bool | str] | None = None
    """Whether it makes sense now: true, or else false or the reason why not. It must change nothing."""
    cooldown_s: float = COOLDOWN_S
    """Shortest time between two runs about the same finding."""
    max_per_hour: int = MAX_PER_HOUR
    """Most runs in an hour, about whichever findings."""
    timeout_s: float = TIMEOUT_S
    """Longest time that a run is waited for."""
    settle_s: float | None = None
    """Time after a run at which it is judged; `None` for the width of the health window, so that the figures after
    it are of no call from before."""

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        object.__setattr__(self, "kind", kind_of(self.kind))
        for field in ("name", "subject", "model"):
            _require_text(field, getattr(self, field), needed=field == "name")
        for field in ("run", "undo", "precondition"):
            _require_function(field, getattr(self, field), needed=field == "run")
        _require_seconds("cooldown_s", self.cooldown_s, COOLDOWN_S)
        _require_seconds("timeout_s", self.timeout_s, TIMEOUT_S, above_zero=True)
        if self.settle_s is not None:
            _require_seconds("settle_s", self.settle_s, COOLDOWN_S)
        if isinstance(self.max_per_hour, bool) or not isinstance(self.max_per_hour, int) or self.max_per_hour < 1:
            msg = (
                f"max_per_hour is {self.max_per_hour!r}; expected a whole number of at least 1, such as {MAX_PER_HOUR}"
            )
            raise ConfigError(msg)

    def matches(self, finding: Finding) -> bool:
        """Whether `finding` sets it off."""
        return (
            finding.kind == self.kind
            and self.subject in {None, finding.subject}
            and self.model in {None, finding.model}
        )

    @property
    def trigger(self) -> tuple[str, str, str | None, str | None]:
        """What makes it the same action and trigger when it is added again."""
        return (self.name, str(self.kind), self.subject, self.model)


def kind_of(name: FindingKind | str) -> FindingKind:
    """The kind of finding that `name` names.

    Raises:
        ConfigError: If there is none; it says which comes nearest.

    >>> kind_of("stall")
    <FindingKind.STALL: 'stall'>
    """
    try:
        return FindingKind(name)
    except ValueError:
        known = [kind.value for kind in FindingKind]
        raise ConfigError(unknown("kind of finding", name, known)) from None


def unknown(what: str, name: object, known: list[str]) -> str:
    """The message for a name that nobody knows.

    >>> unknown("fruit", "aple", ["apple", "pear"])
    "unknown fruit 'aple' (did you mean 'apple'?); known are apple, pear"
    """
    meant = nearest(str(name), known)
    hint = f" (did you mean {meant!r}?)" if meant else ""
    return f"unknown {what} {name!r}{hint}; known are {', '.join(known)}"


def _require_text(field: str, value: object, *, needed: bool) -> None:
    if (value is None and not needed) or (isinstance(value, str) and value):
        return
    msg = f"{field} is {value!r}; expected a non-empty string{'' if needed else ' or None'}"
    raise ConfigError(msg)


def _require_function(field: str, value: object, *, needed: bool) -> None:
    if value is None and not needed:
        return
    if not callable(value):
        msg = f"{field} is {value!r}; expected a function of one argument, the event{'' if needed else ', or None'}"
        raise ConfigError(msg)
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(value, "__call__", None)):  # noqa: B004
        msg = f"{field} is a coroutine function; expected a plain one, since it runs on a thread without an event loop"
        raise ConfigError(msg)


def _require_seconds(field: str, value: object, such_as: float, *, above_zero: bool = False) -> None:
    number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if math.isfinite(number) and (number > 0 or (number == 0 and not above_zero)):
        return
    at_least = "above 0" if above_zero else "of at least 0"
    msg = f"{field} is {value!r}; expected a number of seconds {at_least}, such as {such_as:g}"
    raise ConfigError(msg)
