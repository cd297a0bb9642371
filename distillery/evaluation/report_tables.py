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
    "arm",
    "traces",
    "response tokens: 5, 25, 50, 75, 95 %",
    "entropy of lengths, bits",
    "median perplexity",
    "attempts per trace",
]
COST_HEAD = ["teacher", "attempts", "tokens generated", "tokens per verified trace"]


def format_interval(estimate: Metrics, digits: int = 1) -> str:
    """A mean and its interval: ``4.2 [1.0, 7.3]``; where there is none, the mean alone."""
    if estimate["low"] is None:
        return f"{estimate['mean']:.{digits}f}"
    return f"{estimate['mean']:.{digits}f} [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"


def score_rows(models: Metrics) -> list[list[str]]:
    """pass@1 (mean tokens) of each model: overall, then by benchmark."""
    return [
        [name, *(f"{scores['pass@1']['mean']:.1f} ({scores['mean_tokens']['mean']:.0f})" for scores in by_benchmark.values())]
        for name, by_benchmark in models.items()
    ]


def difference_rows(differences: Metrics) -> list[list[str]]:
    """One row per pair and benchmark: the differences, adjusted p, verdict, and what would be found or would settle it."""
    rows = []
    for pair, by_benchmark in differences.items():
        for benchmark, measured in by_benchmark.items():
            scored, tokens = measured["pass@1"], measured["mean_tokens"]
            found = "-" if scored["detectable"] is None else f"{scored['detectable']:.1f}"
            these = scored["on_these_questions"]
            here = f"[{these['low']:.1f}, {these['high']:.1f}]" if these else "-"
            lengths = f"{format_interval(tokens)}, {tokens['verdict']}"
            p = f"{scored['p_holm']:.3g}"
            cells = [format_interval(scored), here, p, scored["verdict"], found]
            rows.append([pair, benchmark, *cells, shares_of(scored), settles(scored), lengths])
    return rows


def shares_of(scored: Metrics) -> str:
    """The shares of seeds, questions and samples in the variance of a difference, in percent."""
    shares = scored["variance"]
    return " / ".join(f"{100 * shares[name]:.0f}" for name in ("seeds", "questions", "samples")) if shares else "-"


def settles(scored: Metrics) -> str:
    """How many times more of what would find a difference as small as the margin; empty where a difference is decided."""
    ways = [f"{times} x {name}" for name, times in scored.get("settles", {}).items() if times]
    return " or ".join(ways) if ways else "none of them alone" if "settles" in scored else ""


def forecast_rows(forecast: Metrics, agreement: Metrics, arms: list[str]) -> list[list[str]]:
    """One row per metric: what each arm has, which order it foretells, and how many pairs it ordered right so far."""
    rows = []
    for name, found in forecast.items():
        known, better = agreement.get(name), found["better"]
        right = "-" if known is None else f"{known['right']} of {known['pairs']}"
        share = f"{100 * known['low']:.0f} to {100 * known['high']:.0f} %" if known and known["low"] is not None else "-"
        figures = (format_interval(found["arms"][arm], 3) for arm in arms)
        rows.append([name, better or "-", *figures, " > ".join(found["ranking"] or ["-"]), right, share, found["source"]])
    return rows


def training_note(training: Metrics) -> str:
    """Whether the training seed is in the verdicts."""
    seeds = sorted(set(training["seeds"].values()))
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    if training["sd"] is None:
        return "One student per arm: what another training seed would change is in no verdict."
    spread = f"beyond questions and samples they scatter by {training['sd']:.1f} points (pooled standard deviation)"
    return f"{count} students per arm, by training seed: {spread}, which is in every interval and verdict."


def answer(compared: Metrics, arms: list[str]) -> str:
    """Whose traces teach best overall and how certain that is, in one or two sentences."""
    scores = {arm: compared["models"][arm][OVERALL]["pass@1"]["mean"] for arm in arms}
    best = max(arms, key=scores.__getitem__)
    others = [arm for arm in arms if arm != best]
    lower = [arm for arm in others if is_higher(compared["differences"], best, arm, OVERALL)]
    above = is_higher(compared["differences"], best, BASE, OVERALL)
    base = f"{'significantly' if above else 'not significantly'} more than the base model"
    lead = f"Students of {best} score highest: {scores[best]:.1f} % overall, {base}."
    if not others:
        return lead
    if len(lower) == len(others):
        return f"{best} teaches best. {lead} They are significantly above the students of {listed(lower)}."
    open_ = [arm for arm in others if arm not in lower]
    if not lower:
        return f"No arm teaches significantly better than another. {lead}"
    return f"{lead} They are significantly above the students of {listed(lower)}; against {listed(open_)} nothing is decided."


def listed(names: list[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def foretold(forecast: Metrics, compared: Metrics, arms: list[str]) -> str:
    """How many metrics named the arm whose students then scored highest, and which did."""
    scores = {arm: compared["models"][arm][OVERALL]["pass@1"]["mean"] for arm in arms}
    best = max(arms, key=scores.__getitem__)
    ranked = {name: found["ranking"] for name, found in forecast.items() if found["ranking"]}
    right = [name for name, ranking in ranked.items() if ranking[0] == best]
    which = f": {listed(right)}" if right else ""
    return f"Before training, {len(right)} of {len(ranked)} metrics put {best} first{which}."


def total_cost(runs: Metrics) -> str:
    """What all traces cost in tokens."""
    tokens = sum(found["tokens"] for found in runs.values())
    return f"The traces took {tokens:,} generated tokens, failed attempts included."


def forest_rows(differences: Metrics) -> list[Metrics]:
    """One row per pair and benchmark with its interval and verdict: what the figure of differences draws."""
    return [
        {"pair": pair, "benchmark": benchmark, "verdict": measured["pass@1"]["verdict"]}
        | {name: measured["pass@1"][name] for name in ("mean", "low", "high")}
        for pair, by_benchmark in differences.items()
        for benchmark, measured in by_benchmark.items()
    ]


def overall_rows(compared: Metrics) -> list[list[str]]:
    """One row per pair: both overall scores, the difference with its interval, adjusted p and verdict."""
    rows = []
    for pair, by_benchmark in compared["differences"].items():
        a, b = pair.split(" - ")
        scores = [f"{compared['models'][name][OVERALL]['pass@1']['mean']:.1f}" for name in (a, b)]
        found = by_benchmark[OVERALL]["pass@1"]
        rows.append([pair, *scores, format_interval(found), f"{found['p_holm']:.2g}", found["verdict"]])
    return rows


OVERALL_HEAD = ["pair", "first, %", "second, %", "difference [95 %]", "adjusted p", "verdict"]


def headlines(compared: Metrics, arms: list[str]) -> Iterator[str]:
    """One sentence per benchmark, overall first: whose students score highest, and which differences are significant."""
    for benchmark in compared["models"][arms[0]]:
        scores = {arm: compared["models"][arm][benchmark]["pass@1"]["mean"] for arm in arms}
        best = max(arms, key=scores.__getitem__)
        higher = [arm for arm in arms if is_higher(compared["differences"], best, arm, benchmark)]
        alike = [arm for arm in arms if verdict_on(compared["differences"], best, arm, benchmark) == "equivalent"]
        others = [arm for arm in arms if arm not in (best, *higher, *alike)]
        above_base = [arm for arm in arms if is_higher(compared["differences"], arm, BASE, benchmark)]
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
    """By how many percent responses grow per ten points of difficulty, of each model, and how much that differs by pair."""
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
                f"{100 * distilled['verified_share']:.1f} %{by_majority(distilled)}",
                f"{distilled['attempts_per_query']:.2f}",
                f"{distilled['tokens_per_verified_trace']:.1f}",
                *("-" if mean is None else f"{mean:.2f}" for mean in kept),
            ]
        )
    return rows


def by_majority(distilled: Metrics) -> str:
    """How many queries were verified only by agreement among answers; empty where none was."""
    return f", {distilled['verified_by_majority']} by majority" if distilled.get("verified_by_majority") else ""


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


def data_rows(analysis: Metrics, arms: list[str]) -> list[list[str]]:
    """How the arms' data sets differ."""
    rows = []
    for arm in arms:
        found = analysis[arm]
        spread = [found["response_tokens"][name] for name in ("p05", "q1", "median", "q3", "p95")]
        lengths = " / ".join(f"{tokens:.0f}" for tokens in spread)
        figures = (found["length_entropy_bits"], found["perplexity"]["median"], found["mean_attempts"])
        rows.append([arm, str(sum(found["instances"].values())), lengths, *(f"{figure:.2f}" for figure in figures)])
    return rows


def only_solved(overlap: Metrics) -> str:
    """How many queries each teacher alone solved."""
    return ", ".join(f"{teacher} {count}" for teacher, count in overlap["only"].items())


def student_rows(students: Metrics, benchmarks: list[str]) -> list[list[str]]:
    """pass@1 / mean tokens of each model, by benchmark."""
    return [
        [name, *(f"{scores[b]['pass@1']:.1f} / {scores[b]['mean_tokens']:.0f}" for b in benchmarks)]
        for name, scores in students.items()
    ]
