"""The report: reading OTLP JSON, computing figures, printing them, saying what is wrong."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import pytest

from otel_inference.cli import reading as reading_module
from otel_inference.cli import table
from otel_inference.cli.main import main
from otel_inference.cli.reading import CallSpan, InputError, read
from otel_inference.cli.report import figures, quantile

if TYPE_CHECKING:
    from pathlib import Path

SECOND_NS = 1_000_000_000


def attribute(key: str, value: Any) -> dict[str, Any]:
    """An attribute as OTLP JSON has it: whole numbers are strings."""
    kind = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}[type(value)]
    return {"key": key, "value": {kind: str(value) if kind == "intValue" else value}}


def otlp_span(number: int, **attributes: Any) -> dict[str, Any]:
    """A span of one second that starts at second `number`, of model m unless said otherwise."""
    named = {"engine": "torch", "operation": "forward", "model": "m"} | attributes
    return {
        "traceId": "a" * 32,
        "spanId": f"{number:016x}",
        "name": "forward m",
        "startTimeUnixNano": str(number * SECOND_NS),
        "endTimeUnixNano": str((number + 1) * SECOND_NS),
        "attributes": [
            attribute(key if "." in key else f"inference.{key}", value)
            for key, value in named.items()
            if value is not None
        ],
        "status": {"code": 2} if "error.type" in named else {},
    }


def line(*spans: dict[str, Any]) -> str:
    """One export request with these spans."""
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": list(spans)}]}]}) + "\n"


def call(start_s: float, end_s: float, **facts: Any) -> CallSpan:
    """A call of model m from one second to another, unless said otherwise."""
    named = {"engine": "torch", "operation": "forward", "model": "m"} | facts
    return CallSpan(started_ns=round(start_s * 1e9), ended_ns=round(end_s * 1e9), **named)


class TestQuantile:
    """`quantile`."""

    @pytest.mark.parametrize(
        ("q", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
    )
    def test_is_a_value_that_was_measured(self, q: float, expected: float) -> None:
        """Of 1 to 100, each quantile is the order statistic of its rank, never something in between."""
        values = [(float(number), 1.0) for number in range(100, 0, -1)]

        assert expected == quantile(values, q)

    def test_of_one_value_is_that_value(self) -> None:
        """One value is every quantile of itself."""
        assert [quantile([(7.0, 3.0)], q) for q in (0.5, 0.9, 0.99)] == [7.0, 7.0, 7.0]

    def test_counts_each_value_by_its_weight(self) -> None:
        """A value that stands for nine of ten is the median and the 90th percentile, however few they are."""
        values = [(1.0, 9.0), (2.0, 0.5), (3.0, 0.5)]

        assert [quantile(values, q) for q in (0.5, 0.9, 0.95, 0.99)] == [1.0, 1.0, 2.0, 3.0]


class TestFigures:
    """`figures`."""

    def test_throughput_spans_first_start_to_last_end(self) -> None:
        """Four calls between second 10 and second 18 are half a call per second, whatever the gaps."""
        spans = [call(16, 18), call(10, 11), call(12, 13), call(12, 15)]

        (found,) = figures(spans).calls

        assert (found.calls, found.calls_per_s) == (4, 0.5)

    def test_latency_is_of_all_calls(self) -> None:
        """Failed calls count as calls, as errors and in the quantiles."""
        spans = [call(0, 1), call(1, 3), call(3, 6), call(6, 10, error_type="ValueError")]

        (found,) = figures(spans).calls

        assert (found.calls, found.errors) == (4, 1)
        assert (found.p50_s, found.p90_s, found.p99_s) == (2.0, 4.0, 4.0)

    def test_tokens_are_counted_over_generating_time_only(self) -> None:
        """30 tokens in 3 seconds are 10 per second, though a failed call took 7 more."""
        spans = [
            call(0, 1, output_tokens=10, time_to_first_token_s=0.3),
            call(1, 3, output_tokens=20, time_to_first_token_s=0.1),
            call(3, 10, error_type="ValueError"),
        ]

        (found,) = figures(spans).calls

        assert (found.tokens_per_s, found.time_to_first_token_s) == (10.0, 0.1)

    def test_what_generates_nothing_has_no_token_figures(self) -> None:
        """Calls without output tokens have neither tokens per second nor a first token."""
        (found,) = figures([call(0, 1)]).calls

        assert (found.tokens_per_s, found.time_to_first_token_s) == (None, None)

    def test_calls_in_no_time_have_no_throughput(self) -> None:
        """A single call whose start and end are one instant is not infinitely fast."""
        (found,) = figures([call(1, 1)]).calls

        assert found.calls_per_s is None

    def test_models_operations_and_engines_are_apart(self) -> None:
        """Each combination of model, operation and engine has a line, in order of their names."""
        spans = [
            call(0, 1, model="b"),
            call(0, 1, model="a", operation="run", engine="onnxruntime"),
            call(0, 1, model="a", operation="run"),
        ]

        lines = [(found.model, found.operation, found.engine) for found in figures(spans).calls]

        assert lines == [("a", "run", "onnxruntime"), ("a", "run", "torch"), ("b", "forward", "torch")]

    def test_loads_are_no_calls(self) -> None:
        """Loads are listed apart with the longest of them, and do not count as calls."""
        spans = [call(0, 2, operation="load"), call(3, 8, operation="load"), call(9, 10)]

        found = figures(spans)

        assert [line.calls for line in found.calls] == [1]
        assert [(line.loads, line.errors, line.longest_s) for line in found.loads] == [(2, 0, 5.0)]

    def test_errors_are_counted_by_type(self) -> None:
        """Each type of error of a model's operation has its count."""
        spans = [call(0, 1, error_type=kind) for kind in ("KeyError", "ValueError", "KeyError")]

        found = figures(spans).errors

        assert [(line.error_type, line.count) for line in found] == [("KeyError", 2), ("ValueError", 1)]

    def test_spans_count_for_what_they_stand_for(self) -> None:
        """One call in ten kept, and every failed one, give the calls, errors, latency and tokens of them all."""
        sampled = [call(second, second + 1, weight=10.0, output_tokens=2) for second in range(9)]
        failed = [call(80 + second, 85 + second, error_type="KeyError") for second in range(10)]
        came_along = call(50, 60, weight=0.0, error_type="KeyError", model="other")

        found = figures([*sampled, *failed, came_along])
        (line,) = found.calls

        assert (line.spans, line.calls, line.errors) == (19, 100, 10)
        assert (line.p50_s, line.p90_s, line.p99_s, line.tokens_per_s) == (1.0, 1.0, 5.0, 2.0)
        assert [(error.error_type, error.count) for error in found.errors] == [("KeyError", 10)]
        assert found.is_estimate

    def test_all_calls_are_no_estimate(self) -> None:
        """Where each span stands for itself, figures are counts."""
        assert not figures([call(0, 1), call(1, 2, weight=0.0)]).is_estimate


class TestRead:
    """`read`."""

    def test_takes_what_the_span_says(self, tmp_path: Path) -> None:
        """Names, stamps, error, tokens and first token are the span's own."""
        span = otlp_span(
            5,
            **{
                "error.type": "KeyError",
                "gen_ai.usage.output_tokens": 12,
                "inference.time_to_first_token": 0.25,
            },
        )
        file = tmp_path / "spans"
        file.write_text(line(span))

        expected = call(5, 6, error_type="KeyError", output_tokens=12, time_to_first_token_s=0.25)

        assert read([file]).spans == [expected]

    @pytest.mark.parametrize(
        ("adjusted_count", "state", "expected"),
        [
            (None, "", 1.0),
            (None, "ot=th:0", 1.0),
            (None, "vendor=x, ot=rv:0123456789abcd;th:c", 4.0),
            (None, "ot=th:fd70a3d70a3d70", 100.0),
            (None, "ot=th:nonsense,th=c", 1.0),
            (1.0, "ot=th:c", 1.0),
            (0.0, "", 0.0),
            (7.5, "", 7.5),
        ],
    )
    def test_takes_what_a_span_stands_for(
        self, tmp_path: Path, adjusted_count: float | None, state: str, expected: float
    ) -> None:
        """Its adjusted count goes before its threshold, and a span without either stands for itself."""
        counted = {"inference.sampling.adjusted_count": adjusted_count}
        (tmp_path / "spans.jsonl").write_text(line(otlp_span(0, **counted) | {"traceState": state}))

        (span,) = read([tmp_path]).spans

        assert span.weight == pytest.approx(expected)

    def test_a_failed_span_without_type_is_still_failed(self, tmp_path: Path) -> None:
        """The status decides whether a call failed; its type may be unknown."""
        file = tmp_path / "spans.jsonl"
        file.write_text(line(otlp_span(0) | {"status": {"code": "STATUS_CODE_ERROR"}}))

        (span,) = read([file]).spans

        assert span.error_type == "unknown"

    def test_passes_over_metrics_and_foreign_spans(self, tmp_path: Path) -> None:
        """Lines of metrics, empty lines and spans of others are not calls, and nothing is broken."""
        metrics = json.dumps({"resourceMetrics": []}) + "\n\n"
        (tmp_path / "all.jsonl").write_text(metrics + line(otlp_span(0), otlp_span(1, model=None)))

        reading = read([tmp_path])

        assert (len(reading.spans), reading.other_spans, dict(reading.broken_lines)) == (1, 1, {})

    @pytest.mark.parametrize(
        "broken",
        [
            '{"resourceSpans":[{"scopeSp',
            "not json at all",
            "[1, 2]",
            '{"resourceSpans": 3}',
            '{"resourceSpans": ["text"]}',
            line(otlp_span(3) | {"startTimeUnixNano": "soon"}).strip(),
            line(otlp_span(3) | {"attributes": [{"value": {}}]}).strip(),
            line(otlp_span(3, **{"inference.sampling.adjusted_count": -1})).strip(),
            line(otlp_span(3, **{"inference.sampling.adjusted_count": "many"})).strip(),
        ],
    )
    def test_counts_broken_lines_and_goes_on(self, tmp_path: Path, broken: str) -> None:
        """A line that is not an export request costs itself, and not the lines around it."""
        file = tmp_path / "spans.jsonl"
        file.write_text(line(otlp_span(0)) + broken + "\n" + line(otlp_span(1)))

        reading = read([file])

        assert (len(reading.spans), dict(reading.broken_lines)) == (2, {file: 1})

    def test_reads_each_span_once(self, tmp_path: Path) -> None:
        """A file given twice, and a span exported twice, count once."""
        (tmp_path / "a.jsonl").write_text(line(otlp_span(0)))
        (tmp_path / "b.json").write_text(line(otlp_span(0), otlp_span(1)))

        reading = read([tmp_path, tmp_path / "a.jsonl"])

        assert (len(reading.spans), reading.files) == (2, 2)

    def test_a_missing_path_is_named(self, tmp_path: Path) -> None:
        """The message has the path and what is expected there."""
        with pytest.raises(InputError, match=r"nowhere does not exist; expected a file of OTLP JSON"):
            read([tmp_path / "nowhere"])

    def test_a_folder_without_files_is_named(self, tmp_path: Path) -> None:
        """A folder with files of other kinds only is refused with what is looked for."""
        (tmp_path / "notes.txt").write_text("hello")

        with pytest.raises(InputError, match=r"is a folder without \.jsonl or \.json files"):
            read([tmp_path])

    def test_a_file_that_cannot_be_opened_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file without permission is one clear message."""
        file = tmp_path / "spans.jsonl"
        file.write_text(line(otlp_span(0)))

        def refuse(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(reading_module, "_read_file", refuse)
        with pytest.raises(InputError, match=r"spans\.jsonl cannot be read \(Permission denied\)"):
            read([file])


class TestTable:
    """`table`."""

    @pytest.mark.parametrize(
        ("seconds", "expected"),
        [(123.4, "123 s"), (9.996, "10.0 s"), (0.9996, "1000 ms"), (0.001, "1.00 ms"), (0.0, "0.00 us"), (None, "-")],
    )
    def test_durations_have_a_suitable_unit(self, seconds: float | None, expected: str) -> None:
        """Three digits and a unit."""
        assert expected == table.duration(seconds)


class TestMain:
    """`otel-inference report`."""

    def test_prints_a_line_per_model(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Calls, loads and errors are printed with their figures, each on one line."""
        failed = otlp_span(1, **{"error.type": "KeyError"})
        generated = otlp_span(
            2,
            model="a" * 30,
            operation="generate",
            **{"gen_ai.usage.output_tokens": 12, "inference.time_to_first_token": 0.25},
        )
        loaded = otlp_span(3, operation="load")
        (tmp_path / "traces.jsonl").write_text(line(otlp_span(0), failed, generated, loaded))

        code = main(["report", str(tmp_path)])
        printed = [" ".join(text.split()) for text in capsys.readouterr().out.splitlines()]

        assert code == 0
        assert "m forward 2 1 1.00 1.00 s 1.00 s 1.00 s - -" in printed
        assert "a" * 30 + " generate 1 0 1.00 1.00 s 1.00 s 1.00 s 12.0 250 ms" in printed
        assert "m torch 1 0 1.00 s" in printed
        assert "m forward KeyError 1" in printed

    def test_says_when_figures_are_estimates(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Sampled spans are said to be, with how many there are; a span in a trace of four stands for four calls."""
        (tmp_path / "traces.jsonl").write_text(line(otlp_span(0) | {"traceState": "ot=th:c"}))

        code = main(["report", str(tmp_path)])
        printed = [" ".join(text.split()) for text in capsys.readouterr().out.splitlines()]

        assert code == 0
        assert "Calls, estimated from sampled spans" in printed
        assert "m forward 1 4 0 4.00 1.00 s 1.00 s 1.00 s - -" in printed

    def test_spans_that_only_came_along_are_nothing_to_report(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Spans that stand for no call give no figures, and that is said."""
        came_along = otlp_span(0, **{"inference.sampling.adjusted_count": 0})
        (tmp_path / "traces.jsonl").write_text(line(came_along))

        assert main(["report", str(tmp_path)]) == 1
        assert "no call of a model" in capsys.readouterr().err

    def test_says_which_lines_were_broken(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Broken lines are a message beside the report, which is still printed."""
        (tmp_path / "traces.jsonl").write_text(line(otlp_span(0)) + "half a li\nne\n")

        code = main(["report", str(tmp_path)])
        captured = capsys.readouterr()

        assert (code, "forward" in captured.out) == (0, True)
        assert "traces.jsonl: passed over 2 lines; expected one OTLP JSON export request per line" in captured.err

    def test_finding_nothing_is_a_failure(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Files without calls of a model give exit code 1 and say where to look."""
        (tmp_path / "traces.jsonl").write_text(line(otlp_span(0, model=None)))

        code = main(["report", str(tmp_path)])

        assert code == 1
        assert "(1 files read, 1 other spans)" in capsys.readouterr().err

    def test_a_missing_path_is_wrong_use(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A path that is not there gives exit code 2 and one line."""
        code = main(["report", str(tmp_path / "nowhere")])
        error = capsys.readouterr().err

        assert (code, error.count("\n")) == (2, 1)
        assert "nowhere does not exist" in error

    def test_without_rich_says_what_to_install(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The extra is named, in one line, with exit code 2."""
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

        code = main(["report", str(tmp_path)])
        error = capsys.readouterr().err

        assert (code, error.count("\n")) == (2, 1)
        assert "pip install 'otel-inference[report]'" in error

    @pytest.mark.parametrize(("arguments", "expected"), [([], 2), (["report"], 2), (["--help"], 0), (["--version"], 0)])
    def test_arguments_are_checked(self, arguments: list[str], expected: int) -> None:
        """Missing arguments end with exit code 2; help and version with 0."""
        with pytest.raises(SystemExit) as ended:
            main(arguments)

        assert expected == ended.value.code
