"""The rules: what they have to have. What they do is tested by `promtool test rules`."""

from __future__ import annotations

from tests.collector_config import names

TESTS = "".join(path.read_text() for path in (names.ROOT / "prometheus" / "tests").glob("*.yaml"))


def test_every_alert_that_fires_is_known_by_its_labels():
    """Each alerting rule has a severity that routes and inhibitions know, and a kind where it is for the receiver."""
    alerts = [rule for rule in names.rules() if "alert" in rule]
    assert {rule["labels"]["severity"] for rule in alerts} <= {"critical", "warning"}
    assert all("kind" in rule["labels"] for rule in alerts if rule["labels"].get("scope") == "fleet")


def test_every_recorded_series_is_looked_at():
    """Each recording rule stands in a test of promtool's, which says what it has to give."""
    assert {name for name in names.recorded() if name not in TESTS and not name.startswith("inference:")} == set()
