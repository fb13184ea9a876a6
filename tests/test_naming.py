"""Names of models, given and derived."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_inference import ConfigError, name_model, naming
from otel_inference.naming import NameLimit, given_name, last_part, name_of


class Thing:
    """Something with an identity."""


def test_derives_once_and_prefers_the_given_name():
    """A name is derived once per object; a given one replaces it at once."""
    thing, derived = Thing(), []

    def derive(obj):
        derived.append(obj)
        return "derived"

    assert [name_of(thing, derive) for _ in range(3)] == ["derived"] * 3
    assert len(derived) == 1
    assert given_name(thing) is None
    name_model(thing, " ranker ")
    assert name_of(thing, derive) == given_name(thing) == "ranker"


def test_forgets_dead_objects():
    """Names do not outlive their objects, however many there are."""
    gc.collect()
    before = len(naming._named)
    for number in range(1000):
        name_model(Thing(), f"model {number}")
    gc.collect()

    assert len(naming._named) == before


def test_names_what_cannot_be_referenced_weakly():
    """Such an object is named anew each time, and cannot be given a name."""
    assert name_of((1, 2), lambda _: "pair") == "pair"
    with pytest.raises(ConfigError, match="tuple"):
        name_model((1, 2), "pair")


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_refuses_what_is_no_name(name):
    """A name has to be a non-empty string."""
    with pytest.raises(ConfigError, match="non-empty string"):
        name_model(Thing(), name)


def test_takes_the_last_part_of_a_local_path(tmp_path, monkeypatch):
    """A hub name stays whole; a path, absolute, relative or of a folder here, gives its last part."""
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    (tmp_path / "linked").symlink_to("org/model")
    assert last_part("linked") == "linked"
    assert last_part("HuggingFaceTB/SmolLM2") == "HuggingFaceTB/SmolLM2"
    assert [last_part(path) for path in (f"{tmp_path}/m/", "./ranker", "org/model")] == ["m", "ranker", "model"]


@given(names=st.lists(st.text(min_size=1, max_size=3)), limit=st.integers(1, 5))
def test_keeps_at_most_the_limit(names, limit):
    """At most `limit` names are kept; a name that was kept once is kept for ever."""
    admit = NameLimit(limit).admit
    admitted = [admit(name) for name in names]

    kept = list(dict.fromkeys(names))[:limit]
    assert admitted == [name if name in kept else "other" for name in names]
