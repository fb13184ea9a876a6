"""A number of the host's program that may be changed while it runs: how to read it, set it, and which values it may take."""

from __future__ import annotations

import math
from numbers import Integral, Real
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final, Literal, TypeGuard

from otel_inference import guard
from otel_inference.errors import KnobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MOST_LEVELS: Final = 1000
_USUAL_FACTOR: Final = 1.5
"""Between neighbouring levels of a logarithmic scale."""


class Knob:
    """One parameter, for a `Tuner` to find the best value of.

    Give either `levels`, or `low` and `high` and how they are divided. Getter and setter are the user's functions. They
    run on a thread of their own, one call at a time, and are given up after `timeout_s`. Values are numbers; the setter
    is only ever given levels and the value that was found at the start.

    Args:
        name: For the journal.
        get: Returns the value in force.
        set: Puts a value in force for the calls that begin afterwards.
        levels: Values to choose from.
        low: Least value, in place of `levels`.
        high: Largest value.
        step: Distance of neighbouring levels on the linear scale (default 1 between whole numbers, else needed); on the
            logarithmic scale their ratio (default 1.5).
        scale: `linear` or `log`. Between whole numbers all levels are whole.
        lower_is_lighter: Whether lower values make calls shorter: then a broken objective lowers it at once.
        brown_out: Whether lower values give up quality. They are then taken only while the objective is broken.
        timeout_s: Seconds that getter and setter may take.

    Raises:
        KnobError: If these mean nothing.

    Example:
        >>> settings = {"batch_size": 8}
        >>> knob = Knob("batch_size", lambda: settings["batch_size"],
        ...             lambda size: settings.update(batch_size=size), levels=[1, 2, 4, 8, 16])
        >>> knob.write(16); knob.read()
        16
    """

    def __init__(  # noqa: PLR0913 - each says one thing about the parameter
        self,
        name: str,
        get: Callable[[], float],
        set: Callable[[float], object],  # noqa: A002 - the word for it
        *,
        levels: Iterable[float] | None = None,
        low: float | None = None,
        high: float | None = None,
        step: float | None = None,
        scale: Literal["linear", "log"] = "linear",
        lower_is_lighter: bool = True,
        brown_out: bool = False,
        timeout_s: float = 5.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            msg = f"Knob() got name={name!r}; expected a non-empty string such as 'batch_size'"
            raise KnobError(msg)
        for role, function in (("get", get), ("set", set)):
            if not callable(function):
                msg = f"Knob({name!r}) got {role}={function!r}; expected a function"
                raise KnobError(msg)
        if not _is_number(timeout_s) or timeout_s <= 0:
            msg = f"Knob({name!r}) got timeout_s={timeout_s!r}; expected seconds greater than 0"
            raise KnobError(msg)
        self.name = name
        self.levels = _levels(name, levels) if levels is not None else _between(name, low, high, step, scale)
        self.lower_is_lighter = lower_is_lighter
        self.brown_out = brown_out
        self._get = get
        self._set = set
        self._timeout_s = timeout_s
        self._late: _Attempt | None = None

    def read(self) -> float:
        """The value in force.

        Raises:
            KnobError: If the getter raises, returns no number, or does not return in time.
        """
        value = self._run(self._get, "get()").value
        if not _is_number(value):
            msg = f"knob {self.name!r}: get() returned {value!r}; expected a finite number"
            raise KnobError(msg)
        return value

    def write(self, value: float) -> None:
        """Put a value in force, and make sure that it is.

        Args:
            value: From the least to the largest level.

        Raises:
            KnobError: If the value is outside the levels, or the setter raises, hangs, or sets something else. What was
                in force before is then put back, when the setter returns if it hangs; the message says what is in force.
        """
        if not self.levels[0] <= value <= self.levels[-1]:
            msg = f"knob {self.name!r} got {value!r}; expected from {self.levels[0]} to {self.levels[-1]}"
            raise KnobError(msg)
        before = self.read()
        try:
            self._put(value, before)
        except KnobError as error:
            msg = f"{error}; {self._put_back(before)}"
            raise KnobError(msg) from error

    def reset_after_fork(self) -> None:
        """Forget a setter that hangs: its thread does not exist in a forked child."""
        self._late = None

    def _put(self, value: float, before: float) -> None:
        self._run(lambda: self._set(value), f"set({value!r})", late=lambda: self._set(before))
        now = self.read()
        if not same(now, value):
            msg = f"knob {self.name!r}: get() returned {now!r} after set({value!r}); expected what was set"
            raise KnobError(msg)

    def _put_back(self, before: float) -> str:
        """Put the earlier value back after a failure; says what is in force now."""
        if self._late is not None:
            return f"{before!r} is put back when it returns, and until then the knob is left alone"
        try:
            if not same(self.read(), before):
                self._run(lambda: self._set(before), f"set({before!r})")
            now = self.read()
        except KnobError as error:
            return f"what is in force now is not known, since {error}"
        return (
            f"{now!r} is in force"
            if same(now, before)
            else f"{now!r} is in force, and {before!r} could not be put back"
        )

    def _run(self, function: Callable[[], object], what: str, late: Callable[[], object] | None = None) -> _Attempt:
        """Run a function of the user's on a thread of its own, for as long as it may take."""
        if self._late is not None and self._late.running:
            msg = f"knob {self.name!r}: {what} was not tried, for an earlier {self._late.what} has not returned yet"
            raise KnobError(msg)
        self._late = None
        attempt = _Attempt(function, what, late)
        try:
            finished = attempt.run(self._timeout_s, f"otel-inference-knob-{self.name}")
        except RuntimeError as error:
            msg = f"knob {self.name!r}: {what} was not tried, for no thread can be had ({error})"
            raise KnobError(msg) from error
        if not finished:
            self._late = attempt
            msg = f"knob {self.name!r}: {what} did not return within {self._timeout_s:g} s"
            raise KnobError(msg)
        if attempt.error is not None:
            msg = f"knob {self.name!r}: {what} raised {attempt.error!r}"
            raise KnobError(msg) from attempt.error
        return attempt


class _Attempt:
    """One run of a function that may raise or hang; if it comes too late, what it did is undone by `late`."""

    def __init__(self, function: Callable[[], object], what: str, late: Callable[[], object] | None) -> None:
        self.what = what
        self.value: object = None
        self.error: BaseException | None = None
        self.running = True
        self._function = function
        self._late = late
        self._lock = Lock()
        self._returned = self._given_up = False

    def run(self, timeout_s: float, thread_name: str) -> bool:
        """Run it; returns whether it came to its end in time."""
        thread = Thread(target=self._work, name=thread_name, daemon=True)
        thread.start()
        thread.join(timeout_s)
        with self._lock:
            self._given_up = not self._returned
        return self._returned

    def _work(self) -> None:
        try:
            self.value = self._function()
        except BaseException as error:  # noqa: BLE001 - it ends this thread, and is told to who asked
            self.error = error
        with self._lock:
            self._returned = True
            given_up = self._given_up
        if given_up and self._late is not None:
            with guard.guarded("knob"):
                self._late()
        self.running = False


def same(one: float, other: float) -> bool:
    """Whether two values of a knob are the same, rounding aside."""
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _levels(name: str, levels: Iterable[float]) -> tuple[float, ...]:
    given = list(levels)
    numbers = all(_is_number(level) for level in given)
    if not numbers or len(set(given)) < 2:  # noqa: PLR2004 - one level leaves no choice
        msg = f"Knob({name!r}) got levels={given!r}; expected two or more different numbers, such as [1, 2, 4, 8]"
        raise KnobError(msg)
    return tuple(sorted(set(given)))


def _between(name: str, low: float | None, high: float | None, step: float | None, scale: str) -> tuple[float, ...]:
    """Levels from `low` to `high`, both included."""
    given = f"Knob({name!r}) got low={low!r}, high={high!r}, step={step!r}, scale={scale!r}"
    if scale not in {"linear", "log"}:
        msg = f"{given}; expected scale='linear' or scale='log'"
        raise KnobError(msg)
    logarithmic = scale == "log"
    if not _is_number(low) or not _is_number(high) or low >= high or (logarithmic and low <= 0):
        msg = f"{given}; expected levels=[...], or numbers low < high, on the log scale greater than 0"
        raise KnobError(msg)
    whole = all(isinstance(number, Integral) for number in (low, high, 1 if logarithmic or step is None else step))
    step = _usual_step(logarithmic=logarithmic, whole=whole) if step is None else step
    if not _is_number(step) or step <= logarithmic:
        msg = f"{given}; expected a step greater than 0, or on the log scale a ratio greater than 1"
        raise KnobError(msg)
    count = math.log(high / low) / math.log(step) if logarithmic else (high - low) / step
    if count > _MOST_LEVELS:
        msg = f"{given}, which is {count:.0f} levels; expected at most {_MOST_LEVELS}: take a larger step"
        raise KnobError(msg)
    inner = [low * step**index if logarithmic else low + step * index for index in range(math.ceil(count - 1e-9))]
    return tuple(sorted({round(level) if whole else level for level in inner} | {high}))


def _usual_step(*, logarithmic: bool, whole: bool) -> float | None:
    if logarithmic:
        return _USUAL_FACTOR
    return 1 if whole else None
