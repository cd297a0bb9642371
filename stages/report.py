"""report: one page that works offline, with the study's figures and the tables behind them.

The words and tables are here, the drawings in `stages.figures`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stages import params, provenance
from stages.figures import Painter, figures
from stages.params import Section
from stages.provenance import say
from stages.tables import read_json, whole_folder, write_text

TEACHER_HEAD = [
    "teacher",
    "attempts verified",
    "queries verified",
    "attempts a query",
    "tokens a verified trace",
    "mean tokens kept",
    "mean perplexity kept",
]
DATA_HEAD = [
    "teacher",
    "response tokens: 5, 25, 50, 75, 95 %",
    "entropy of lengths, bits",
    "median perplexity",
    "attempts a trace",
    "queries only it solved",
]
COST_HEAD = [
    "teacher",
    "device seconds",
    "device seconds a verified trace",
    "tokens generated",
    "tokens a verified trace",
    "price a verified trace",
]
PAGE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Report(Section):
    """``title`` of the page, a ``note`` that says what the run is and is not, and a file of a study's own figures, or null."""

    title: str
    note: str
    study: str | None


def score_rows(models: dict[str, Any]) -> list[list[str]]:
    """pass@1 (mean tokens) of each model: overall, then by benchmark."""
    figure = lambda scores: f"{scores['pass@1']['mean']:.1f} ({scores['mean_tokens']['mean']:.0f})"  # noqa: E731
    return [[name, *map(figure, by_benchmark.values())] for name, by_benchmark in models.items()]


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


def headlines(compared: dict[str, Any], teachers: list[str]) -> Iterator[str]:
    """A sentence overall and a benchmark: whose student scores highest, and from whose it could be told."""
    for benchmark in compared["models"][teachers[0]]:
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
    """By how many percent each student's answers grow over ten points of difficulty."""
    growth = lambda d: "-" if d is None else f"{told(d)} %"  # noqa: E731
    return [[model, growth(found["within"]), growth(found["across"])] for model, found in adaptivities.items()]


def many_rows(students: dict[str, Any], benchmarks: list[str]) -> list[list[str]]:
    """What several samples a question give, and how long and how often cut they are."""
    rows = []
    for name, scores in students.items():
        for benchmark in benchmarks:
            found = scores[benchmark]
            many = ", ".join(f"{measure} {value:.1f}" for measure, value in found["many"].items())
            lengths = f"{found['tokens']['q1']:.0f} / {found['tokens']['median']:.0f} / {found['tokens']['q3']:.0f}"
            shares = (f"{100 * found[share]:.1f} %" for share in ("truncated_share", "unknown_share"))
            rows.append([name, benchmark, many, lengths, *shares])
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


def cost_rows(teachers: list[str]) -> list[list[str]]:
    """What each teacher's traces took of its devices, attempts that failed included."""
    rows = []
    for teacher in teachers:
        run, told = read_json(f"metrics/distill/{teacher}.json"), read_json(f"metrics/teachers/{teacher}.json")["distill"]
        price = told["cost_a_verified_trace"]
        rows.append(
            [
                teacher,
                f"{run['engine_seconds'] * run['devices']:.1f}",
                f"{told['device_seconds_a_verified_trace']:.4g}",
                str(run["tokens"]),
                f"{told['tokens_a_verified_trace']:.1f}",
                "-" if price is None else f"{price:.4g}",
            ]
        )
    return rows


def data_rows(analysis: dict[str, Any], teachers: list[str]) -> list[list[str]]:
    """How the teachers' data sets differ, on the queries that all share."""
    rows = []
    for teacher in teachers:
        found = analysis[teacher]
        spread = [found["response_tokens"][name] for name in ("p05", "q1", "median", "q3", "p95")]
        lengths = " / ".join(f"{tokens:.0f}" for tokens in spread)
        figures = (found["length_entropy_bits"], found["perplexity"]["median"], found["mean_attempts"])
        rows.append([teacher, lengths, *(f"{figure:.2f}" for figure in figures), str(analysis["overlap"]["only"][teacher])])
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
    """The metrics of every stage before this one that says what it ran with."""
    before = ("assets", "benchmarks", "collect", "clean", "similarity", "decontaminate", "constrain")
    of_teachers = [
        f"{name}/{t}" for name in ("distill", "tokenise", "perplexity", "teachers", "pack", "train") for t in teachers
    ]
    of_models = [f"{name}/{model}" for name in ("evaluate", "students") for model in (*teachers, "base")]
    return [f"metrics/{name}.json" for name in (*before, *of_teachers, "parallel", "analysis", *of_models, "compare")]


def main() -> None:
    import jinja2

    settings, teachers = params.load(Report, "report"), params.load(list[str], "teachers")
    benchmarks = list(params.load(dict[str, Any], "evaluate.benchmarks"))
    with provenance.record("metrics/report.json", "altair", "vl-convert-python", "jinja2") as metrics:
        compared, analysis = read_json("metrics/compare.json"), read_json("metrics/analysis.json")
        drawn = list(figures(Painter(teachers), teachers, compared))
        students = {name: read_json(f"metrics/students/{name}.json") for name in [*teachers, "base"]}
        page = jinja2.Template(PAGE.read_text(), autoescape=True).render(
            settings=settings,
            figures=drawn,
            benchmarks=benchmarks,
            scores=score_rows(compared["models"]),
            headlines=list(headlines(compared, teachers)),
            warnings=compared["warnings"],
            study=study_rows(settings.study, benchmarks),
            differences=difference_rows(compared["differences"]),
            adaptivity=adaptivity_rows(compared["adaptivity"]),
            many=many_rows(students, benchmarks),
            teacher_head=TEACHER_HEAD,
            data_head=DATA_HEAD,
            cost_head=COST_HEAD,
            costs=cost_rows(teachers),
            data=data_rows(analysis, teachers),
            overlap=analysis["overlap"],
            teachers=teacher_rows(teachers),
            removed=removed_rows(teachers),
            provenance=provenance_rows(run_files(teachers)),
            trained_on=read_json("metrics/parallel.json")["trained_on"],
        )
        with whole_folder("data/report") as folder:
            write_text(page, folder / "index.html")
            (folder / "figures").mkdir()
            for figure in drawn:
                write_text(figure.alone(), folder / "figures" / f"{figure.name}.svg")
        metrics["figures"] = len(drawn)
    say("report", f"{len(drawn)} figures in data/report/index.html")


if __name__ == "__main__":
    provenance.run(main)
