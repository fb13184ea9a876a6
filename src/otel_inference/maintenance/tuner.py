"""`Tuner`: finds the best value of a model's knobs while it serves, and leaves a known one in force whatever happens."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING, Final

from otel_inference import guard
from otel_inference.errors import ConfigError, KnobError
from otel_inference.maintenance.axis import Axis
from otel_inference.maintenance.knob import Knob, same
from otel_inference.maintenance.search import Search
from otel_inference.maintenance.tuning import (
    MIN_CALLS,
    TuningOutcome,
    TuningRecord,
    TuningRules,
    TuningWindow,
)
from otel_inference.maintenance.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_inference.health.stretch import Stretch

JOURNAL_LENGTH: Final = 256
_MOST_FAILURES: Final = 3
"""Without a value set in between; then a knob is left alone."""
_PATIENCE: Final = 6
"""Windows in which a trial must see enough calls, or it is given up."""
_STALE_SHARE: Final = 0.2
"""A window is left out if its calls may have begun under the setting before for more than this share of it."""


class Tuner:
    """Changes one knob at a time, compares, and keeps what does more work per second and keeps to the objective.

    It has no thread and no clock: somebody calls `step` or `observe` once for each window of calls, one call at a
    time, off the request path. Nobody ever waits for a lock of it. Failures of the user's functions
    are journalled, and a knob that failed three times since it was last set is left alone.

    Args:
        knobs: What may be changed, in the order in which they are tried. Each is read at once.
        slo_p95_s: Objective: 95th percentile of the durations to stay below, in seconds; default: none.
        objective: What to maximise, from a window; must be positive. Default: `TuningWindow.speed`.
        rules: What is concluded from how much.

    Raises:
        ConfigError: If there is no knob, two have one name, or the objective means nothing.
        KnobError: If a knob cannot be read, or reads a value outside its levels.

    Example:
        >>> settings = {"batch_size": 8}
        >>> batch_size = Knob("batch_size", lambda: settings["batch_size"],
        ...                   lambda size: settings.update(batch_size=size), levels=[1, 2, 4, 8, 16])
        >>> tuner = Tuner([batch_size], slo_p95_s=0.2)
        >>> for at_s in range(10, 400, 10):  # one window each ten seconds
        ...     service_s = 0.004 * settings["batch_size"] + 0.032
        ...     record = tuner.step(TuningWindow(at_s=at_s, duration_s=10.0, calls=100,
        ...         work=100 * settings["batch_size"], mean_service_s=service_s, p95_s=1.3 * service_s))
        >>> settings, [str(record.outcome) for record in tuner.journal][:1]
        ({'batch_size': 16}, ['accepted'])
        >>> tuner.undo()
        >>> settings
        {'batch_size': 8}
    """

    def __init__(
        self,
        knobs: Iterable[Knob],
        *,
        slo_p95_s: float | None = None,
        objective: Callable[[TuningWindow], float] | None = None,
        rules: TuningRules | None = None,
    ) -> None:
        self._knobs = _checked(knobs)
        if slo_p95_s is not None and not 0 < slo_p95_s < math.inf:
            msg = f"Tuner() got slo_p95_s={slo_p95_s!r}; expected seconds greater than 0, or None for no objective"
            raise ConfigError(msg)
        self._objective = objective
        self._original = [knob.read() for knob in self._knobs]
        self._in_force = list(self._original)
        axes = [_axis(knob, value) for knob, value in zip(self._knobs, self._original, strict=True)]
        self._search = Search(axes, slo_p95_s=math.inf if slo_p95_s is None else slo_p95_s, rules=rules)
        self._failures = [0] * len(axes)
        self._workload = Workload()
        self._pooled: TuningWindow | None = None
        self._idle = 0
        self._changed_s = self._at_s = -math.inf
        self._journal: deque[TuningRecord] = deque(maxlen=JOURNAL_LENGTH)
        self._fresh: list[TuningRecord] = []
        self._turn = Lock()
        """Held by whoever works; nobody ever waits for it, so that even a signal handler may ask."""
        self._ended = False
        self._put_back_to: Callable[[], Sequence[float]] | None = None
        """What is to be in force, once the tuner was told to end."""

    @property
    def journal(self) -> tuple[TuningRecord, ...]:
        """What was concluded and done, newest last; the last 256 entries."""
        return tuple(self._journal)

    @property
    def setting(self) -> dict[str, float]:
        """The value of each knob in force, as far as known: that of a trial while one runs."""
        return {knob.name: value for knob, value in zip(self._knobs, self._in_force, strict=True)}

    @property
    def best(self) -> dict[str, float]:
        """The value of each knob that is kept: that of the start until another proved better."""
        return {knob.name: value for knob, value in zip(self._knobs, self._search.base, strict=True)}

    def observe(
        self, stretch: Stretch, *, work: float | None = None, p95_s: float | None = None, now_s: float | None = None
    ) -> tuple[TuningRecord, ...]:
        """Take in what ended in ten seconds, as health counts it.

        Args:
            stretch: A completed one, each once, idle ones too.
            work: See `Workload.window`: needed where a knob changes what one call holds.
            p95_s: 95th percentile of its durations, where known.
            now_s: See `step`.

        Returns:
            See `step`.
        """
        return self.step(self._workload.window(stretch, work=work, p95_s=p95_s), now_s)

    def step(self, window: TuningWindow, now_s: float | None = None) -> tuple[TuningRecord, ...]:
        """Take in a window, and change a knob if that is due.

        Args:
            window: What ended since the window before; idle ones too.
            now_s: When a change made now takes effect, on the window's clock; default: at the window's end. Calls that
                ended before are of the earlier setting, so a window that began long before `now_s` is left out next time.

        Returns:
            What was concluded or done, mostly nothing. Also in `journal`.
        """
        if self._ended or not self._turn.acquire(blocking=False):
            return ()
        try:
            self._fresh = []
            self._at_s = window.at_s
            self._step(window, window.at_s if now_s is None else now_s)
            return tuple(self._fresh)
        finally:
            self._turn.release()
            self._finish()

    def stop(self) -> None:
        """End for good, and put the best known setting in force. While `step` runs elsewhere, it does that at its end.

        Waits for the knobs' setters, each at most for its time-out.
        """
        self._end(lambda: self._search.base)

    def undo(self) -> None:
        """Like `stop`, but put in force what was at the start, or what somebody else has set since."""
        self._end(lambda: self._original)

    def reset_after_fork(self) -> None:
        """Forget, in a forked child, who worked in the parent."""
        self._turn = Lock()
        for knob in self._knobs:
            knob.reset_after_fork()

    def _step(self, window: TuningWindow, now_s: float) -> None:
        if not self._is_as_set():
            self._pooled = None
        elif self._is_as_wanted():
            self._see(window)
        self._apply(now_s)

    # What is seen.

    def _see(self, window: TuningWindow) -> None:
        pooled = self._pool(window)
        if pooled is None:
            return
        self._pooled = None
        score = self._score(pooled)
        if score is not None:
            self._idle = 0
        self._note(self._search.see(pooled, score))

    def _pool(self, window: TuningWindow) -> TuningWindow | None:
        """Windows put together until there are enough calls; `None` until then."""
        p95_s = window.p95_s if window.usable else 0.0
        fresh_from_s = window.at_s - (1 - _STALE_SHARE) * window.duration_s
        if fresh_from_s < self._changed_s + p95_s:
            return None
        self._idle += 1
        if self._idle > _PATIENCE:
            self._note(self._search.abandon(window.at_s, f"too few calls in {_PATIENCE} windows"))
            self._idle = 0
            self._pooled = None
        if not window.usable and (window.calls or not window.errors):
            return None
        self._pooled = window if self._pooled is None else self._pooled.merged(window)
        return self._pooled if self._pooled.calls + self._pooled.errors >= MIN_CALLS else None

    def _score(self, window: TuningWindow) -> float | None:
        if not window.usable:
            return None
        try:
            score = window.speed if self._objective is None else self._objective(window)
        except Exception:  # noqa: BLE001 - the user's function; a window without a score is left out
            guard.failed("tuner.objective")
            return None
        return score if 0 < score < math.inf else None

    # What is in force.

    def _is_as_set(self) -> bool:
        """Whether each knob reads what it was set to; takes what somebody else has set as it is."""
        as_set = [self._is_one_as_set(index) for index in range(len(self._knobs))]
        return all(as_set)

    def _is_one_as_set(self, index: int) -> bool:
        axis = self._search.axes[index]
        if not axis.enabled:
            return True
        try:
            value = self._knobs[index].read()
        except KnobError as error:
            self._fail(index, error)
            return False
        if same(value, self._in_force[index]):
            return True
        before, self._in_force[index] = self._in_force[index], value
        if self._failures[index] == 0:
            self._yield(index, before, value)
        return False

    def _yield(self, index: int, before: float, value: float) -> None:
        axis = self._search.axes[index]
        self._original[index] = value
        outside = not axis.levels[0] <= value <= axis.levels[-1]
        axis.stand_at(value)
        axis.enabled = not outside
        self._search.moved()
        reason = "somebody else set it" + ("; it is outside the levels and is left alone" if outside else "")
        self._note(self._record(index, before, value, TuningOutcome.YIELDED, reason))

    def _is_as_wanted(self) -> bool:
        """Whether the windows seen are of the setting that the search wanted."""
        pairs = zip(self._search.axes, self._search.wanted, self._in_force, strict=True)
        return all(not axis.enabled or same(wanted, value) for axis, wanted, value in pairs)

    def _apply(self, now_s: float) -> None:
        for index, axis in enumerate(self._search.axes):
            wanted = self._search.wanted[index]
            if axis.enabled and not same(wanted, self._in_force[index]) and self._put(index, wanted):
                self._changed_s = now_s
                self._pooled = None
                self._idle = 0

    def _put(self, index: int, value: float) -> bool:
        try:
            self._knobs[index].write(value)
        except KnobError as error:
            self._fail(index, error)
            return False
        self._in_force[index] = value
        self._failures[index] = 0
        return True

    def _fail(self, index: int, error: KnobError) -> None:
        """Give up what was tried; after three failures, the knob."""
        axis, value = self._search.axes[index], self._in_force[index]
        self._search.abandon(self._at_s, "")
        self._failures[index] += 1
        reason = str(error)
        if self._failures[index] >= _MOST_FAILURES:
            axis.stand_at(value)
            axis.enabled = False
            self._search.moved()
            reason += f"; left alone after {_MOST_FAILURES} failures"
        self._note(self._record(index, value, value, TuningOutcome.FAILED, reason))

    # The end.

    def _end(self, setting: Callable[[], Sequence[float]]) -> None:
        self._ended = True
        self._put_back_to = setting
        self._finish()

    def _finish(self) -> None:
        """Put back what is to be put back, unless somebody else is at work, who then does it."""
        while self._put_back_to is not None and self._turn.acquire(blocking=False):
            try:
                setting, self._put_back_to = self._put_back_to, None
                for index, value in enumerate(setting()):
                    self._put_back(index, value)
            finally:
                self._turn.release()

    def _put_back(self, index: int, value: float) -> None:
        before = self._in_force[index]
        if same(before, value) or not self._is_one_as_set(index):
            return
        if self._put(index, value):
            self._note(self._record(index, before, value, TuningOutcome.UNDONE, "the tuner was told to end"))

    def _note(self, record: TuningRecord | None) -> None:
        if record is not None:
            self._journal.append(record)
            self._fresh.append(record)

    def _record(self, index: int, before: float, after: float, outcome: TuningOutcome, reason: str) -> TuningRecord:
        return TuningRecord(
            at_s=self._at_s, knob=self._knobs[index].name, before=before, after=after, outcome=outcome, reason=reason
        )


def _checked(knobs: Iterable[Knob]) -> tuple[Knob, ...]:
    if isinstance(knobs, Knob) or not isinstance(knobs, Iterable):
        msg = f"Tuner() got knobs={knobs!r}; expected a list of one or more Knob objects, such as Tuner([knob])"
        raise ConfigError(msg)
    checked = tuple(knobs)
    names = [knob.name for knob in checked if isinstance(knob, Knob)]
    if not names or len(set(names)) != len(checked):
        msg = f"Tuner() got knobs={list(checked)!r}; expected one or more Knob objects with different names"
        raise ConfigError(msg)
    return checked


def _axis(knob: Knob, value: float) -> Axis:
    if not knob.levels[0] <= value <= knob.levels[-1]:
        msg = (
            f"knob {knob.name!r} reads {value!r}; expected from {knob.levels[0]} to {knob.levels[-1]}: "
            "give it levels that include the value in force, or set it to one of them first"
        )
        raise KnobError(msg)
    return Axis(knob.name, knob.levels, value, lower_is_lighter=knob.lower_is_lighter, brown_out=knob.brown_out)
