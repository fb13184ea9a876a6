"""Alertmanager's routes: who is told of what, by its own tool."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from tests.collector_config import names

CONFIG = names.ROOT / "alertmanager" / "alertmanager.yaml"
AMTOOL = shutil.which("amtool")

pytestmark = pytest.mark.skipif(
    AMTOOL is None, reason="not installed: apt-get install --no-install-recommends prometheus-alertmanager"
)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["scope=fleet", "severity=critical", "alertname=InferenceErrorBudgetBurn"], ["otel-inference", "inbox"]),
        (["scope=fleet", "severity=warning", "alertname=InferenceSaturated"], ["otel-inference", "inbox"]),
        (["severity=critical", "alertname=InferenceTelemetryAbsent"], ["inbox"]),
        (["severity=warning", "alertname=InferenceLatencyShift", "service=ranking"], ["inbox"]),
        (["severity=info", "alertname=InferenceInputShift"], ["nobody"]),
    ],
    ids=" ".join,
)
def test_who_is_told(labels, told):
    """An alert over the fleet goes to the process that acts and to people; others to people, unless they are only news."""
    command = [AMTOOL, "config", "routes", "test", f"--config.file={CONFIG}", *labels]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().split(",") == told
