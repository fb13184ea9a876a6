"""The report over spans that were really sampled: what it says is true of the calls of which most left no span."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry.exporter.otlp.json.file import FileSpanExporter
from tests.sampling.conftest import Service

from otel_inference import semconv
from otel_inference.cli.reading import read
from otel_inference.cli.report import figures

if TYPE_CHECKING:
    from pathlib import Path

CALLS, FAILED, SLOW = 8_000, 160, 160


@pytest.mark.parametrize("tail", [True, False], ids=["tail keep", "head only"])
def test_figures_of_sampled_spans_are_those_of_all_calls(tmp_path: Path, *, tail: bool) -> None:
    """At 10 % with and without tail keep, calls, errors and quantiles are right within what chance allows."""
    ours = Service(0.1, seed=11, tail=tail, boost_per_second=0.0, max_per_second=1000.0)
    for number in range(CALLS):
        ours.now_s += 0.01
        took_s = 0.2 if number % (CALLS // SLOW) == 0 else 0.01
        failing = {"fail": True, semconv.ERROR_TYPE: "KeyError"} if number % (CALLS // FAILED) == 1 else {}
        ours.call(took_s=took_s, **failing)
    path = tmp_path / "traces.jsonl"
    with path.open("w") as file:
        FileSpanExporter(stream=file).export(ours.exporter.get_finished_spans())

    (line,) = figures(read([path]).spans).calls

    assert line.spans < CALLS / 5
    assert line.calls == pytest.approx(CALLS, rel=0.15)
    assert line.errors == (FAILED if tail else pytest.approx(FAILED, rel=0.6))
    assert (line.p50_s, line.p90_s, line.p99_s) == (0.01, 0.01, 0.2)
