"""The report's figures: Vega-Lite drawn to SVG, so that the page needs no script and no network, and prints.

An arm has one colour everywhere, from a colour-blind-safe palette; ink is the page's own text
colour, so that figures follow the reader's light or dark mode.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from distillery.evaluation.report_tables import forest_rows

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASE_COLOUR = "#8A8A8A"
INK = "#010203"
SIDE = {"labelAngle": 0, "labelAlign": "left"}
"""A facet's label, legible beside its row."""


@dataclass(frozen=True)
class Figure:
    """A figure, what it shows in words, and how to read it."""

    title: str
    finding: str
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


def intervals_figure(painter: Painter, models: dict[str, Any], field: str, unit: str) -> str:
    """Every model's value with its interval, one row of the chart per benchmark."""
    import altair as alt

    rows = [{"model": m, "benchmark": b} | values[field] for m, by in models.items() for b, values in by.items()]
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("model:N", title=None, sort=painter.order))
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=unit, scale=alt.Scale(zero=True)), x2="high:Q", color=painter.colour("model")
    )
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x="mean:Q", color=painter.colour("model"))
    drawn = (bars + dots).properties(width=460, height=18 * len(models))
    order = list(next(iter(models.values())))
    return painter.svg(drawn.facet(row=alt.Row("benchmark:N", title=None, sort=order, header=SIDE)))


def forest_figure(painter: Painter, rows: list[dict[str, Any]]) -> str:
    """Paired differences with their intervals about a line at zero, overall in bold above the benchmarks."""
    import altair as alt

    verdicts = ["higher", "lower", "equivalent", "not significant"]
    scale = alt.Scale(domain=verdicts, range=["#0072B2", "#D55E00", "#009E73", BASE_COLOUR])
    colour = alt.Color("verdict:N", scale=scale, legend=alt.Legend(title=None, orient="top"))
    pairs, benchmarks = (list(dict.fromkeys(row[name] for row in rows)) for name in ("pair", "benchmark"))
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("benchmark:N", title=None, sort=benchmarks))
    thick = alt.condition("datum.benchmark == 'overall'", alt.value(4), alt.value(1.5))
    bars = base.mark_rule().encode(
        x=alt.X("low:Q", title="difference in pass@1 (percentage points)"), x2="high:Q", color=colour, strokeWidth=thick
    )
    size = alt.condition("datum.benchmark == 'overall'", alt.value(110), alt.value(45))
    dots = base.mark_point(filled=True, opacity=1).encode(x="mean:Q", color=colour, size=size)
    zero = base.mark_rule(strokeDash=[4, 3], color=INK).encode(x=alt.datum(0), y=alt.Y())
    drawn = alt.layer(zero, bars, dots).properties(width=400, height=16 * len(benchmarks))
    return painter.svg(drawn.facet(row=alt.Row("pair:N", title=None, sort=pairs, header=SIDE)))


def difficulty_figure(painter: Painter, rows: list[dict[str, Any]]) -> str:
    """Mean tokens by difficulty with intervals; a larger point stands for more questions."""
    import altair as alt

    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("fails:Q", title="other models' samples that fail a question (%)", scale=alt.Scale(domain=[0, 100])),
        color=painter.colour("model"),
    )
    tokens = alt.Y("mean:Q", title="mean tokens per sample", scale=alt.Scale(zero=True))
    size = alt.Size("questions:Q", title="questions", scale=alt.Scale(range=[20, 160]))
    known = base.transform_filter("isValid(datum.low)").mark_rule(opacity=0.6).encode(y="low:Q", y2="high:Q")
    drawn = known + base.mark_line(opacity=0.6).encode(y=tokens) + base.mark_point(filled=True).encode(y=tokens, size=size)
    return painter.svg(drawn.properties(width=460, height=240))


def shares_figure(painter: Painter, analysis: Path, measure: str) -> str:
    import altair as alt

    chart = alt.Chart(alt.Data(values=rows_of(analysis / "categories.csv"))).mark_bar()
    drawn = chart.encode(
        x=alt.X(f"{measure}:Q", stack="normalize", axis=alt.Axis(format="%"), title=f"share of {measure}"),
        y=alt.Y("arm:N", title=None, sort=painter.order),
        color=alt.Color("category:N", scale=alt.Scale(scheme="viridis"), legend=alt.Legend(title=None, orient="top")),
    )
    return painter.svg(drawn.properties(width=460, height=90))


def cumulative(rows: list[dict[str, Any]], counted: str) -> list[dict[str, Any]]:
    """The share of each arm's traces, in percent, that are shorter than each border of the histogram; 0 at no tokens."""
    found: list[dict[str, Any]] = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        own = [row for row in rows if row["arm"] == arm]
        total, sofar = sum(row[counted] for row in own) or 1, 0.0
        found.append({"arm": arm, "tokens": 0, "share": 0.0})
        for row, after in pairwise(own):
            sofar += row[counted]
            border = int(str(after["span"]).removeprefix(">=").split("-")[0])
            found.append({"arm": arm, "tokens": border, "share": 100 * sofar / total})
    return found


def lengths_figure(painter: Painter, analysis: Path, counted: str) -> str:
    """The distribution of lengths, which bars of unequal spans would distort; ``counted``: ``traces``, or ``math`` alone."""
    import altair as alt

    chart = alt.Chart(alt.Data(values=cumulative(rows_of(analysis / "histogram.csv"), counted)))
    drawn = chart.mark_line(point=True).encode(
        x=alt.X("tokens:Q", title="response tokens"),
        y=alt.Y("share:Q", title="shorter traces (%)", scale=alt.Scale(domain=[0, 100])),
        color=painter.colour("arm"),
    )
    return painter.svg(drawn.properties(width=460, height=220))


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
    return painter.svg(alt.layer(*layers).properties(width=460, height=150))


def loss_figure(painter: Painter, curves: dict[str, list[dict[str, Any]]]) -> str:
    import altair as alt

    rows = [row | {"arm": arm} for arm, curve in curves.items() for row in curve]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line()
        .encode(x=alt.X("step:Q", title="optimizer step"), y=alt.Y("loss:Q", title="loss"), color=painter.colour("arm"))
    )
    return painter.svg(chart.properties(width=460, height=240))


def medians(rows: list[dict[str, Any]], measure: str, unit: str) -> str:
    """What the medians of an arm's box plots are, in words."""
    each = [f"{row['arm']} {row['median']:g}" for row in rows if row["measure"] == measure]
    return f"Medians: {', '.join(each)}{unit}."


def ordered(models: dict[str, Any], field: str, unit: str) -> str:
    """Models by their overall value, the highest first, in words."""
    means = {model: by_benchmark["overall"][field]["mean"] for model, by_benchmark in models.items()}
    names = sorted(means, key=means.__getitem__, reverse=True)
    return "Overall: " + ", ".join(f"{name} {means[name]:.1f}{unit}" for name in names) + "."


def decided(rows: list[dict[str, Any]]) -> str:
    """Which overall differences are significant, in words."""
    overall = [row for row in rows if row["benchmark"] == "overall"]
    found = [f"{row['pair']} {row['mean']:+.1f}" for row in overall if row["verdict"] in ("higher", "lower")]
    return f"Significant overall: {', '.join(found) or 'none'}; {len(overall) - len(found)} of {len(overall)} pairs are not."


def last_losses(curves: dict[str, list[dict[str, Any]]]) -> str:
    return "Last losses: " + ", ".join(f"{arm} {rows[-1]['loss']:.3f}" for arm, rows in curves.items() if rows) + "."


def of_comparison(painter: Painter, compared: dict[str, Any]) -> Iterator[Figure]:
    """Figures of students."""
    models, forest = compared["models"], forest_rows(compared["differences"])
    yield Figure(
        "Differences",
        decided(forest),
        "Paired differences in pass@1, intervals of 95 %, thick for overall; right of the line the first of a pair is better.",
        forest_figure(painter, forest),
    )
    yield Figure(
        "Scores",
        ordered(models, "pass@1", " %"),
        "Each student's pass@1 and its bootstrap interval; the base is the model that all students started from.",
        intervals_figure(painter, models, "pass@1", "pass@1 (%) with its interval over questions"),
    )
    yield Figure(
        "Lengths by benchmark",
        ordered(models, "mean_tokens", " tokens"),
        "Mean tokens per sample and their bootstrap interval.",
        intervals_figure(painter, models, "mean_tokens", "mean tokens per sample"),
    )
    yield Figure(
        "Lengths by difficulty",
        f"{len(compared['by_difficulty'])} points over all benchmarks.",
        "Difficulty is the share of the other models' samples that fail; larger points are more questions.",
        difficulty_figure(painter, compared["by_difficulty"]),
    )


def of_data(painter: Painter, analysis: Path) -> Iterator[Figure]:
    """Figures of data sets; ``analysis`` is the folder of the tables that they draw."""
    boxes = rows_of(analysis / "boxes.csv")
    tokens, perplexities = medians(boxes, "response_tokens", " tokens"), medians(boxes, "perplexity", "")
    same = "The same queries for every teacher, so the same shares."
    yield Figure("Categories by instance", same, "", shares_figure(painter, analysis, "instances"))
    yield Figure("Categories by token", "Where each teacher spends its tokens.", "", shares_figure(painter, analysis, "tokens"))
    lines = "A line further right has longer traces; longer ones than the last border are beyond it."
    yield Figure("Trace lengths", tokens, lines, lengths_figure(painter, analysis, "traces"))
    yield Figure("Trace lengths in mathematics", "As the study shows them.", lines, lengths_figure(painter, analysis, "math"))
    box = "Box: middle half; whiskers: 5 to 95 %; diamond: mean."
    yield Figure("Spread of lengths", tokens, box, boxes_figure(painter, analysis, "response_tokens", "response tokens"))
    yield Figure("Spread of perplexities", perplexities, box, boxes_figure(painter, analysis, "perplexity", "perplexity"))


def figures(
    painter: Painter, compared: dict[str, Any], analysis: Path, curves: dict[str, list[dict[str, Any]]]
) -> Iterator[Figure]:
    """All figures; ``curves`` has the rows of each arm's loss curve."""
    yield from of_comparison(painter, compared)
    yield from of_data(painter, analysis)
    about = "Loss on the responses, one point per optimizer step; of each arm's first seed."
    yield Figure("Training loss", last_losses(curves), about, loss_figure(painter, curves))
