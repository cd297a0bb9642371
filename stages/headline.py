"""headline: one arm's figures under fixed names, so that `dvc metrics diff` can compare arms as experiments."""

import csv
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from distillery.core import config
from distillery.core.arms import arms
from distillery.core.config import Section
from distillery.core.errors import ConfigError
from distillery.core.files import atomic_dir, read_json, write_csv, write_json
from distillery.core.progress import log
from distillery.core.stage import run_stage


@dataclass(frozen=True)
class Headline(Section):
    """Which students metrics/student.json shows."""

    arm: str
    """Their arm."""


def headline(scores: dict[str, Any]) -> dict[str, dict[str, float]]:
    """A score and a length, overall and per benchmark, as `compare` has them."""
    return {name: {measure: found["mean"] for measure, found in each.items()} for name, each in scores.items()}


def main() -> None:
    arm, described = config.load(Headline, "headline").arm, arms()
    if arm not in described:
        raise ConfigError(f"params.yaml: headline.arm: {arm!r} is none of the arms {', '.join(described)}")
    data, compared = read_json("metrics/analysis.json")[arm], read_json("metrics/compare.json")
    distilled = [read_json(f"metrics/teachers/{teacher}.json")["distill"] for teacher in described[arm].teachers]
    seed = config.load(tuple[int, ...], "train.seeds")[0]
    scores = compared["models"][arm]
    write_json(
        {
            **headline(scores),
            "sd_between_seeds": {measure: found["sd_between_seeds"] for measure, found in scores["overall"].items()},
            "data": {
                "mean_tokens": data["response_tokens"]["mean"],
                "mean_perplexity": data["perplexity"]["mean"],
                "mean_attempts": data["mean_attempts"],
                "length_entropy_bits": data["length_entropy_bits"],
            },
            "distill": {
                name: round(fmean(each[name] for each in distilled), 4)
                for name in ("verified_share", "tokens_per_verified_trace")
            },
            "adaptivity": {name: found and found["mean"] for name, found in compared["adaptivity"][arm].items()},
        },
        "metrics/student.json",
    )
    with atomic_dir("data/headline") as folder, Path(f"data/training/{arm}/{seed}/loss.csv").open(newline="") as loss:
        write_csv(list(csv.DictReader(loss)), folder / "loss.csv")
        spans = [{"span": span, "traces": count} for span, count in data["histogram"].items()]
        write_csv(spans, folder / "lengths.csv")
    log("headline", f"metrics/student.json shows {arm}")


if __name__ == "__main__":
    run_stage(main)
