"""Prints what a Prometheus needs for the series of many processes: numbers of `docs/scale.md`.

    python collector-config/measure_prometheus.py --targets 300 --seconds 120

One process serves calls without a pause between them and is scraped as if it were many: each target has an
`instance` of its own. All rules are evaluated. Needs `prometheus` on the path and the development extra.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent
TRAFFIC = ROOT.parent / "tests" / "collector_config" / "traffic.py"
PORT = 19290
WARM_UP_S = 45


def configuration(targets: int, port: int) -> dict[str, Any]:
    """The file for a Prometheus without OTLP, with one process as `targets` of them."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "prometheus" / "scrape.yaml").read_text())
    config["rule_files"] = [str(ROOT / "prometheus" / "rules" / "*.yaml")]
    config["alerting"] = {}
    (job,) = (each for each in config["scrape_configs"] if each["job_name"] == "inference")
    job["static_configs"] = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"__param_process": str(number), "instance": f"process-{number}"}}
        for number in range(targets)
    ]
    config["scrape_configs"] = [job]
    return config


@contextmanager
def scraping(targets: int) -> Iterator[psutil.Process]:
    """A Prometheus that scrapes so many."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(TRAFFIC)]
        traffic = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert traffic.stdin is not None
        assert traffic.stdout is not None
        config = Path(folder) / "prometheus.yaml"
        config.write_text(yaml.safe_dump(configuration(targets, int(traffic.stdout.readline()))))
        arguments = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        arguments += [f"--web.listen-address=127.0.0.1:{PORT}", "--log.level=error"]
        with subprocess.Popen([shutil.which("prometheus") or "prometheus", *arguments]) as server:  # noqa: S603
            try:
                yield psutil.Process(server.pid)
            finally:
                server.terminate()
                traffic.stdin.close()
                traffic.wait(30)


def own_metrics() -> dict[str, float]:
    """The figures that it exposes of its head and its rules."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def main() -> None:
    """Scrape, wait, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--targets", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=120)
    arguments = parser.parse_args()
    with scraping(arguments.targets) as server:
        time.sleep(WARM_UP_S)
        before, cpu_s, started_s = own_metrics(), sum(server.cpu_times()[:2]), time.monotonic()
        time.sleep(arguments.seconds)
        after, passed_s = own_metrics(), time.monotonic() - started_s
        cpu_s = sum(server.cpu_times()[:2]) - cpu_s
        resident = server.memory_info().rss
    series = after["prometheus_tsdb_head_series"]
    samples = sum(
        after[name] - before[name] for name in after if name.startswith("prometheus_tsdb_head_samples_appended_total")
    )
    out = sys.stdout.write
    out(
        f"load of the machine: {' '.join(f'{load:.1f}' for load in psutil.getloadavg())} on {psutil.cpu_count()} cores\n"
    )
    out(f"series: {series:.0f}, {series / arguments.targets:.0f} a target\n")
    out(f"resident: {resident / 1e6:.0f} MB, {resident / series / 1e3:.1f} kB a series\n")
    out(
        f"samples: {samples / passed_s:.0f} a second, {cpu_s / passed_s:.1%} of a core, {cpu_s / samples * 1e6:.0f} us each\n"
    )
    for name, value in sorted(after.items()):
        if name.startswith("prometheus_rule_group_last_duration_seconds"):
            group = name.rpartition(";")[2].removesuffix('"}')
            out(f"group {group}: {value:.3f} s, {value / series * 1e6:.1f} us a series\n")


if __name__ == "__main__":
    main()
