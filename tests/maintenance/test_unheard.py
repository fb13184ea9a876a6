"""What was asked for a model that makes no calls is not passed over in silence."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from otel_inference.maintenance.unheard import Unheard


@pytest.fixture
def said(caplog):
    """Returns the warnings so far."""
    caplog.set_level(logging.WARNING, logger="otel_inference")
    return lambda: caplog.messages


def test_a_name_that_is_spelt_otherwise_is_told_once(said):
    """With the name that was meant, and those that there are, the most called first."""
    unheard = Unheard()
    for _ in range(3):
        unheard.notice([("limit()", "Rankr")], {"minilm": 10, "ranker": 1000})

    (told,) = said()
    assert told == (
        "limit() was asked for the model 'Rankr', of which no call has been seen (did you mean ranker?);"
        " the models that are called: 'ranker', 'minilm'"
    )


def test_many_models_are_not_all_named(said):
    """A line of a log is no list of a hundred models."""
    Unheard().notice([("tune()", "x")], {f"model-{number}": 100 + number for number in range(100)})

    assert said()[0].endswith("'model-99', 'model-98', 'model-97', 'model-96', 'model-95', ...")


@pytest.mark.parametrize("calls", [{"minilm": 999}, {"minilm": 10**6, "ranker": 1}, {}])
def test_nothing_is_said_while_it_may_come_or_when_it_came(said, calls):
    """A process that has just begun, and a model that is seldom called, are as they should be."""
    Unheard().notice([("limit()", "ranker")], calls)

    assert not said()


def test_a_program_is_told_of_each_way_to_ask():
    """A limiter, a tuner, a callback and an objective of models that do not exist, in a process that serves another."""
    program = """
import logging, otel_inference
from otel_inference import AdaptiveLimiter, Config, Knob, Tuner
from otel_inference.maintenance.asgi import OverloadMiddleware
logging.basicConfig(level=logging.WARNING, format="%(message)s")
value = [4]
knob = Knob("k", lambda: value[0], lambda new: value.__setitem__(0, new), levels=[4, 8])
otel_inference.on("stall", model="no-callback")(print)
otel_inference.limit("no-limit", AdaptiveLimiter())
otel_inference.tune("no-tuner", Tuner([knob], slo_p95_s=1.0))
OverloadMiddleware(None, models={"/rank": "no-path"})
otel_inference.instrument(config=Config(slo_errors={"no-objective": "0.99"}, resources=False))
rank = otel_inference.observe("ranker")(sum)
for _ in range(1100):
    rank([1])
otel_inference.evaluate()
otel_inference.evaluate()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    told = sorted(line for line in done.stderr.splitlines() if "no call has been seen" in line)
    assert [line.split(",")[0] for line in told] == [
        "an objective was asked for the model 'no-objective'",
        "limit() was asked for the model 'no-limit'",
        "models= of OverloadMiddleware was asked for the model 'no-path'",
        "on() was asked for the model 'no-callback'",
        "tune() was asked for the model 'no-tuner'",
    ], done.stderr
