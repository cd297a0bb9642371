"""The report's figures: Vega-Lite drawn to SVG, so that the page needs no script and no network, and prints.

An arm has one colour everywhere, from a colour-blind-safe palette; ink is the page's own text
colour, so that figures follow the reader's light or dark mode.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASE_COLOUR = "#8A8A8A"
INK = "#010203"


@dataclass(frozen=True)
class Figure:
    """A figure and its caption."""

    title: str
    text: str
    svg: str

    @property
    def name(self) -> str:
        return self.title.lower().replace(" ", "-")

    def alone(self) -> str:
        """The drawing as a file of its own, dark on white."""
        return self.svg.replace("currentColor", "#1b1b1b").replace("<svg ", '<svg style="background:white" ', 1)


class Painter:
    """Draws Altair charts with the project's colours and inks."""

    def __init__(self, arms: list[str]):
        self.order = [*arms, "base"]
        self.colours = [PALETTE[i % len(PALETTE)] for i in range(len(arms))] + [BASE_COLOUR]

    def colour(self, field: str) -> Any:
        import altair as alt

        scale = alt.Scale(domain=self.order, range=self.colours)
        return alt.Color(f"{field}:N", scale=scale, sort=self.order, legend=alt.Legend(title=None, orient="top"))

    def svg(self, chart: Any) -> str:
        """The chart as SVG whose ink is the page's own text colour."""
        import vl_convert

        inks = {"labelColor": INK, "titleColor": INK, "domainColor": INK, "tickColor": INK, "gridColor": "#88888844"}
        texts = {"labelColor": INK, "titleColor": INK}
        styled = chart.configure(
            background="transparent", font="sans-serif", axis=inks, legend=texts, header=texts, title={"color": INK}
        ).configure_view(stroke=None)
        drawn = vl_convert.vegalite_to_svg(styled.to_dict())
        return drawn.replace(INK, "currentColor")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A CSV's rows, numbers as numbers."""

    def value(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="") as file:
        return [{name: value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def intervals_figure(painter: Painter, models: dict[str, Any], field: str, title: str, unit: str) -> str:
    """Every model's value with its interval, one row of the chart per benchmark."""
    import altair as alt

    rows = [{"model": m, "benchmark": b} | values[field] for m, by in models.items() for b, values in by.items()]
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("model:N", title=None, sort=painter.order))
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=unit), x2="high:Q", color=painter.colour("model"))
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x="mean:Q", color=painter.colour("model"))
    drawn = (bars + dots).properties(width=460, height=18 * len(models))
    return painter.svg(
        drawn.facet(row=alt.Row("benchmark:N", title=None, sort=list(next(iter(models.values()))))).properties(title=title)
    )


def difficulty_figure(painter: Painter, rows: list[dict[str, Any]]) -> str:
    import altair as alt

    chart = alt.Chart(alt.Data(values=rows)).mark_line(point=True)
    drawn = chart.encode(
        x=alt.X("fails:Q", title="other models' samples that fail a question (%)", scale=alt.Scale(domain=[0, 100])),
        y=alt.Y("mean_tokens:Q", title="mean tokens per sample", scale=alt.Scale(zero=False)),
        color=painter.colour("model"),
    )
    return painter.svg(drawn.properties(width=460, height=240, title="Length by difficulty"))


def shares_figure(painter: Painter, analysis: Path, measure: str, title: str) -> str:
    import altair as alt

    chart = alt.Chart(alt.Data(values=rows_of(analysis / "categories.csv"))).mark_bar()
    drawn = chart.encode(
        x=alt.X(f"{measure}:Q", stack="normalize", axis=alt.Axis(format="%"), title=f"share of {measure}"),
        y=alt.Y("arm:N", title=None, sort=painter.order),
        color=alt.Color("category:N", scale=alt.Scale(scheme="viridis"), legend=alt.Legend(title=None, orient="top")),
    )
    return painter.svg(drawn.properties(width=460, height=90, title=title))


def histogram_figure(painter: Painter, analysis: Path, counted: str, title: str) -> str:
    """How many traces fall into each span; ``counted`` is ``traces``, or ``math`` for mathematics alone."""
    import altair as alt

    rows = rows_of(analysis / "histogram.csv")
    spans = list(dict.fromkeys(row["span"] for row in rows))
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("span:N", sort=spans, title="response tokens", axis=alt.Axis(labelAngle=-40)),
            xOffset=alt.XOffset("arm:N", sort=painter.order),
            y=alt.Y(f"{counted}:Q", title="traces"),
            color=painter.colour("arm"),
        )
    )
    return painter.svg(chart.properties(width=460, height=220, title=title))


def boxes_figure(painter: Painter, analysis: Path, measure: str, title: str) -> str:
    """Box plots from their quantiles, whiskers at 5 and 95 %, a diamond and its number at the mean."""
    import altair as alt

    rows = [row for row in rows_of(analysis / "boxes.csv") if row["measure"] == measure]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("arm:N", title=None, sort=painter.order), color=painter.colour("arm")
    )
    layers = (
        base.mark_rule().encode(x=alt.X("p05:Q", title=title), x2="p95:Q"),
        base.mark_bar(size=22, opacity=0.55).encode(x="q1:Q", x2="q3:Q"),
        base.mark_tick(size=22, thickness=2, color=INK).encode(x="median:Q", color=alt.value(INK)),
        base.mark_point(shape="diamond", filled=True, size=60).encode(x="mean:Q", color=alt.value(INK)),
        base.mark_text(dy=-19).encode(x="mean:Q", text=alt.Text("mean:Q", format=".2f"), color=alt.value(INK)),
    )
    return painter.svg(alt.layer(*layers).properties(width=460, height=150, title=title))


def loss_figure(painter: Painter, curves: dict[str, list[dict[str, Any]]]) -> str:
    import altair as alt

    rows = [row | {"arm": arm} for arm, curve in curves.items() for row in curve]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line()
        .encode(x=alt.X("step:Q", title="optimizer step"), y=alt.Y("loss:Q", title="loss"), color=painter.colour("arm"))
    )
    return painter.svg(chart.properties(width=460, height=240, title="Training loss of the students"))


def figures(
    painter: Painter, compared: dict[str, Any], analysis: Path, curves: dict[str, list[dict[str, Any]]]
) -> Iterator[Figure]:
    """All figures; ``analysis`` is the folder of the tables that they draw, ``curves`` has the rows of each loss curve."""
    models = compared["models"]
    yield Figure(
        "Scores",
        "Each student's pass@1 and its bootstrap interval; the base is the model that all students started from.",
        intervals_figure(painter, models, "pass@1", "pass@1", "pass@1 (%) with its interval over questions"),
    )
    yield Figure(
        "Lengths by benchmark",
        "Mean tokens per sample and their bootstrap interval.",
        intervals_figure(painter, models, "mean_tokens", "Length", "mean tokens per sample"),
    )
    yield Figure(
        "Lengths by difficulty",
        "Mean tokens per difficulty bin over all benchmarks; difficulty is the share of the other models' samples that fail.",
        difficulty_figure(painter, compared["by_difficulty"]),
    )
    yield Figure(
        "Categories by instance",
        "The same queries for every teacher, so the same shares.",
        shares_figure(painter, analysis, "instances", "Instances by category"),
    )
    yield Figure(
        "Categories by token",
        "Where each teacher spends its tokens.",
        shares_figure(painter, analysis, "tokens", "Tokens by category"),
    )
    yield Figure(
        "Trace lengths",
        "How many traces fall into each span of response tokens.",
        histogram_figure(painter, analysis, "traces", "Trace lengths"),
    )
    yield Figure(
        "Trace lengths in mathematics",
        "The same for mathematics alone, as the study shows it.",
        histogram_figure(painter, analysis, "math", "Trace lengths in mathematics"),
    )
    yield Figure(
        "Spread of lengths",
        "Box: middle half; whiskers: 5 to 95 %; diamond: mean.",
        boxes_figure(painter, analysis, "response_tokens", "Response tokens"),
    )
    yield Figure(
        "Spread of perplexities",
        "Perplexity of each trace under the scorer.",
        boxes_figure(painter, analysis, "perplexity", "Perplexity"),
    )
    yield Figure(
        "Training loss",
        "Loss on the responses, one point per optimizer step; of each arm's first seed.",
        loss_figure(painter, curves),
    )
