"""The report's tables and sentences, built from metrics; cells are strings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from distillery.core.teachers import BASE

Metrics = dict[str, Any]
OVERALL = "overall"
TEACHER_HEAD = [
    "teacher",
    "attempts verified",
    "queries verified",
    "attempts per query",
    "tokens per verified trace",
    "mean tokens kept",
    "mean perplexity kept",
]
DATA_HEAD = [
    "teacher",
    "response tokens: 5, 25, 50, 75, 95 %",
    "entropy of lengths, bits",
    "median perplexity",
    "attempts per trace",
    "queries only it solved",
]
COST_HEAD = ["teacher", "attempts", "tokens generated", "tokens per verified trace"]


def format_interval(estimate: Metrics, digits: int = 1) -> str:
    """A mean and its interval: ``4.2 [1.0, 7.3]``."""
    return f"{estimate['mean']:.{digits}f} [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"


def score_rows(models: Metrics) -> list[list[str]]:
    """pass@1 (mean tokens) of each model: overall, then by benchmark."""
    return [
        [name, *(f"{scores['pass@1']['mean']:.1f} ({scores['mean_tokens']['mean']:.0f})" for scores in by_benchmark.values())]
        for name, by_benchmark in models.items()
    ]


def difference_rows(differences: Metrics) -> list[list[str]]:
    """One row per pair and benchmark: the differences, adjusted p, verdict, and the smallest difference that would be found."""
    rows = []
    for pair, by_benchmark in differences.items():
        for benchmark, measured in by_benchmark.items():
            scored, tokens = measured["pass@1"], measured["mean_tokens"]
            found = "-" if scored["detectable"] is None else f"{scored['detectable']:.1f}"
            these = scored["on_these_questions"]
            here = f"[{these['low']:.1f}, {these['high']:.1f}]" if these else "-"
            lengths = f"{format_interval(tokens)}, {tokens['verdict']}"
            p = f"{scored['p_holm']:.3g}"
            rows.append([pair, benchmark, format_interval(scored), here, p, scored["verdict"], found, lengths])
    return rows


def headlines(compared: Metrics, teachers: list[str]) -> Iterator[str]:
    """One sentence per benchmark, overall first: whose student scores highest, and which differences are significant."""
    for benchmark in compared["models"][teachers[0]]:
        scores = {teacher: compared["models"][teacher][benchmark]["pass@1"]["mean"] for teacher in teachers}
        best = max(teachers, key=scores.__getitem__)
        higher = [teacher for teacher in teachers if is_higher(compared["differences"], best, teacher, benchmark)]
        alike = [
            teacher for teacher in teachers if verdict_on(compared["differences"], best, teacher, benchmark) == "equivalent"
        ]
        others = [teacher for teacher in teachers if teacher not in (best, *higher, *alike)]
        above_base = [teacher for teacher in teachers if is_higher(compared["differences"], teacher, BASE, benchmark)]
        parts = [
            f"{benchmark}: {best} highest with {scores[best]:.1f} %",
            f"significantly higher than {', '.join(higher)}" if higher else "",
            f"equivalent to {', '.join(alike)}" if alike else "",
            f"not significantly different from {', '.join(others)}" if others else "",
            f"significantly higher than the base: {', '.join(above_base) or 'none'}",
        ]
        yield "; ".join(filter(None, parts)) + "."


def is_higher(differences: Metrics, model: str, other: str, benchmark: str) -> bool:
    """Whether one model scores significantly higher than another."""
    wanted = "higher" if f"{model} - {other}" in differences else "lower"
    return verdict_on(differences, model, other, benchmark) == wanted


def verdict_on(differences: Metrics, model: str, other: str, benchmark: str) -> str | None:
    """The verdict on two models' scores, in whichever order they were compared; None for a model and itself."""
    found = differences.get(f"{model} - {other}") or differences.get(f"{other} - {model}")
    return found[benchmark]["pass@1"]["verdict"] if found else None


def study_rows(path: str | None, benchmarks: list[str]) -> list[list[str]]:
    """A study's own figures, as its file has them: pass@1 (mean tokens) by teacher and benchmark."""
    found = yaml.safe_load(Path(path).read_text()) if path else {}
    rows = [[teacher, *(scores.get(benchmark, "-") for benchmark in benchmarks)] for teacher, scores in found.items()]
    return [[str(cell) for cell in row] for row in rows]


def adaptivity_rows(adaptivities: Metrics) -> list[list[str]]:
    """By how many percent each student's responses grow per ten points of difficulty."""
    rows = []
    for model, found in adaptivities.items():
        growth = [found[name] for name in ("within", "across")]
        rows.append([model, *("-" if each is None else f"{format_interval(each)} %" for each in growth)])
    return rows


def sample_rows(students: Metrics, benchmarks: list[str]) -> list[list[str]]:
    """pass@k and majority@k, and how long and how often truncated or inconclusive samples are."""
    rows = []
    for name, scores in students.items():
        for benchmark in benchmarks:
            found = scores[benchmark]
            many = ", ".join(f"{measure} {value:.1f}" for measure, value in found["many"].items())
            lengths = f"{found['tokens']['q1']:.0f} / {found['tokens']['median']:.0f} / {found['tokens']['q3']:.0f}"
            shares = (f"{100 * found[share]:.1f} %" for share in ("truncated_share", "unknown_share"))
            rows.append([name, benchmark, many, lengths, *shares])
    return rows


def removed_rows(stages: Metrics, teachers: Metrics) -> list[list[str]]:
    """Stage, reason and count of every row that was removed; metrics by stage, and those of curate by teacher."""
    rows = [["collect", reason, str(count)] for reason, count in stages["collect"]["malformed"].items()]
    rows += [["clean", reason, str(count)] for reason, count in stages["clean"]["rejected"].items()]
    for benchmark, methods in stages["decontaminate"]["rejected"].items():
        rows += [["decontaminate", f"{benchmark}: {method}", str(count)] for method, count in methods.items()]
    rows += [["constrain", reason, str(count)] for reason, count in stages["constrain"]["rejected"].items()]
    for teacher, found in teachers.items():
        rows.append([f"distill@{teacher}", "never verified", str(found["distill"]["queries"] - found["distill"]["verified"])])
        rows += [[f"curate@{teacher}", reason, str(count)] for reason, count in found["curate"]["rejected"].items()]
    rows.append(["parallel", "too long to train on", str(stages["parallel"]["over_long"])])
    return rows


def teacher_rows(teachers: Metrics) -> list[list[str]]:
    """Each teacher's distillation statistics, and how many traces were kept."""
    rows = []
    for teacher, found in teachers.items():
        distilled = found["distill"]
        kept = [found["mean_response_tokens"], found["mean_perplexity"]]
        rows.append(
            [
                teacher,
                f"{100 * distilled['pass_rate']:.1f} %",
                f"{100 * distilled['verified_share']:.1f} %",
                f"{distilled['attempts_per_query']:.2f}",
                f"{distilled['tokens_per_verified_trace']:.1f}",
                *("-" if mean is None else f"{mean:.2f}" for mean in kept),
            ]
        )
    return rows


def cost_rows(teachers: Metrics, runs: Metrics) -> list[list[str]]:
    """What each teacher's traces cost in tokens, failed attempts included; ``runs`` are distill's own metrics."""
    return [
        [
            teacher,
            str(found["distill"]["attempts"]),
            str(runs[teacher]["tokens"]),
            f"{found['distill']['tokens_per_verified_trace']:.1f}",
        ]
        for teacher, found in teachers.items()
    ]


def data_rows(analysis: Metrics, teachers: list[str]) -> list[list[str]]:
    """How the teachers' data sets differ, on the queries that all share."""
    rows = []
    for teacher in teachers:
        found = analysis[teacher]
        spread = [found["response_tokens"][name] for name in ("p05", "q1", "median", "q3", "p95")]
        lengths = " / ".join(f"{tokens:.0f}" for tokens in spread)
        figures = (found["length_entropy_bits"], found["perplexity"]["median"], found["mean_attempts"])
        rows.append([teacher, lengths, *(f"{figure:.2f}" for figure in figures), str(analysis["overlap"]["only"][teacher])])
    return rows


def student_rows(students: Metrics, benchmarks: list[str]) -> list[list[str]]:
    """pass@1 / mean tokens of each model, by benchmark."""
    return [
        [name, *(f"{scores[b]['pass@1']:.1f} / {scores[b]['mean_tokens']:.0f}" for b in benchmarks)]
        for name, scores in students.items()
    ]
