"""The README: its program runs, its table of options is the program's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from otel_inference.config import environment_options

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def readme() -> str:
    """The text of the README."""
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_python_runs_and_writes_the_spans_it_names(readme: str, tmp_path: Path) -> None:
    """The Python blocks, one after the other, are a program that exports each span it promises."""
    program = tmp_path / "program.py"
    program.write_text("\n".join(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COV"))}

    ended = subprocess.run([sys.executable, program], env=environ, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.findall(r'^    "name": "(.*)"', ended.stdout, re.MULTILINE) == [
        "forward ranker",
        "predict scorer",
        "ask remote-llm",
    ]


@pytest.mark.parametrize("page", ["alerts", "findings", "limiting", "maintenance", "sampling"])
def test_the_programs_of_the_other_pages_run(page: str, tmp_path: Path) -> None:
    """The Python blocks of a page, one after the other, are a program that runs without a word on standard error."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    program = tmp_path / "program.py"
    program.write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "COV"))}

    ended = subprocess.run([sys.executable, program], env=environ, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_its_options_are_the_programs(readme: str) -> None:
    """Each option has its line with its default, and there are no others."""
    lines = dict(re.findall(r"^\| `(OTEL_INFERENCE_\w+)` \| `?([\w.]+)`? \|", readme, re.MULTILINE))

    expected = {
        variable: str(option.default).lower() if option.default not in (None, ()) else "none"
        for variable, option in environment_options().items()
    }
    expected["OTEL_INFERENCE_ENGINES"] = "all"

    assert expected == lines


def test_its_commands_are_in_the_makefile(readme: str) -> None:
    """Each `make` command that it tells of is a target."""
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert set(re.findall(r"make (demo|test|check|bench|format)\b", readme)) <= set(targets)


def test_its_files_exist(readme: str) -> None:
    """Each file that it links to is there."""
    linked = re.findall(r"\]\((?!https?:|#)([^)]+)\)", readme)

    assert linked
    assert [name for name in linked if not (ROOT / name).exists()] == []
