"""Panels of all dashboards: what one shows is data, how it looks is the same for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS: Final = models.DataSourceRef(type_val="prometheus", uid="prometheus")

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
JOB: Final = 'job=~"$job"'
MODEL: Final = f'{JOB},inference_model="$model"'
TOKENS: Final = f'{JOB},gen_ai_request_model="$model"'
MODEL_LINK: Final = (
    "/d/otel-inference-model?var-job=${__field.labels.job}&var-model=${__field.labels.inference_model}"
    "&${__url_time_range}"
)
TRACES_LINK: Final = "/explore?schemaVersion=1&panes=" + quote(
    '{"a":{"datasource":"jaeger","queries":[{"refId":"A","queryType":"search","service":"SERVICE",'
    '"tags":"{\\"inference.model\\":\\"MODEL\\"}"}],"range":{"from":"FROM","to":"TO"}}}'
).replace("SERVICE", "${job}").replace("MODEL", "${model}").replace("FROM", "${__from}").replace("TO", "${__to}")

RATE: Final = "$__rate_interval"
BAR: Final = "$__interval"
"""What one bar stands for: with these windows bars touch, and each event is in one of them."""
TO_MODEL: Final = (("This model", MODEL_LINK),)
TO_TRACES: Final = (("Traces of this model", TRACES_LINK),)

STATES: Final = {0: ("ok", GREEN), 1: ("degraded", YELLOW), 2: ("critical", RED)}
FIRING: Final = {0: ("quiet", GREEN), 1: ("firing", RED)}

TOKENS_PER_S: Final = "suffix:tokens/s"
SAMPLES_PER_S: Final = "suffix:samples/s"
"""Units of our own; Grafana's are names such as `reqps`."""

Steps = tuple[tuple[float | None, str], ...]
"""Thresholds: from this value on, this colour; the first from minus infinity."""
NEUTRAL: Final[Steps] = ((None, BLUE),)
ERRORS: Final[Steps] = ((None, GREEN), (0.001, YELLOW), (0.01, RED))
SECONDS: Final[Steps] = ((None, GREEN), (0.5, YELLOW), (2.0, RED))
USED: Final[Steps] = ((None, GREEN), (0.75, YELLOW), (0.9, RED))
BURN: Final[Steps] = ((None, GREEN), (1.0, YELLOW), (14.4, RED))
NONE_IS_GOOD: Final[Steps] = ((None, GREEN), (1e-9, YELLOW))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One panel: what it shows, in what unit, and from where on it is bad."""

    title: str
    text: str
    """What the reader of the panel should know."""
    unit: str
    queries: tuple[tuple[str, str], ...]
    """Expression and legend."""
    steps: Steps = NEUTRAL
    width: int = 12
    height: int = 8
    maximum: float | None = None
    links: tuple[tuple[str, str], ...] = ()
    exemplars: bool = False
    """Whether single calls are shown as dots that open their trace."""
    bars: bool = False
    decimals: int | None = None
    interval: str | None = None
    """The shortest time that one point or bar stands for; default: what Grafana takes."""


def or_none(expression: str, label: str, text: str) -> str:
    """The expression, and where it gives nothing one line at 0 that has a name: quiet is not the same as no data."""
    return f'{expression} or label_replace(vector(0) unless on () ({expression}), "{label}", "{text}", "", "")'


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Thresholds of a panel."""
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in steps])
    )


def queries(figure: Figure, *, instant: bool = False) -> list[prometheus.Dataquery]:
    """The queries of a panel, with reference ids A, B and so on."""
    made = []
    for number, (expression, legend) in enumerate(figure.queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        query = query.instant() if instant else query.range()
        made.append(query.exemplar(figure.exemplars and not instant))
    return made


def common_parts(panel: Any, figure: Figure) -> Any:
    """What all kinds of panels have."""
    panel = panel.title(figure.title).description(figure.text).datasource(PROMETHEUS)
    panel = panel.span(figure.width).height(figure.height).no_value("no data")
    if figure.interval is not None:
        panel = panel.interval(figure.interval)
    return panel.thresholds(thresholds(figure.steps))


def lines(figure: Figure) -> timeseries.Panel:
    """A panel of lines, or bars, over time."""
    panel = common_parts(timeseries.Panel(), figure).unit(figure.unit).min(0)
    for query in queries(figure):
        panel = panel.with_target(query)
    panel = panel.legend(
        common.VizLegendOptions()
        .display_mode(shapes.LegendDisplayMode.TABLE)
        .placement(shapes.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    ).tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    if figure.bars:
        panel = (
            panel.draw_style(shapes.GraphDrawStyle.BARS)
            .fill_opacity(70)
            .stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
        )
    else:
        panel = panel.line_width(1).fill_opacity(8).show_points(shapes.VisibilityMode.NEVER)
    if len(figure.steps) > 1:
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphTresholdsStyleMode.DASHED))
    if figure.maximum is not None:
        panel = panel.max(figure.maximum)
    return panel.data_links([dashboard.DashboardLink(title).url(url) for title, url in figure.links])


def number(figure: Figure) -> stat.Panel:
    """A panel of single figures."""
    panel = common_parts(stat.Panel(), figure).unit(figure.unit)
    for query in queries(figure, instant=True):
        panel = panel.with_target(query)
    if figure.decimals is not None:
        panel = panel.decimals(figure.decimals)
    return (
        panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .color_mode(shapes.BigValueColorMode.VALUE)
        .text_mode(shapes.BigValueTextMode.AUTO)
        .data_links([dashboard.DashboardLink(title).url(url) for title, url in figure.links])
    )


def timeline(figure: Figure, names: dict[int, tuple[str, str]]) -> statetimeline.Panel:
    """A panel of states over time, each with its name and colour."""
    panel = common_parts(statetimeline.Panel(), figure).unit(figure.unit)
    for query in queries(figure):
        panel = panel.with_target(query)
    options = {
        str(value): models.ValueMappingResult(text=name, color=color, index=value)
        for value, (name, color) in names.items()
    }
    return (
        panel.mappings([models.ValueMap(options=options)])
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.LIST)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .show_value(shapes.VisibilityMode.NEVER)
        .row_height(0.8)
        .merge_values(True)
        .data_links([dashboard.DashboardLink(title).url(url) for title, url in figure.links])
    )


def density(figure: Figure) -> heatmap.Panel:
    """A panel of how many calls fell into which bucket, over time."""
    panel = common_parts(heatmap.Panel(), figure)
    for query in queries(figure):
        panel = panel.with_target(query.format(PromQueryFormat.HEATMAP))
    return (
        panel.calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(figure.unit))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(32))
        .show_legend()
    )


def variable(name: str, label: str, query: str, *, several: bool) -> dashboard.QueryVariable:
    """A choice above the dashboard, filled from Prometheus."""
    made = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(several)
        .include_all(several)
    )
    if several:
        made = made.current(models.VariableOption(selected=True, text="All", value="$__all"))
    return made


def marks(name: str, expression: str, color: str) -> dashboard.AnnotationQuery:
    """Marks over all panels of a dashboard."""
    return dashboard.AnnotationQuery().name(name).datasource(PROMETHEUS).expr(expression).enable(True).icon_color(color)
