"""report: one page that works offline, with the study's figures and the tables behind them.

The texts and tables are in `evaluation.report_tables`, the drawings in `evaluation.figures`. Nothing on the page depends on
the clock: what each stage's run took is in files under .runs/, which the page loads when a reader opens that section.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.core import config, model_locks
from distillery.core.arms import arm_names
from distillery.core.config import Section
from distillery.core.files import atomic_dir, read_json, write_csv, write_text
from distillery.core.progress import log
from distillery.core.stage import record_metrics, run_path, run_stage
from distillery.core.teachers import BASE, keep_only, teacher_names
from distillery.evaluation import report_tables as tables
from distillery.evaluation.benchmarks import enabled_benchmarks
from distillery.evaluation.figures import Figure, Painter, figures, rows_of
from distillery.verification.agreement import HEAD, table_rows

PAGE = Path("distillery/evaluation/report.html")
BEFORE = ("benchmarks", "collect", "clean", "similarity", "decontaminate", "constrain")
SHARED_BY_ARMS = ("parallel", "analysis", "forecast")
AFTER = ("compare", "outcomes")
JOINT = (*BEFORE, *SHARED_BY_ARMS, *AFTER)
PER_TEACHER = ("distill", "tokenise", "perplexity", "teachers")
PER_ARM = ("pack", "train")
PER_MODEL = ("evaluate", "students")


@dataclass(frozen=True)
class Report(Section):
    """The page's title and note, and a study to compare with."""

    title: str
    """Its title."""
    note: str
    """What the run is, and is not."""
    study: str | None
    """A file of a study's own figures to show next to these; null for none."""


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


def render(settings: Report, teachers: list[str], arms: list[str], benchmarks: list[str], drawn: list[Figure]) -> str:
    """The page."""
    import jinja2

    models = [*arms, BASE]
    stages = {name: read_json(f"metrics/{name}.json") for name in JOINT}
    of_teacher = {kind: by_name(kind, teachers) for kind in PER_TEACHER}
    for kind in PER_ARM:
        keep_only(f"metrics/{kind}", arms, ".json")
    of_model = {kind: by_name(kind, models) for kind in PER_MODEL}
    compared, analysis = stages["compare"], stages["analysis"]
    measured = agreement_of(read_json("conf/agreement.json"))
    return jinja2.Template(PAGE.read_text(), autoescape=True).render(
        settings=settings,
        figures=drawn,
        benchmarks=benchmarks,
        scores=tables.score_rows(compared["models"]),
        headlines=list(tables.headlines(compared, arms)),
        arms=arms,
        conclusion=stages["outcomes"]["conclusion"],
        forecast_queries=stages["forecast"]["queries"],
        forecast=tables.forecast_rows(stages["forecast"]["metrics"], stages["outcomes"]["agreement"], arms),
        training=tables.training_note(compared["training"]),
        warnings=compared["warnings"],
        margin=compared["margin"],
        study=tables.study_rows(settings.study, benchmarks),
        differences=tables.difference_rows(compared["differences"]),
        adaptivity=tables.adaptivity_rows(compared["adaptivity"] | compared["adaptivity_differences"]),
        samples=tables.sample_rows(of_model["students"], benchmarks),
        agreement_head=HEAD,
        agreement=table_rows(measured["categories"]),
        labels=measured["labels"],
        teacher_head=tables.TEACHER_HEAD,
        data_head=tables.DATA_HEAD,
        cost_head=tables.COST_HEAD,
        costs=tables.cost_rows(of_teacher["teachers"], of_teacher["distill"]),
        data=tables.data_rows(analysis, arms),
        overlap=analysis["overlap"],
        only_solved=tables.only_solved(analysis["overlap"]),
        teachers=tables.teacher_rows(of_teacher["teachers"]),
        removed=tables.removed_rows(stages, of_teacher["teachers"]),
        run_files=run_files(teachers, arms),
        trained_on=stages["parallel"]["trained_on"],
    )


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
            write_csv(loss_table(curves), folder / "loss.csv")
            (folder / "figures").mkdir()
            for figure in drawn:
                write_text(figure.alone(), folder / "figures" / f"{figure.name}.svg")
        metrics["figures"] = len(drawn)
    log("report", f"{len(drawn)} figures in data/report/index.html")


if __name__ == "__main__":
    run_stage(main)
