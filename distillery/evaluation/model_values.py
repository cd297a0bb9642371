"""What models are compared by: pass@1 and mean tokens per training seed and question, of every benchmark."""

from dataclasses import dataclass

import numpy as np

from distillery.core.errors import DataError
from distillery.core.schemas import PASS
from distillery.evaluation.metrics import Sample, grouped

MEASURES = ("pass@1", "mean_tokens")
OVERALL = "overall"


@dataclass(frozen=True)
class Measured:
    """One measure of one model on one benchmark.

    ``values`` has its mean over a question's samples, (seeds, questions); ``sampling`` the sampling variance of the mean
    over seeds, (questions,), not a number where a question was sampled once. pass@1 is in percent.
    """

    values: np.ndarray
    sampling: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """The mean over seeds, (questions,)."""
        found: np.ndarray = self.values.mean(0)
        return found

    def clustered(self, clusters: np.ndarray) -> "Measured":
        """The same with clusters as questions, whose mean is the same; ``clusters`` numbers that of each, (questions,)."""
        count = int(clusters.max()) + 1
        share = count / len(clusters)
        sums = np.stack([np.bincount(clusters, row, count) for row in self.values])
        return Measured(share * sums, share**2 * np.bincount(clusters, self.sampling, count))


Values = dict[str, dict[str, dict[str, Measured]]]
"""By model, benchmark and measure."""


def variance_of_mean(samples: np.ndarray) -> float:
    return float(samples.var(ddof=1) / len(samples)) if len(samples) > 1 else np.nan


def measured(samples: list[Sample], model: str, benchmark: str) -> tuple[list[str], dict[str, Measured]]:
    """The questions' ids, sorted, and each measure. Raises DataError where seeds did not answer the same questions."""
    seeds = [grouped(group, "question_id") for group in grouped(samples, "seed").values()]
    if not seeds or any(each.keys() != seeds[0].keys() for each in seeds):
        raise DataError(f"data/samples/{model}: other questions of {benchmark} than the rest; run `dvc repro`")
    found = {}
    for name in MEASURES:
        drawn = [[np.array([_value(sample, name) for sample in group]) for group in each.values()] for each in seeds]
        means = np.array([[group.mean() for group in each] for each in drawn])
        sampling = np.array([[variance_of_mean(group) for group in each] for each in drawn])
        found[name] = Measured(means, sampling.sum(0) / len(seeds) ** 2)
    return list(seeds[0]), found


def _value(sample: Sample, measure: str) -> float:
    return 100.0 * (sample["verdict"] == PASS) if measure == MEASURES[0] else float(sample["completion_tokens"])


def values_of(samples: dict[str, list[Sample]], benchmarks: list[str]) -> Values:
    """Raises DataError where two models did not answer the same questions."""
    values: Values = {}
    asked: dict[str, list[str]] = {}
    for model, rows in samples.items():
        split = grouped(rows, "benchmark")
        values[model] = {}
        for benchmark in benchmarks:
            questions, values[model][benchmark] = measured(split.get(benchmark, []), model, benchmark)
            if asked.setdefault(benchmark, questions) != questions:
                raise DataError(f"data/samples/{model}: other questions of {benchmark} than the rest; run `dvc repro`")
    return values


def clusters_of(samples: list[Sample], benchmarks: list[str]) -> dict[str, np.ndarray]:
    """By benchmark, the number of each question's cluster, (questions,), questions sorted; one that has none is its own."""
    found = {}
    for benchmark in benchmarks:
        named = {
            each["question_id"]: each["cluster"] or each["question_id"] for each in samples if each["benchmark"] == benchmark
        }
        found[benchmark] = np.unique([named[question] for question in sorted(named)], return_inverse=True)[1]
    return found


def clustered(values: Values, clusters: dict[str, np.ndarray]) -> Values:
    """The same values by cluster: what is resampled and sign-flipped as one."""
    return {
        model: {
            benchmark: {name: each.clustered(clusters[benchmark]) for name, each in measures.items()}
            for benchmark, measures in by_benchmark.items()
        }
        for model, by_benchmark in values.items()
    }


def strata_of(benchmark: str, by_benchmark: dict[str, dict[str, Measured]], measure: str) -> list[Measured]:
    """A measure on one benchmark, or on every one of them."""
    chosen = by_benchmark.values() if benchmark == OVERALL else [by_benchmark[benchmark]]
    return [measures[measure] for measures in chosen]
