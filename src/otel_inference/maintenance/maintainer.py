"""The one maintainer of the process: callbacks are registered with it at any time, the runtime starts and stops it.

Three kinds of threads meet here. Whoever evaluates hands over what is open (`notice`) and goes on at
once. The maintainer's own thread decides, runs and judges (`runner`). Each action runs on a thread of
its own, so that one that hangs holds up nothing (`execution`). The threads of the host's calls are
none of them.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_inference import guard
from otel_inference.errors import ConfigError
from otel_inference.maintenance.action import COOLDOWN_S, MAX_PER_HOUR, TIMEOUT_S, Action, kind_of, unknown
from otel_inference.maintenance.execution import Execution
from otel_inference.maintenance.journal import Journal
from otel_inference.maintenance.kill_switch import KillSwitch, is_armed
from otel_inference.maintenance.policy import Mode, mode_of
from otel_inference.maintenance.registration import Actions
from otel_inference.maintenance.runner import Histories, Runner, Surroundings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.trace import Tracer

    from otel_inference.finding import Finding, FindingKind
    from otel_inference.health.snapshot import ModelHealth
    from otel_inference.maintenance.action import MaintenanceEvent
    from otel_inference.maintenance.journal import JournalEntry
    from otel_inference.resources.reading import Reading

    _Callback = TypeVar("_Callback", bound="Callable[[MaintenanceEvent], Any]")

_log = logging.getLogger("otel_inference")

THREAD_NAME: Final = "otel-inference-maintenance"
_MAX_READINGS: Final = 60
_READINGS_S: Final = 30.0
"""Age up to which readings of the machine are averaged."""


class Maintainer:
    """Does something about findings, guarded. One a process: `maintainer` in this module."""

    def __init__(self) -> None:
        self._actions = Actions()
        self._journal = Journal()
        self._histories = Histories()
        self._kill_switch = KillSwitch(self._toggle)
        self._configured = Mode.ACT
        self._chosen: Mode | None = None
        self._killed = self._said_killed = False
        self._runner: Runner | None = None
        self._running = False
        self._reading: Callable[[], Reading | None] = lambda: None
        self._readings: deque[Reading] = deque(maxlen=_MAX_READINGS)
        self._clock = monotonic
        self._open: tuple[Finding, ...] = ()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._starting = Lock()
        self._wakes: SimpleQueue[None] = SimpleQueue()
        """Unlike an event it may be told from a signal handler that interrupted whoever tells it."""
        self._thread: Thread | None = None

    # What is to be done

    def on(
        self,
        kind: FindingKind | str,
        *,
        model: str | None = None,
        cooldown: float = COOLDOWN_S,
        max_per_hour: int = MAX_PER_HOUR,
        timeout: float = TIMEOUT_S,
        undo: Callable[[MaintenanceEvent], Any] | None = None,
    ) -> Callable[[_Callback], _Callback]:
        """Register the decorated function as a maintenance callback, before or after `instrument()`.

        It is called with the event (`event.finding`, `event.health`, `event.journal`) when a finding of
        that kind opens, and while that stays open again after each cool-down: on a thread of its own,
        one callback at a time, never on the path of a call.

        Args:
            kind: A `FindingKind`, or its name: `saturation`, `stall` and so on.
            model: Only findings of this model; default: of any, and of the whole process.
            cooldown: Shortest time between two runs about the same finding, in seconds.
            max_per_hour: Most runs in an hour.
            timeout: Longest time that a run is waited for, in seconds; it is disabled while it goes on after that.
            undo: Called with the same event when health is worse after the run than before it.

        Raises:
            ConfigError: If a value means nothing.
        """

        def register(run: _Callback) -> _Callback:
            action = Action(
                name="unnamed",
                kind=kind,
                run=run,
                model=model,
                undo=undo,
                cooldown_s=cooldown,
                max_per_hour=max_per_hour,
                timeout_s=timeout,
            )
            former = self._actions.forget_former_self(run)
            action = replace(action, name=self._actions.name_for(run))
            if former:  # it may have been mended
                self._histories.of(action.name).history.enable()
            self.add(action)
            return run

        kind_of(kind)  # here rather than when the decorator is applied, where the traceback says less
        return register

    def add(self, action: Action) -> None:
        """Register an action, in place of one with the same name and trigger."""
        self._actions.add(action)
        if is_armed():  # under the launcher the program is instrumented before it registers anything
            self._kill_switch.install()

    def remove(self, name: str) -> bool:
        """Forget an action with all its triggers; returns whether there was one."""
        return self._actions.remove(name)

    def enable(self, name: str) -> None:
        """Let an action run again that was disabled after failures or harm.

        Raises:
            ConfigError: If there is none of that name.
        """
        names = [action.name for action in self._actions.current()]
        if name not in names:
            raise ConfigError(unknown("action", name, sorted(set(names))))
        self._histories.of(name).history.enable()

    def actions(self) -> tuple[Action, ...]:
        """What is registered, in order."""
        return self._actions.current()

    def journal(self) -> tuple[JournalEntry, ...]:
        """What maintenance did and why it did not do more, newest last."""
        return self._journal.entries()

    # Whether it may be done

    @property
    def mode(self) -> Mode:
        """What maintenance may do now."""
        if self._killed:
            return Mode.OFF
        return self._configured if self._chosen is None else self._chosen

    def set_mode(self, mode: Mode | str) -> None:
        """Choose what maintenance may do from now on, whatever the configuration says; an action under way goes on.

        Raises:
            ConfigError: If there is no such mode.
        """
        self._chosen = mode_of(mode)
        self._killed = False

    def install_kill_switch(self) -> bool:
        """Have SIGUSR2 switch maintenance off, and on again, until `stop`.

        Returns:
            Whether it does: not where the host uses that signal, nor when called outside the main thread.
        """
        return self._kill_switch.install()

    def _toggle(self) -> None:
        """Runs in a signal handler."""
        self._killed = not self._killed

    # When it is done

    def start(
        self,
        mode: Mode | str,
        *,
        health: Callable[[str | None], ModelHealth | Mapping[str, ModelHealth] | None],
        tracer: Tracer,
        report: Callable[[JournalEntry], None] = lambda _: None,
        reading: Callable[[], Reading | None] = lambda: None,
        window_s: float = 60.0,
        journal_path: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Begin to act on what `notice` is told. No thread begins before there is something to do.

        Args:
            mode: What it may do, unless `set_mode` has chosen otherwise.
            health: Health of the model of that name, or with `None` of every model by name.
            tracer: Makes the spans.
            report: Told of every entry of the journal, and again of each that was judged.
            reading: The machine's last reading.
            window_s: Width of the health window; a run is judged when its width has passed.
            journal_path: File that entries are appended to as lines of JSON; default: none.
            clock: Monotonic seconds, as readings are stamped with.

        Raises:
            ConfigError: If there is no such mode.
        """
        self._configured = mode_of(mode)
        self._journal.path = None if journal_path is None else Path(journal_path)
        self._reading = reading
        self._readings.clear()
        self._clock = clock
        surroundings = Surroundings(
            health=health,
            tracer=tracer,
            report=report,
            readings=self._recent_readings,
            window_s=window_s,
            clock=clock,
        )
        self._open = ()
        self._runner = Runner(surroundings, self._journal, self._histories, lambda: self.mode)
        self._running = True

    def stop(self, timeout_s: float = 1.0) -> None:
        """Begin nothing more, and end the thread; an action under way is left to end by itself. Idempotent.

        Args:
            timeout_s: How long to wait for an action under way.
        """
        self._running = False
        self._open = ()
        self._kill_switch.remove()
        self._killed = self._said_killed = False
        thread, here = self._thread, current_thread()
        if thread is not None and thread.is_alive():
            self._wakes.put(None)
            if here is not thread and not isinstance(here, Execution):
                thread.join(timeout_s)

    def notice(self, findings: Iterable[Finding]) -> None:
        """Take in what is open now, after each evaluation; hands it to the thread and returns at once.

        It calls nothing of the host's, takes no lock that could be held for long, and may be called
        from any thread, also from a callback.
        """
        runner = self._runner
        if not self._running or runner is None:
            return
        self._open = tuple(findings)
        self._tell_of_kill_switch()
        actions = self._actions.current()
        if not actions:
            return
        reading = self._reading()
        if reading is not None and (not self._readings or self._readings[-1] is not reading):
            self._readings.append(reading)
        if any(action.matches(finding) for finding in self._open for action in actions):
            self._wake()

    def reset_after_fork(self) -> None:
        """Begin anew in a forked child: actions, mode and file stay, runs and their history are the parent's."""
        self._begin_anew()
        self._actions.reset_after_fork()
        self._journal.reset_after_fork()
        self._histories.reset_after_fork()
        self._open = ()
        self._readings.clear()
        if self._runner is not None:
            self._runner.reset_after_fork()

    def _recent_readings(self) -> tuple[Reading, ...]:
        since_s = self._clock() - _READINGS_S
        return tuple(reading for reading in list(self._readings) if reading.at_s >= since_s)

    def _wake(self) -> None:
        """Have the thread look, which begins with the first time."""
        if self._wakes.empty():
            self._wakes.put(None)
        if self._thread is not None and self._thread.is_alive():
            return
        if not self._starting.acquire(blocking=False):
            return  # another thread is at it
        try:
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._serve, name=THREAD_NAME, daemon=True)
                self._thread.start()
        except RuntimeError:  # no thread can be had: at exit, or at a limit of the system
            self._thread = None
            guard.dropped("maintenance")
        finally:
            self._starting.release()

    def _serve(self) -> None:
        while self._running:
            runner = self._runner
            with suppress(Empty):  # something has settled
                self._wakes.get(timeout=None if runner is None else runner.wait_s())
            if self._running:
                self._step()

    def _step(self) -> None:
        runner = self._runner
        if runner is not None:
            with guard.guarded("maintenance"):
                runner.step(self._actions.current, lambda: self._open)

    def _tell_of_kill_switch(self) -> None:
        """Log what the signal handler may not."""
        if self._killed is not self._said_killed:
            self._said_killed = self._killed
            _log.warning("maintenance was switched %s by SIGUSR2", "off" if self._killed else "on again")


# Once a process: a module that is loaded again keeps the maintainer, its actions and its thread.
maintainer: Maintainer = globals().get("maintainer") or Maintainer()
on = maintainer.on
journal = maintainer.journal
