"""`docs/scale.md`: its calculations are right, and its figures are those of a process measured now."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from tests.collector_config import names
from tests.collector_config.collector import merged

from otel_inference import semconv
from otel_inference.finding import FindingKind, Severity
from otel_inference.maintenance.journal import Outcome

PAGE = (names.ROOT.parent / "docs" / "scale.md").read_text()
CALCULATIONS = [each for each in re.findall(r"`([^`\n]+)`", PAGE) if re.fullmatch(r"[(\d].* = \d[\d.,]*( \S+)?", each)]
UNITS = {
    "bytes": 1,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "million": 1e6,
    "s": 1,
    "ms": 1e-3,
    "us": 1e-6,
    "h": 3600,
}
TERM = re.compile(r"(\d[\d.,]*)(?: ([A-Za-z]+)(?:/s)?)?(?![\w.])")


def value(expression):
    """The number that an expression with units comes to, in bytes and seconds."""

    def number(match):
        unit = match[2] if match[2] in UNITS else None
        rest = "" if unit or not match[2] else f" {match[2]}"
        return f"({float(match[1].replace(',', ''))} * {UNITS.get(unit, 1)}){rest}"

    result = eval(TERM.sub(number, expression).replace(" x ", " * "))
    assert isinstance(result, float)
    return result


def rounding(result):
    """By what share a result may be off for being written with so few digits; never by more than 5 %."""
    digits = re.match(r"[\d.,]+", result)[0].replace(",", "")
    significant = digits.replace(".", "").strip("0") or "1"
    return min(0.501 / int(significant), 0.05)


def measured(pattern):
    """A figure of the page, by the text around it."""
    return float(re.search(pattern, PAGE)[1].replace(",", ""))


def duration(pattern):
    """A figure of the page in seconds, as the Collector's files write it."""
    return f"{measured(pattern):.0f}s"


@pytest.mark.parametrize("calculation", CALCULATIONS)
def test_a_calculation_comes_to_what_it_says(calculation):
    """What stands on the left, with its units, is what stands on the right, but for its rounding."""
    left, _, right = calculation.partition(" = ")
    assert value(left) == pytest.approx(value(right), rel=rounding(right))


def test_calculations_are_found_and_a_wrong_one_is_noticed():
    """The page's calculations are seen as such, and a result that is off by a unit does not pass."""
    assert len(CALCULATIONS) > 40
    assert value("13.3 kB / 15 s x 10,000") == pytest.approx(13_300 / 15 * 10_000)
    assert value("10,000 x 15 us") == pytest.approx(0.15)
    assert value("8.9 MB/s") != pytest.approx(value("8.9 kB/s"))


@pytest.fixture(scope="module")
def process():
    """What one process gives, measured now: figures of `measure.py` by what they are of."""
    command = [sys.executable, str(names.ROOT / "measure.py")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    points, series = re.search(r"^all +(\d+) +(\d+)$", said, re.MULTILINE).groups()
    export, zipped = re.search(r"one export: (\d+) bytes, (\d+) with gzip", said).groups()
    spans = dict(re.findall(r"^span, (\w+).*?: (\d+) bytes", said, re.MULTILINE))
    return {"points": points, "series": series, "export": export, "zipped": zipped, **spans}


@pytest.mark.parametrize(
    ("what", "pattern", "unit"),
    [
        ("points", r"data points of one export of metrics \| (\d+) ", 1),
        ("series", r"\| (\d+) series", 1),
        ("export", r"with exemplars \| ([\d.]+) kB", 1e3),
        ("zipped", r"kB; ([\d.]+) kB with gzip", 1e3),
        ("forward", r"a span of a `forward` \| (\d+) bytes", 1),
        ("generation", r"`gen_ai` attributes \| (\d+) bytes", 1),
        ("failed", r"with its stack \| about ([\d.]+) kB", 1e3),
    ],
)
def test_a_process_gives_what_the_page_says(process, what, pattern, unit):
    """Counts are exact; sizes are within a tenth, with gzip within a fifth, as exemplars and stacks differ."""
    within = 0.2 if what == "zipped" else 0.1 if unit > 1 else 0.02
    assert float(process[what]) == pytest.approx(measured(pattern) * unit, rel=within)


def test_what_bounds_attributes_is_what_there_is():
    """The numbers of kinds, severities and outcomes are those of the package, and so are the buckets."""
    assert (len(FindingKind), len(Severity), len(Outcome)) == (9, 3, 7)
    assert "| `kind`, `severity` | nine, three |" in PAGE
    assert "| `action`, `outcome` | what is registered; seven |" in PAGE
    assert len(semconv.CALL_SECONDS) + 3 == measured(r"`inference.call.duration` \| (\d+)")
    assert len(semconv.BATCH_ITEMS) + 3 == measured(r"`inference.batch.size` \| (\d+)")


def test_the_page_counts_with_the_numbers_of_the_files():
    """Waits, sizes and limits on the page are those that the Collectors run with."""
    queue = merged(["agent.yaml"])["exporters"]["otlp"]["sending_queue"]
    assert queue["queue_size"] == measured(r"holds (\d+) MB of each signal") * 1e6
    objects = merged(["agent.yaml", "overlays/objects-agent.yaml"])["exporters"]["awss3/metrics"]["sending_queue"][
        "batch"
    ]
    assert objects["flush_timeout"] == duration(r"when (\d+) s have passed")
    assert objects["min_size"] == measured(r"have passed or (\d+) MB") * 1e6
    straight = merged(["gateway.yaml"])["processors"]["tail_sampling"]
    assert straight["num_traces"] == measured(r"300,000 / 3 = ([\d,]+)")
    assert straight["decision_wait"] == duration(r"10,000 x (\d+) s = 300,000")
    cached = measured(r"`2 x ([\d,]+) x 118 bytes = 236 MB`")
    assert straight["decision_cache"] == {"sampled_cache_size": cached, "non_sampled_cache_size": cached}
    late = merged(["gateway.yaml", "overlays/objects-gateway.yaml"])["processors"]["tail_sampling"]
    assert late["num_traces"] == measured(r"90 s / 3 = ([\d,]+)")
    assert late["decision_wait"] == duration(r"overlay waits (\d+) s")
