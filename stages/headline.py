"""headline: one teacher's figures under fixed names, so that `dvc metrics diff` can compare teachers as experiments."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.core import config
from distillery.core.config import Section
from distillery.core.errors import ConfigError
from distillery.core.files import atomic_dir, read_json, write_csv, write_json
from distillery.core.progress import log
from distillery.core.stage import run_stage
from distillery.core.teachers import teacher_names
from distillery.evaluation.benchmarks import enabled_benchmarks


@dataclass(frozen=True)
class Headline(Section):
    """Which student metrics/student.json shows."""

    teacher: str
    """Its teacher."""


def headline(scores: dict[str, Any], benchmarks: list[str]) -> dict[str, dict[str, float]]:
    """A score and a length per benchmark."""
    return {name: {field: scores[name][field] for field in ("pass@1", "mean_tokens")} for name in benchmarks}


def main() -> None:
    teacher = config.load(Headline, "headline").teacher
    teachers = teacher_names()
    if teacher not in teachers:
        raise ConfigError(f"params.yaml: headline.teacher: {teacher!r} is none of the teachers {', '.join(teachers)}")
    benchmarks = enabled_benchmarks()
    data, compared = read_json("metrics/analysis.json")[teacher], read_json("metrics/compare.json")
    distilled = read_json(f"metrics/teachers/{teacher}.json")["distill"]
    write_json(
        {
            "overall": {measure: found["mean"] for measure, found in compared["models"][teacher]["overall"].items()},
            **headline(read_json(f"metrics/students/{teacher}.json"), benchmarks),
            "data": {
                "mean_tokens": data["response_tokens"]["mean"],
                "mean_perplexity": data["perplexity"]["mean"],
                "mean_attempts": data["mean_attempts"],
                "length_entropy_bits": data["length_entropy_bits"],
            },
            "distill": {name: distilled[name] for name in ("verified_share", "tokens_per_verified_trace")},
            "adaptivity": {name: found and found["mean"] for name, found in compared["adaptivity"][teacher].items()},
        },
        "metrics/student.json",
    )
    with atomic_dir("data/headline") as folder, Path(f"data/training/{teacher}/loss.csv").open(newline="") as loss:
        write_csv(list(csv.DictReader(loss)), folder / "loss.csv")
        spans = [{"span": span, "traces": count} for span, count in data["histogram"].items()]
        write_csv(spans, folder / "lengths.csv")
    log("headline", f"metrics/student.json shows {teacher}")


if __name__ == "__main__":
    run_stage(main)
