"""The dashboards: what is committed is what the code makes, and each panel says what it shows."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard
from tests.collector_config import names

FILES = [pytest.param(path, id=path.stem) for path in names.DASHBOARDS]


def test_what_is_committed_is_what_the_code_makes():
    """Running the generator again changes nothing."""
    done = names.generate("--check")
    assert (done.returncode, done.stderr) == (0, "out of date: none\n")


def test_a_dashboard_that_was_edited_by_hand_is_noticed(tmp_path, monkeypatch):
    """The check names the file that differs, and writes nothing."""
    folder = tmp_path / "grafana"
    shutil.copytree(names.ROOT / "grafana", folder)
    edited = folder / "dashboards" / "overview.json"
    edited.write_text(edited.read_text().replace("Processes", "Workers"))
    monkeypatch.setattr(names, "ROOT", tmp_path)
    done = names.generate("--check")
    assert (done.returncode, done.stderr) == (1, "out of date: overview\n")
    assert "Workers" in edited.read_text()


@pytest.mark.parametrize("path", FILES)
def test_a_dashboard_is_one_that_grafana_knows(path):
    """It has an id of its own, opens on the last hour, and survives the library's typed reader."""
    content = json.loads(path.read_text())
    assert content["uid"] == f"otel-inference-{path.stem}"
    assert content["time"] == {"from": "now-1h", "to": "now"}
    assert Dashboard.from_json(content).title == content["title"]
    ids = [panel["id"] for panel in content["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", FILES)
def test_each_panel_says_what_it_shows(path):
    """Every panel has a title, a description, a unit, thresholds, a legend where it has lines, and a data source."""
    for panel in names.panels(json.loads(path.read_text())):
        defaults = panel["fieldConfig"]["defaults"] if "fieldConfig" in panel else {}
        unit = panel["options"]["yAxis"]["unit"] if panel["type"] == "heatmap" else defaults["unit"]
        assert all((panel["title"], panel["description"], unit)), panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
        if panel["type"] != "heatmap":
            assert defaults["thresholds"]["steps"], panel["title"]
        if panel["type"] in {"timeseries", "state-timeline"}:
            assert panel["options"]["legend"]["showLegend"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize("path", FILES)
def test_rates_say_of_what(path):
    """A panel of something a second has a unit that says so, and one of bars counts each event in one bar."""
    for panel in names.panels(json.loads(path.read_text())):
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if "a second" in panel["description"] and panel["type"] != "heatmap":
            assert re.fullmatch(r"reqps|eps|recps|suffix:\w+/s", defaults["unit"]), panel["title"]
        for target in panel["targets"]:
            assert "increase(" not in target["expr"], f"{panel['title']}: it misses what a series begins with"
            if "$__interval" in target["expr"]:
                assert panel["interval"] == "1m", f"{panel['title']}: what is summed is recorded once a minute"


@pytest.mark.parametrize("path", FILES)
def test_panels_neither_overlap_nor_leave_the_page(path):
    """No two panels share a cell of the grid of 24 columns."""
    cells: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not mine & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= mine


def test_panels_lead_to_traces_and_traces_to_figures():
    """Exemplars are asked for where there are buckets, their data source opens traces, and a trace shows figures."""
    asked = [
        target
        for panel in names.panels(json.loads((names.ROOT / "grafana/dashboards/model.json").read_text()))
        for target in panel["targets"]
        if target.get("exemplar")
    ]
    assert asked
    assert all("_bucket" in target["expr"] for target in asked)
    text = (names.ROOT / "grafana/provisioning/datasources/datasources.yaml").read_text()
    assert "exemplarTraceIdDestinations" in text
    assert "tracesToMetrics" in text


def test_the_overview_leads_to_one_model_and_that_to_its_traces():
    """Data links go from a line to its model's dashboard, whose choices they fill, and on to Jaeger."""
    overview = (names.ROOT / "grafana/dashboards/overview.json").read_text()
    assert (
        "/d/otel-inference-model?var-job=${__field.labels.job}&var-model=${__field.labels.inference_model}" in overview
    )
    model = json.loads((names.ROOT / "grafana/dashboards/model.json").read_text())
    assert {choice["name"] for choice in model["templating"]["list"]} == {"job", "model"}
    links = {link["url"] for panel in names.panels(model) for link in panel["fieldConfig"]["defaults"].get("links", ())}
    assert any(link.startswith("/explore?") and "${model}" in link and "jaeger" in link for link in links)
