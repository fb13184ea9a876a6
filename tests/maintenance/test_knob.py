"""Knobs: which descriptions are taken, and what setters that raise, lie or hang leave in force."""

from __future__ import annotations

from threading import Event
from threading import enumerate as enumerate_threads

import pytest

from otel_inference.errors import KnobError
from otel_inference.maintenance.knob import Knob


class _Plant:
    """A value, with a setter that does as it is told."""

    def __init__(self, value=4):
        self.value = value
        self.fault = None
        """Called with the value to set, in place of setting it, once."""

    def get(self):
        return self.value

    def set(self, value):
        fault, self.fault = self.fault, None
        self.value = value if fault is None else fault(value)

    def knob(self, **options):
        return Knob("size", self.get, self.set, levels=[1, 2, 4, 8], **options)


def _between(**options):
    return Knob("size", lambda: 1, lambda value: None, **options).levels


def _thread_of(name):
    return next(thread for thread in enumerate_threads() if thread.name == f"otel-inference-knob-{name}")


def test_writes_and_reads_in_three_lines():
    """A getter, a setter and levels make a knob."""
    plant = _Plant()
    knob = Knob("size", plant.get, plant.set, levels=[8, 4, 2])
    knob.write(2)

    assert (plant.value, knob.read(), knob.levels) == (2, 2, (2, 4, 8))


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ({"low": 1, "high": 4}, (1, 2, 3, 4)),
        ({"low": 1, "high": 10, "step": 4}, (1, 5, 9, 10)),
        ({"low": 0.0, "high": 1.0, "step": 0.5}, (0.0, 0.5, 1.0)),
        ({"low": 1, "high": 16, "scale": "log"}, (1, 2, 3, 5, 8, 11, 16)),
        ({"low": 1, "high": 16, "scale": "log", "step": 2}, (1, 2, 4, 8, 16)),
        ({"low": 0.5, "high": 2.0, "scale": "log", "step": 2}, (0.5, 1.0, 2.0)),
    ],
)
def test_divides_bounds_into_levels(options, levels):
    """Both bounds are levels; between whole numbers all levels are whole."""
    assert _between(**options) == levels
    assert [type(level) for level in _between(**options)] == [type(level) for level in levels]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "expected levels="),
        ({"levels": [8]}, "two or more different numbers"),
        ({"levels": [1, float("nan")]}, "two or more different numbers"),
        ({"levels": [True, 8]}, "two or more different numbers"),
        ({"low": 8, "high": 1}, "low < high"),
        ({"low": 0, "high": 1, "scale": "log"}, "greater than 0"),
        ({"low": 0.0, "high": 1.0}, "step greater than 0"),
        ({"low": 1, "high": 9, "step": 1, "scale": "log"}, "ratio greater than 1"),
        ({"low": 1, "high": 9, "scale": "cubic"}, "scale='log'"),
        ({"low": 1, "high": 10**9}, "take a larger step"),
        ({"levels": [1, 2], "timeout_s": 0}, "seconds greater than 0"),
    ],
)
def test_says_what_is_wrong_with_a_description(options, expected):
    """A knob that means nothing is an error that names it, what was given and what was expected."""
    with pytest.raises(KnobError, match=r"Knob\('size'\) got .*expected") as raised:
        _between(**options)
    assert expected in str(raised.value)


@pytest.mark.parametrize(("name", "setter"), [("", print), (None, print), ("size", None)])
def test_needs_a_name_and_functions(name, setter):
    """Without a name or a setter there is no knob."""
    with pytest.raises(KnobError, match="expected a"):
        Knob(name, lambda: 1, setter, levels=[1, 2])


@pytest.mark.parametrize("value", [0, 9])
def test_sets_nothing_outside_the_levels(value):
    """The bounds hold whoever asks."""
    plant = _Plant()
    with pytest.raises(KnobError, match="expected from 1 to 8"):
        plant.knob().write(value)
    assert plant.value == 4


def _raise(value):
    msg = f"no memory for {value}"
    raise MemoryError(msg)


def _exit(value):
    raise SystemExit(value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_raise, "raised MemoryError"),
        (_exit, "raised SystemExit"),
        (lambda value: value // 2 + 1, "expected what was set"),
    ],
)
def test_puts_the_old_value_back_when_the_setter_fails(fault, said):
    """After a setter that raised or set something else, what was before is in force, and the error says so."""
    plant = _Plant()
    plant.fault = fault
    with pytest.raises(KnobError, match=f"{said}.*; 4 is in force"):
        plant.knob().write(8)
    assert plant.value == 4


def test_undoes_a_setter_that_raised_half_way():
    """A value set before the exception is taken back too."""
    plant = _Plant()

    def half_way(value):
        plant.value = value
        _raise(value)

    plant.fault = half_way
    with pytest.raises(KnobError, match="4 is in force"):
        plant.knob().write(8)
    assert plant.value == 4


def test_says_when_the_old_value_cannot_be_put_back():
    """Where putting it back fails too, the error says what is in force."""
    values = iter([4, 7, 7, 7])
    with pytest.raises(KnobError, match="7 is in force, and 4 could not be put back"):
        Knob("size", lambda: next(values), lambda value: None, levels=[4, 8]).write(8)


def test_gives_up_a_setter_that_hangs():
    """A setter that does not return in time leaves the old value in force, and what it sets later is undone."""
    plant, released = _Plant(), Event()

    def hang(value):
        released.wait()
        return value

    plant.fault = hang
    knob = plant.knob(timeout_s=0.05)
    with pytest.raises(KnobError, match=r"set\(8\) did not return within 0.05 s; 4 is put back"):
        knob.write(8)
    with pytest.raises(KnobError, match="has not returned yet"):
        knob.write(2)
    assert plant.value == 4
    released.set()
    _thread_of("size").join()
    assert knob.read() == plant.value == 4
    knob.write(2)
    assert plant.value == 2


@pytest.mark.parametrize(
    ("get", "said"),
    [(lambda: "8", "returned '8'"), (lambda: 1 / 0, "raised ZeroDivision"), (lambda: True, "returned True")],
)
def test_says_when_a_getter_fails(get, said):
    """A getter must return a number."""
    with pytest.raises(KnobError, match=said):
        Knob("size", get, lambda value: None, levels=[1, 2]).read()


def test_forgets_a_hanging_setter_in_a_forked_child():
    """Its thread does not exist there, so that the knob can be used."""
    plant, released = _Plant(), Event()
    plant.fault = lambda value: released.wait() and value
    knob = plant.knob(timeout_s=0.01)
    with pytest.raises(KnobError):
        knob.write(8)
    knob.reset_after_fork()
    assert knob.read() == 4
    released.set()


def test_sets_nothing_when_no_thread_can_be_had(monkeypatch):
    """At a limit of threads, or while the interpreter ends, the value in force stays."""
    plant = _Plant()
    knob = plant.knob()

    def refuse(thread):
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(KnobError, match="no thread can be had"):
        knob.write(8)
    assert plant.value == 4


def test_says_when_it_is_not_known_what_is_in_force():
    """Where the getter fails after the setter did, the error says both."""
    plant, reads = _Plant(), iter([4])
    plant.fault = _raise
    with pytest.raises(KnobError, match=r"raised MemoryError.*what is in force now is not known.*StopIteration"):
        Knob("size", lambda: next(reads), plant.set, levels=[4, 8]).write(8)
