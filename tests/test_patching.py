"""Layers are put on whole, and only ours are taken off, in any order."""

from __future__ import annotations

import functools
import sys
import types
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_inference import guard
from otel_inference.patching import Patches, Target

SOURCE = """
class Base:
    def inherited(self): return "inherited"

class Model(Base):
    def run(self): return "run"
    @classmethod
    def load(cls): return cls.__name__
    @staticmethod
    def version(): return "1"
"""
PATHS = ("Model.run", "Model.load", "Model.version", "Model.inherited")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The name of a library on the path that is not imported yet."""
    (tmp_path / "toy_library.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "toy_library"
    sys.modules.pop("toy_library", None)


def counting(seen, path):
    """A wrap that notes each call."""

    def wrap(original):
        @functools.wraps(original)
        def wrapper(*args):
            seen.append(path)
            return original(*args)

        return wrapper

    return wrap


def targets(seen, paths=PATHS, module="toy_library"):
    """Targets of the toy library."""
    return [Target(module=module, path=path, wrap=counting(seen, path)) for path in paths]


def test_waits_for_the_import(library):
    """Nothing is imported; what is imported later is patched then."""
    seen = []
    patches = Patches()
    patches.apply("a", targets(seen))
    assert library not in sys.modules

    import toy_library

    model = toy_library.Model()
    assert (model.run(), model.load(), model.version(), model.inherited()) == ("run", "Model", "1", "inherited")
    assert seen == list(PATHS)
    assert toy_library.Base().inherited() == "inherited"
    patches.revert("a")


def test_does_not_patch_after_a_revert(library):
    """An engine switched off before its library is imported leaves the library alone."""
    patches = Patches()
    patches.apply("a", targets([]))
    patches.revert("a")

    import toy_library

    assert not hasattr(toy_library.Model.run, "__wrapped__")


def test_applies_all_or_nothing(library, caplog):
    """One missing target leaves the whole set unpatched, with one line that names it, and no exception."""
    import toy_library

    before = dict(vars(toy_library.Model))
    errors = guard.error_counts().get("patching", 0)
    Patches().apply("a", targets([], ("Model.run", "Model.gone")))

    assert dict(vars(toy_library.Model)) == before
    assert guard.error_counts()["patching"] == errors + 1
    assert "Model.gone" in caplog.text
    guard._errors.clear()


def test_skips_what_is_optional(library):
    """An optional target that a version lacks does not keep the others from being patched."""
    import toy_library

    seen = []
    optional = Target(module=library, path="Model.newer", wrap=counting(seen, "newer"), optional=True)
    patches = Patches()
    patches.apply("a", [*targets(seen, ("Model.run",)), optional])

    toy_library.Model().run()
    assert seen == ["Model.run"]
    patches.revert("a")


def test_shares_a_layer(library):
    """Two holders of a target share one layer, which goes with the last of them."""
    import toy_library

    original = toy_library.Model.run
    seen = []
    patches = Patches()
    for holder in ("a", "b"):
        patches.apply(holder, targets(seen, ("Model.run",)))
    patches.revert("a")
    toy_library.Model().run()
    assert seen == ["Model.run"]
    patches.revert("b")

    assert toy_library.Model.run is original


OPERATIONS = st.lists(
    st.sampled_from(["import", "apply a", "apply b", "revert a", "revert b", "foreign on", "foreign off"]), max_size=14
)


class _World:
    """A toy library, our patches and somebody else's on top of or below them."""

    def __init__(self):
        self.module = types.ModuleType("toy_library")
        exec(SOURCE, self.module.__dict__)
        self.patches = Patches()
        self.foreign = []

    def do(self, operation):
        verb, _, who = operation.partition(" ")
        if verb == "apply":
            self.patches.apply(who, targets([], PATHS if who == "a" else PATHS[:2]))
        elif verb == "revert":
            self.patches.revert(who)
        elif verb == "import":
            sys.modules["toy_library"] = self.module
        else:
            self.wrap() if who == "on" else self.unwrap()

    def wrap(self):
        under = self.module.Model.run

        def foreign(self):
            return under(self)

        foreign.__wrapped__ = under
        self.foreign.append((foreign, under))
        self.module.Model.run = foreign

    def unwrap(self):
        """Take the last foreign layer off, as its owner would: only if it is outermost."""
        if self.foreign and vars(self.module.Model)["run"] is self.foreign[-1][0]:
            _, self.module.Model.run = self.foreign.pop()

    def tidy(self):
        """Everybody takes their layers off, from the outside in."""
        for _ in range(len(self.foreign) + 1):
            self.patches.revert("a")
            self.patches.revert("b")
            self.unwrap()


@settings(max_examples=200, deadline=None)
@given(operations=OPERATIONS)
def test_leaves_the_class_as_it_was(operations):
    """After any order of import, apply, revert and foreign patches, everything is back where it was."""
    world = _World()
    before = dict(vars(world.module.Model))
    try:
        for operation in operations:
            world.do(operation)
            assert world.module.Model().run() == "run"
        world.tidy()
        assert world.foreign == []
        assert dict(vars(world.module.Model)) == before
    finally:
        sys.modules.pop("toy_library", None)


def test_takes_the_import_under_way_in_another_thread(tmp_path, monkeypatch):
    """Applied while another thread is in the middle of the import, it waits and patches the whole module."""
    (tmp_path / "slow_library.py").write_text(
        "import slow_gate\nslow_gate.started.set()\nslow_gate.go_on.wait(10)\nclass Model:\n    def run(self): return 1\n"
    )
    (tmp_path / "slow_gate.py").write_text("import threading\nstarted, go_on = threading.Event(), threading.Event()\n")
    monkeypatch.syspath_prepend(tmp_path)
    import slow_gate

    importing = Thread(target=__import__, args=("slow_library",))
    importing.start()
    assert slow_gate.started.wait(10)
    seen = []
    patches = Patches()
    applying = Thread(target=patches.apply, args=("a", targets(seen, ("Model.run",), "slow_library")))
    applying.start()
    slow_gate.go_on.set()
    applying.join(10)
    importing.join(10)

    assert sys.modules["slow_library"].Model().run() == 1
    assert seen == ["Model.run"]
    patches.revert("a")
