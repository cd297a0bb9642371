"""headline: one teacher's figures under fixed names, so that `dvc metrics diff` can compare teachers as experiments."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages import params
from stages.analyse import write_csv
from stages.params import ParamsError, Section
from stages.provenance import run, say
from stages.tables import read_json, whole_folder, write_json


@dataclass(frozen=True)
class Headline(Section):
    """Whose student stands in metrics/student.json."""

    teacher: str


def headline(scores: dict[str, Any], benchmarks: list[str]) -> dict[str, dict[str, float]]:
    """A score and a length a benchmark."""
    return {name: {field: scores[name][field] for field in ("pass@1", "mean_tokens")} for name in benchmarks}


def main() -> None:
    teacher = params.load(Headline, "headline").teacher
    teachers = params.load(list[str], "teachers")
    if teacher not in teachers:
        raise ParamsError(f"params.yaml: headline.teacher: {teacher!r} is none of the teachers {', '.join(teachers)}")
    benchmarks = list(params.load(dict[str, Any], "evaluate.benchmarks"))
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
            "distill": {name: distilled[name] for name in ("verified_share", "tokens_a_verified_trace")},
            "adaptivity": {name: found and found["mean"] for name, found in compared["adaptivity"][teacher].items()},
        },
        "metrics/student.json",
    )
    with whole_folder("data/headline") as folder, Path(f"data/training/{teacher}/loss.csv").open(newline="") as loss:
        write_csv(list(csv.DictReader(loss)), folder / "loss.csv")
        spans = [{"span": span, "traces": count} for span, count in data["histogram"].items()]
        write_csv(spans, folder / "lengths.csv")
    say("headline", f"metrics/student.json shows {teacher}")


if __name__ == "__main__":
    run(main)
