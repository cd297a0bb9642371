"""report: one page that works offline, with the study's figures and the tables behind them.

The texts and tables are in `evaluation.report_tables`, the drawings in `evaluation.figures`; traces.html beside it, a sample to
read, is made by `reader`. Nothing on the pages depends on the clock: what each stage's run took is in files under .runs/, which
the page loads when a reader opens that section.
"""

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from distillery.core import config, model_locks
from distillery.core.arms import arm_names
from distillery.core.arms import arms as described_arms
from distillery.core.config import Section
from distillery.core.files import atomic_dir, read_json, write_csv, write_text
from distillery.core.progress import log
from distillery.core.stage import record_metrics, run_path, run_stage
from distillery.core.teachers import BASE, keep_only, teacher_names
from distillery.evaluation import report_tables as tables
from distillery.evaluation.benchmarks import enabled_benchmarks
from distillery.evaluation.figures import Figure, Painter, figures, rows_of
from distillery.evaluation.model_card import model_card
from distillery.reader import labels
from distillery.reader.page import sample_page
from distillery.reader.sample import Bounds, sampled_queries, sampled_questions, sampled_removed
from distillery.verification.agreement import HEAD, table_rows

PAGE = Path("distillery/evaluation/report.html")
BEFORE = ("benchmarks", "collect", "clean", "similarity", "decontaminate", "constrain")
SHARED_BY_ARMS = ("parallel", "analysis", "forecast")
AFTER = ("compare", "outcomes")
JOINT = (*BEFORE, *SHARED_BY_ARMS, *AFTER)
PER_TEACHER = ("distill", "tokenise", "perplexity", "teachers")
PER_ARM = ("pack", "train")
PER_MODEL = ("evaluate", "students")
NUMBER = re.compile(r"[-+]?\d[\d,.]*(?: ?%| \[.*\]| \(\d+\))?$")
GLOSSARY = {
    "teacher": "a model whose answers to the queries, with its thoughts, are what students learn from",
    "trace": "one answer of a teacher, thought included; verified: found right by tests, comparison, judge or reward model",
    "arm": "what one student learns from: by default one teacher's first verified trace of every query",
    "student": "the base model, trained on one arm's traces; several per arm, by training seed",
    "parallel data sets": "one per arm, of the same queries, so that only the traces differ",
    "pass@1": "the share of samples that are right, the mean over a benchmark's questions, in percent",
    "interval": "with 95 % confidence the true value is within; over questions like these, samples and training seeds",
    "adjusted p": "the probability of such a difference between equal models, for the family of comparisons (Holm)",
    "not significant": "the data cannot tell which is better; equivalent: they can tell that it hardly matters",
    "inconclusive": "no verdict could be reached on a sample, say after a time-out; counts as not right",
}


@dataclass(frozen=True)
class Report(Section):
    """The page's title and note, and a study to compare with."""

    title: str
    """Its title."""
    note: str
    """What the run is, and is not."""
    study: str | None
    """A file of a study's own figures to show next to these; null for none."""
    reader: Bounds
    """How much the page of traces holds."""


def by_name(kind: str, names: list[str]) -> dict[str, Any]:
    """The metrics of one kind for each teacher or model, others deleted (`keep_only`)."""
    keep_only(f"metrics/{kind}", names, ".json")
    return {name: read_json(f"metrics/{kind}/{name}.json") for name in names}


def run_files(teachers: list[str], arms: list[str]) -> list[str]:
    """The files of run information that the page may load, in the order of the stages, relative to it."""
    names = [*BEFORE, *(f"{kind}/{teacher}" for kind in PER_TEACHER for teacher in teachers), *SHARED_BY_ARMS]
    names += [f"{kind}/{arm}" for kind in PER_ARM for arm in arms]
    names += [f"{kind}/{model}" for kind in PER_MODEL for model in (*arms, BASE)] + [*AFTER, "report"]
    return [f"../../{run_path(f'metrics/{name}.json')}" for name in names]


def agreement_of(measured: dict[str, Any]) -> dict[str, Any]:
    """What `distillery.verification.measure` found, without categories where it was with other models than this run's."""
    locks = filter(None, (model_locks.read_optional(role) for role in ("judge", "reward")))
    same = measured["models"].items() <= model_locks.brief(*locks).items()
    return measured if same else measured | {"categories": {}}


def curves_of(arms: list[str], seed: int) -> dict[str, list[dict[str, Any]]]:
    """The loss curve of each arm's student of one seed."""
    return {arm: rows_of(Path(f"data/training/{arm}/{seed}/loss.csv")) for arm in arms}


def loss_table(curves: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The students' losses side by side, one row per step: what `dvc plots` draws."""
    steps = sorted({int(row["step"]) for rows in curves.values() for row in rows})
    losses = {arm: {int(row["step"]): row["loss"] for row in rows} for arm, rows in curves.items()}
    return [{"step": step} | {arm: found.get(step, "") for arm, found in losses.items()} for step in steps]


def is_number_like(cell: str) -> bool:
    """Whether a cell is a figure, which is aligned to the right."""
    return bool(NUMBER.match(cell))


def answers(compared: dict[str, Any], stages: dict[str, Any], arms: list[str], traces: dict[str, Any]) -> dict[str, Any]:
    """The first screen."""
    return {
        "answer": tables.answer(compared, arms),
        "training": tables.training_note(compared["training"]),
        "warnings": compared["warnings"],
        "foretold": tables.foretold(stages["forecast"]["metrics"], compared, arms),
        "conclusion": stages["outcomes"]["conclusion"],
        "cost": tables.total_cost(traces),
        "overall_head": tables.OVERALL_HEAD,
        "overall": tables.overall_rows(compared),
        "differences": tables.difference_rows(compared["differences"]),
        "headlines": list(tables.headlines(compared, arms)),
        "margin": compared["margin"],
    }


def data_sets(stages: dict[str, Any], of_teacher: dict[str, Any], arms: list[str]) -> dict[str, Any]:
    """How the data sets differ, what they cost, and what was removed."""
    analysis = stages["analysis"]
    return {
        "trained_on": stages["parallel"]["trained_on"],
        "overlap": analysis["overlap"],
        "only_solved": tables.only_solved(analysis["overlap"]),
        "data_head": tables.DATA_HEAD,
        "data": tables.data_rows(analysis, arms),
        "teacher_head": tables.TEACHER_HEAD,
        "teachers": tables.teacher_rows(of_teacher["teachers"]),
        "cost_head": tables.COST_HEAD,
        "costs": tables.cost_rows(of_teacher["teachers"], of_teacher["distill"]),
        "removed": tables.removed_rows(stages, of_teacher["teachers"]),
        "precision": labels.precision_rows(labels.read()),
    }


def students(compared: dict[str, Any], of_students: dict[str, Any], benchmarks: list[str]) -> dict[str, Any]:
    """How the students score and write."""
    return {
        "scores": tables.score_rows(compared["models"]),
        "adaptivity": tables.adaptivity_rows(compared["adaptivity"] | compared["adaptivity_differences"]),
        "samples": tables.sample_rows(of_students, benchmarks),
    }


def verifiers() -> dict[str, Any]:
    """How well judge and reward model agree with labels."""
    measured = agreement_of(read_json("conf/agreement.json"))
    return {"agreement_head": HEAD, "agreement": table_rows(measured["categories"]), "labels": measured["labels"]}


def locked_models(teachers: list[str]) -> list[list[str]]:
    """Role, model and revision of every model that the run used."""
    roles = [path.stem for path in sorted(Path("models/locks/roles").glob("*.json"))]
    locks = map(model_locks.read_optional, [*roles, *map(model_locks.teacher_role, teachers)])
    return [[lock.role, lock.id, lock.revision] for lock in filter(None, locks)]


def render(settings: Report, teachers: list[str], arms: list[str], benchmarks: list[str], drawn: list[Figure]) -> str:
    """The page."""
    import jinja2

    stages = {name: read_json(f"metrics/{name}.json") for name in JOINT}
    of_teacher = {kind: by_name(kind, teachers) for kind in PER_TEACHER}
    for kind in PER_ARM:
        keep_only(f"metrics/{kind}", arms, ".json")
    of_model = {kind: by_name(kind, [*arms, BASE]) for kind in PER_MODEL}
    compared, forecast = stages["compare"], stages["forecast"]
    environment = jinja2.Environment(autoescape=True)
    environment.tests["number_like"] = is_number_like
    return environment.from_string(PAGE.read_text()).render(
        settings=settings,
        figures={figure.title: figure for figure in drawn},
        benchmarks=benchmarks,
        arms=arms,
        forecast_queries=forecast["queries"],
        forecast=tables.forecast_rows(forecast["metrics"], stages["outcomes"]["agreement"], arms),
        study=tables.study_rows(settings.study, benchmarks),
        glossary=GLOSSARY.items(),
        models=locked_models(teachers),
        run_files=run_files(teachers, arms),
        **answers(compared, stages, arms, of_teacher["distill"]),
        **data_sets(stages, of_teacher, arms),
        **students(compared, of_model["students"], benchmarks),
        **verifiers(),
    )


def reader_page(settings: Report, teachers: list[str], models: list[str], benchmarks: list[str], seed: int) -> str:
    """A sample of traces, removed rows and students' samples, to read."""
    bounds = settings.reader
    views = {
        "queries": sampled_queries(teachers, bounds.queries, seed),
        "removed": sampled_removed(teachers, bounds.removed, seed),
        "questions": sampled_questions(models, benchmarks, bounds.questions, seed),
    }
    return sample_page(settings.title, teachers, views)


def write_cards(arms: list[str], folder: Path) -> None:
    """A model card per student."""
    folder.mkdir()
    described = described_arms()
    for arm, seed in product(arms, config.load(tuple[int, ...], "train.seeds")):
        write_text(model_card(arm, described[arm], seed), folder / f"{arm}-{seed}.md")


def main() -> None:
    settings, teachers, arms = config.load(Report, "report"), teacher_names(), arm_names()
    benchmarks = enabled_benchmarks()
    keep_only("data/training", arms)
    curves = curves_of(arms, config.load(tuple[int, ...], "train.seeds")[0])
    with record_metrics("metrics/report.json", "altair", "vl-convert-python", "jinja2") as (metrics, _):
        drawn = list(figures(Painter(arms), read_json("metrics/compare.json"), Path("data/analysis"), curves))
        page = render(settings, teachers, arms, benchmarks, drawn)
        with atomic_dir("data/report") as folder:
            write_text(page, folder / "index.html")
            traces = reader_page(settings, teachers, [*arms, BASE], benchmarks, config.load(int, "seed"))
            write_text(traces, folder / "traces.html")
            write_csv(loss_table(curves), folder / "loss.csv")
            write_cards(arms, folder / "students")
            (folder / "figures").mkdir()
            for figure in drawn:
                write_text(figure.alone(), folder / "figures" / f"{figure.name}.svg")
        metrics["figures"] = len(drawn)
    log("report", f"{len(drawn)} figures in data/report/index.html, traces to read in traces.html, model cards in students")


if __name__ == "__main__":
    run_stage(main)
