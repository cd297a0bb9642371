"""report: one page that works offline, with the study's figures and the tables behind them.

Figures are Vega-Lite drawn to SVG beforehand, so the page needs no script and no network, prints, and follows the
reader's light or dark mode. A teacher has one colour everywhere, from a palette that colour-blind readers tell apart.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stages import params, provenance
from stages.params import Section
from stages.provenance import say
from stages.tables import read_json, whole_folder, write_text

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASE_COLOUR = "#8A8A8A"
INK = "#010203"
TEACHER_HEAD = [
    "teacher",
    "attempts verified",
    "queries verified",
    "attempts a query",
    "tokens a verified trace",
    "mean tokens kept",
    "mean perplexity kept",
]
PAGE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Report(Section):
    """``title`` of the page, a ``note`` that says what the run is and is not, and a file of a study's own figures, or null."""

    title: str
    note: str
    study: str | None


@dataclass(frozen=True)
class Figure:
    """A drawing and the words that say what it shows."""

    title: str
    text: str
    svg: str


class Painter:
    """Draws Altair charts with the project's colours and inks."""

    def __init__(self, teachers: list[str]):
        self.order = [*teachers, "base"]
        self.colours = [PALETTE[i % len(PALETTE)] for i in range(len(teachers))] + [BASE_COLOUR]

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


def rows_of(path: str) -> list[dict[str, Any]]:
    """A CSV's rows, numbers as numbers."""

    def value(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    with Path(path).open(newline="") as file:
        return [{name: value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def intervals_figure(painter: Painter, models: dict[str, Any], field: str, title: str, unit: str) -> str:
    """Every model's value with its interval, one row of the chart a benchmark."""
    import altair as alt

    rows = [{"model": m, "benchmark": b} | values[field] for m, by in models.items() for b, values in by.items()]
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("model:N", title=None, sort=painter.order))
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=unit), x2="high:Q", color=painter.colour("model"))
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(x="mean:Q", color=painter.colour("model"))
    drawn = (bars + dots).properties(width=460, height=18 * len(models))
    return painter.svg(
        drawn.facet(row=alt.Row("benchmark:N", title=None, sort=list(next(iter(models.values()))))).properties(title=title)
    )


def shares_figure(painter: Painter, measure: str, title: str) -> str:
    import altair as alt

    chart = alt.Chart(alt.Data(values=rows_of("data/analysis/categories.csv"))).mark_bar()
    drawn = chart.encode(
        x=alt.X(f"{measure}:Q", stack="normalize", axis=alt.Axis(format="%"), title=f"share of {measure}"),
        y=alt.Y("teacher:N", title=None, sort=painter.order),
        color=alt.Color("category:N", scale=alt.Scale(scheme="viridis"), legend=alt.Legend(title=None, orient="top")),
    )
    return painter.svg(drawn.properties(width=460, height=90, title=title))


def histogram_figure(painter: Painter) -> str:
    import altair as alt

    rows = rows_of("data/analysis/histogram.csv")
    spans = list(dict.fromkeys(row["span"] for row in rows))
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("span:N", sort=spans, title="response tokens", axis=alt.Axis(labelAngle=-40)),
            xOffset=alt.XOffset("teacher:N", sort=painter.order),
            y=alt.Y("traces:Q", title="traces"),
            color=painter.colour("teacher"),
        )
    )
    return painter.svg(chart.properties(width=460, height=220, title="Trace lengths"))


def boxes_figure(painter: Painter, measure: str, title: str) -> str:
    """Box plots from their quantiles, whiskers at 5 and 95 %, a diamond and its number at the mean."""
    import altair as alt

    rows = [row for row in rows_of("data/analysis/boxes.csv") if row["measure"] == measure]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("teacher:N", title=None, sort=painter.order), color=painter.colour("teacher")
    )
    layers = (
        base.mark_rule().encode(x=alt.X("p05:Q", title=title), x2="p95:Q"),
        base.mark_bar(size=22, opacity=0.55).encode(x="q1:Q", x2="q3:Q"),
        base.mark_tick(size=22, thickness=2, color=INK).encode(x="median:Q", color=alt.value(INK)),
        base.mark_point(shape="diamond", filled=True, size=60).encode(x="mean:Q", color=alt.value(INK)),
        base.mark_text(dy=-19).encode(x="mean:Q", text=alt.Text("mean:Q", format=".2f"), color=alt.value(INK)),
    )
    return painter.svg(alt.layer(*layers).properties(width=460, height=150, title=title))


def loss_figure(painter: Painter, teachers: list[str]) -> str:
    import altair as alt

    rows = [row | {"teacher": t} for t in teachers for row in rows_of(f"data/training/{t}/loss.csv")]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line()
        .encode(x=alt.X("step:Q", title="optimizer step"), y=alt.Y("loss:Q", title="loss"), color=painter.colour("teacher"))
    )
    return painter.svg(chart.properties(width=460, height=240, title="Training loss of the students"))


def figures(painter: Painter, teachers: list[str], compared: dict[str, Any]) -> Iterator[Figure]:
    models = compared["models"]
    share = intervals_figure(painter, models, "pass@1", "pass@1", "pass@1 (%) with its interval over questions")
    yield Figure("Scores", "Each student's pass@1 and its bootstrap interval; the base is where all started.", share)
    tokens = intervals_figure(painter, models, "mean_tokens", "Length", "mean tokens a sample")
    yield Figure("Lengths by benchmark", "How long the students think, by benchmark.", tokens)
    yield Figure(
        "Categories by instance",
        "The same queries for every teacher, so the same shares.",
        shares_figure(painter, "instances", "Instances by category"),
    )
    yield Figure(
        "Categories by token", "Where each teacher spends its tokens.", shares_figure(painter, "tokens", "Tokens by category")
    )
    yield Figure("Trace lengths", "How many traces fall into each span of response tokens.", histogram_figure(painter))
    yield Figure(
        "Spread of lengths",
        "Box: middle half; whiskers: 5 to 95 %; diamond: mean.",
        boxes_figure(painter, "response_tokens", "Response tokens"),
    )
    yield Figure(
        "Spread of perplexities",
        "Perplexity of each trace under the scorer.",
        boxes_figure(painter, "perplexity", "Perplexity"),
    )
    yield Figure("Training loss", "Loss on the responses, a point an optimizer step.", loss_figure(painter, teachers))


def score_rows(students: dict[str, Any], benchmarks: list[str]) -> list[list[str]]:
    return [
        [name, *(f"{scores[b]['pass@1']:.1f} ({scores[b]['mean_tokens']:.0f})" for b in benchmarks)]
        for name, scores in students.items()
    ]


def told(d: dict[str, Any], digits: int = 1) -> str:
    return f"{d['mean']:.{digits}f} [{d['low']:.{digits}f}, {d['high']:.{digits}f}]"


def difference_rows(differences: dict[str, Any]) -> list[list[str]]:
    """A line a pair and benchmark: the differences, their adjusted p, what they come to, and what would tell them."""
    rows = []
    for pair, by_benchmark in differences.items():
        for benchmark, measured in by_benchmark.items():
            scored, tokens = measured["pass@1"], measured["mean_tokens"]
            needed = "-" if scored["verdict"] != "could not tell" else str(scored["questions_needed"] or "-")
            lengths = f"{told(tokens)}, {tokens['verdict']}"
            rows.append([pair, benchmark, told(scored), f"{scored['p_holm']:.3g}", scored["verdict"], needed, lengths])
    return rows


def headlines(compared: dict[str, Any], teachers: list[str], benchmarks: list[str]) -> Iterator[str]:
    """A sentence a benchmark: whose student scores highest, and from whose it could be told."""
    for benchmark in benchmarks:
        scores = {teacher: compared["models"][teacher][benchmark]["pass@1"]["mean"] for teacher in teachers}
        best = max(teachers, key=scores.__getitem__)
        beaten = [other for other in teachers if other != best and leads(compared["differences"], best, other, benchmark)]
        rest = [other for other in teachers if other not in (best, *beaten)]
        told_from = f"told from {', '.join(beaten)}" if beaten else ""
        not_from = f"could not be told from {', '.join(rest)}" if rest else ""
        yield f"{benchmark}: {best} highest with {scores[best]:.1f} %; {'; '.join(filter(None, (told_from, not_from)))}."


def leads(differences: dict[str, Any], best: str, other: str, benchmark: str) -> bool:
    """Whether the comparison tells that ``best`` scores higher."""
    for pair, wanted in ((f"{best} - {other}", "higher"), (f"{other} - {best}", "lower")):
        if pair in differences:
            return differences[pair][benchmark]["pass@1"]["verdict"] == wanted
    return False


def study_rows(path: str | None, benchmarks: list[str]) -> list[list[str]]:
    """A study's own figures, as its file has them: pass@1 (mean tokens) by teacher and benchmark."""
    found = yaml.safe_load(Path(path).read_text()) if path else {}
    rows = [[teacher, *(scores.get(benchmark, "-") for benchmark in benchmarks)] for teacher, scores in found.items()]
    return [[str(cell) for cell in row] for row in rows]


def adaptivity_rows(adaptivities: dict[str, Any]) -> list[list[str]]:
    """How many times longer each student answers what nobody solves than what all solve."""
    factor = lambda d: "-" if d is None else told(d, 2)  # noqa: E731
    return [[model, factor(found["within"]), factor(found["across"])] for model, found in adaptivities.items()]


def many_rows(students: dict[str, Any], benchmarks: list[str]) -> list[list[str]]:
    """What several samples a question give, and how long and how often cut they are."""
    rows = []
    for name, scores in students.items():
        for benchmark in benchmarks:
            found = scores[benchmark]
            many = ", ".join(f"{measure} {value:.1f}" for measure, value in found["many"].items())
            lengths = f"{found['tokens']['q1']:.0f} / {found['tokens']['median']:.0f} / {found['tokens']['q3']:.0f}"
            rows.append([name, benchmark, many, lengths, f"{100 * found['truncated_share']:.1f} %"])
    return rows


def removed_rows(teachers: list[str]) -> list[list[str]]:
    """Stage, reason and count of everything that left on the way."""
    rows = [["collect", why, str(count)] for why, count in read_json("metrics/collect.json")["malformed"].items()]
    rows += [["clean", why, str(count)] for why, count in read_json("metrics/clean.json")["rejected"].items()]
    for benchmark, methods in read_json("metrics/decontaminate.json")["rejected"].items():
        rows += [["decontaminate", f"{benchmark}: {method}", str(count)] for method, count in methods.items()]
    rows += [["constrain", why, str(count)] for why, count in read_json("metrics/constrain.json")["rejected"].items()]
    for teacher in teachers:
        found = read_json(f"metrics/teachers/{teacher}.json")
        rows.append([f"distill@{teacher}", "never verified", str(found["distill"]["queries"] - found["distill"]["verified"])])
        rows += [[f"curate@{teacher}", why, str(count)] for why, count in found["curate"]["rejected"].items()]
    rows.append(["parallel", "too long to train on", str(read_json("metrics/parallel.json")["over_long"])])
    return rows


def teacher_rows(teachers: list[str]) -> list[list[str]]:
    rows = []
    for teacher in teachers:
        found = read_json(f"metrics/teachers/{teacher}.json")
        d = found["distill"]
        rows.append(
            [
                teacher,
                f"{100 * d['pass_rate']:.1f} %",
                f"{100 * d['verified_share']:.1f} %",
                f"{d['attempts_a_query']:.2f}",
                f"{d['tokens_a_verified_trace']:.1f}",
                f"{found['mean_response_tokens']:.1f}",
                f"{found['mean_perplexity']:.2f}",
            ]
        )
    return rows


def provenance_rows(paths: list[str]) -> list[list[str]]:
    rows = []
    for path in paths:
        found = read_json(path)["provenance"]
        libraries = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
        rows.append(
            [path.removeprefix("metrics/").removesuffix(".json"), f"{found['seconds']:.1f}", found["device"], libraries]
        )
    return rows


def run_files(teachers: list[str]) -> list[str]:
    single = ("assets", "collect", "clean", "similarity", "decontaminate", "constrain", "parallel", "analysis", "compare")
    each = ("distill", "perplexity", "teachers", "pack", "train", "evaluate", "students")
    return [f"metrics/{name}.json" for name in single] + [f"metrics/{name}/{t}.json" for name in each for t in teachers]


def main() -> None:
    import jinja2

    settings, teachers = params.load(Report, "report"), params.load(list[str], "teachers")
    benchmarks = list(params.load(dict[str, Any], "evaluate.benchmarks"))
    with provenance.record("metrics/report.json", "altair", "vl-convert-python", "jinja2") as metrics:
        compared = read_json("metrics/compare.json")
        drawn = list(figures(Painter(teachers), teachers, compared))
        students = {name: read_json(f"metrics/students/{name}.json") for name in [*teachers, "base"]}
        page = jinja2.Template(PAGE.read_text(), autoescape=True).render(
            settings=settings,
            figures=drawn,
            benchmarks=benchmarks,
            scores=score_rows(students, benchmarks),
            headlines=list(headlines(compared, teachers, benchmarks)),
            warnings=compared["warnings"],
            study=study_rows(settings.study, benchmarks),
            differences=difference_rows(compared["differences"]),
            adaptivity=adaptivity_rows(compared["adaptivity"]),
            many=many_rows(students, benchmarks),
            teacher_head=TEACHER_HEAD,
            teachers=teacher_rows(teachers),
            removed=removed_rows(teachers),
            provenance=provenance_rows(run_files(teachers)),
            trained_on=read_json("metrics/parallel.json")["trained_on"],
        )
        with whole_folder("data/report") as folder:
            write_text(page, folder / "index.html")
        metrics["figures"] = len(drawn)
    say("report", f"{len(drawn)} figures in data/report/index.html")


if __name__ == "__main__":
    provenance.run(main)
