"""Objectives as users write them."""

from __future__ import annotations

import pytest

from otel_inference.objective import (
    ErrorObjective,
    LatencyObjective,
    parse_error_objective,
    parse_latency_objective,
)


@pytest.mark.parametrize(
    ("text", "ratio", "threshold_s"),
    [("0.99<0.5s", 0.99, 0.5), (" 0.9 < 250ms ", 0.9, 0.25), (".5<30us", 0.5, 3e-5), ("0.999<2s", 0.999, 2.0)],
)
def test_reads_a_latency_objective(text, ratio, threshold_s):
    """A share and a time in seconds, milli- or microseconds; blanks do not matter."""
    objective = parse_latency_objective(text)

    assert (objective.ratio, objective.threshold_s) == (ratio, pytest.approx(threshold_s))


@pytest.mark.parametrize(
    "text",
    ["", "0.99", "0.99<0.5", "0.99<0.5h", "99<1s", "1<1s", "0<1s", "0.9<0s", "0.9>1s", "0.9<1s!", "0.9.9<1s", "nan<1s"],
)
def test_says_what_a_latency_objective_looks_like(text):
    """What is no objective is refused with an example of one."""
    with pytest.raises(ValueError, match=r"such as 0\.99<0\.5s"):
        parse_latency_objective(text)


@pytest.mark.parametrize("text", ["", "1", "0", "99.9", "99.9%", "-0.5", "nan", "0,999"])
def test_says_what_an_error_objective_looks_like(text):
    """A share of calls lies between 0 and 1."""
    assert parse_error_objective(" 0.999 ") == ErrorObjective(ratio=0.999)
    with pytest.raises(ValueError, match=r"such as 0\.999"):
        parse_error_objective(text)


def test_refuses_objectives_in_code_too():
    """The same holds without text: a share, and a positive time."""
    with pytest.raises(ValueError, match="ratio is 1"):
        ErrorObjective(ratio=1.0)
    with pytest.raises(ValueError, match="threshold_s is 0"):
        LatencyObjective(ratio=0.9, threshold_s=0.0)
