"""score: one model's figures out of its samples: pass@1, mean length, cuts, by benchmark and difficulty."""

from collections import defaultdict
from statistics import fmean
from typing import Any

from stages import params, provenance
from stages.provenance import say
from stages.tables import read
from stages.verifiers import PASS, UNKNOWN

Sample = dict[str, Any]


def grouped(samples: list[Sample], field: str) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample[field]].append(sample)
    return dict(sorted(groups.items()))


def pass_at_1(samples: list[Sample]) -> float:
    """The mean over questions of the share of samples that pass, in percent."""
    questions = grouped(samples, "question_id").values()
    return 100 * fmean(fmean(sample["verdict"] == PASS for sample in question) for question in questions)


def score(samples: list[Sample]) -> dict[str, Any]:
    """The figures of one benchmark."""
    return {
        "pass@1": round(pass_at_1(samples), 2),
        "mean_tokens": round(fmean(sample["completion_tokens"] for sample in samples), 2),
        "truncated_share": round(fmean(sample["finish_reason"] == "length" for sample in samples), 4),
        "unknown_share": round(fmean(sample["verdict"] == UNKNOWN for sample in samples), 4),
        "by_difficulty": {
            level: {
                "pass@1": round(pass_at_1(group), 2),
                "mean_tokens": round(fmean(sample["completion_tokens"] for sample in group), 2),
            }
            for level, group in grouped(samples, "difficulty").items()
        },
    }


def main(name: str) -> None:
    with provenance.record(f"metrics/students/{name}.json") as metrics:
        samples = read(f"data/samples/{name}").to_pylist()
        order = params.load(dict[str, Any], "evaluate.benchmarks")
        by_benchmark = grouped(samples, "benchmark")
        metrics.update({benchmark: score(by_benchmark[benchmark]) for benchmark in order})
    say(f"score@{name}", ", ".join(f"{each} {metrics[each]['pass@1']:.1f}" for each in order))


if __name__ == "__main__":
    provenance.run(main)
