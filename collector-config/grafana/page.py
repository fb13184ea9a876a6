"""What all dashboards have: choices, marks, links, and rows of panels."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models
from panel import BLUE, JOB, RED, marks, variable

if TYPE_CHECKING:
    from collections.abc import Sequence


def page(
    uid: str, title: str, text: str, rows: Sequence[tuple[str, Sequence[Any]]], *, one_model: bool = False
) -> dashboard.Dashboard:
    """A dashboard of rows of panels, with the choices, marks and links that all have."""
    made = (
        dashboard.Dashboard(title)
        .uid(f"otel-inference-{uid}")
        .description(text)
        .tags(["otel-inference"])
        .readonly()
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            variable("job", "Service", "label_values(inference_health_state_ratio, job)", several=not one_model)
        )
        .annotation(marks("Alerts", f'ALERTS{{alertname=~"Inference.*",alertstate="firing",{JOB}}}', RED))
        .annotation(
            marks(
                "Maintenance", f'job_action:inference_maintenance_actions:increase1m{{{JOB},outcome="done"}} > 0', BLUE
            )
        )
        .link(
            dashboard.DashboardLink("Model inference")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["otel-inference"])
            .as_dropdown(False)
            .keep_time(True)
            .include_vars(True)
        )
    )
    if one_model:
        query = f"label_values(inference_health_state_ratio{{{JOB}}}, inference_model)"
        made = made.with_variable(variable("model", "Model", query, several=False))
    ids = count(1)
    for name, panels in rows:
        made = made.with_row(dashboard.Row(name).id(next(ids)))
        for panel in panels:
            made = made.with_panel(panel.id(next(ids)))
    return made
