"""compare: which differences between students are differences, and which are noise.

Every student answers the same questions, so differences are paired by question: a bootstrap over questions of the
difference of their pass rates (Efron and Tibshirani, 1993), samples within a question staying together.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from stages import params, provenance
from stages.params import Positive, Section, Share
from stages.provenance import say
from stages.score import Sample, grouped
from stages.tables import read
from stages.verifiers import PASS


@dataclass(frozen=True)
class Compare(Section):
    """``resamples`` of the bootstrap; ``confidence`` of its percentile intervals."""

    resamples: Positive
    confidence: Share


def per_question(samples: list[Sample], value: str) -> np.ndarray:
    """One number a question, (questions,), by question id: ``pass`` in percent, or ``tokens``."""
    of = {"pass": lambda s: 100.0 * (s["verdict"] == PASS), "tokens": lambda s: float(s["completion_tokens"])}[value]
    return np.array([np.mean([of(sample) for sample in group]) for group in grouped(samples, "question_id").values()])


def bootstrap(values: np.ndarray, settings: Compare, seed: int) -> dict[str, float]:
    """The mean of (questions,) values with its percentile interval and the two-sided p of a mean of zero."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), (settings.resamples, len(values)))
    means = values[picks].mean(1)
    tail = 50 * (1 - settings.confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    p = 2 * (min((means <= 0).sum(), (means >= 0).sum()) + 1) / (settings.resamples + 1)
    figures = {"mean": values.mean(), "low": low, "high": high}
    return {name: round(float(figure), 4) for name, figure in figures.items()} | {"p": float(f"{min(1.0, p):.3g}")}


def differences(samples: dict[str, list[Sample]], benchmarks: list[str], settings: Compare, seed: int) -> dict[str, Any]:
    """For every two models and every benchmark: the paired difference of pass@1 and of mean tokens."""
    split = {name: grouped(rows, "benchmark") for name, rows in samples.items()}
    found: dict[str, Any] = {}
    for a, b in combinations(samples, 2):
        for benchmark in benchmarks:
            for value, name in (("pass", "pass@1"), ("tokens", "mean_tokens")):
                change = per_question(split[a][benchmark], value) - per_question(split[b][benchmark], value)
                found.setdefault(f"{a} - {b}", {}).setdefault(benchmark, {})[name] = bootstrap(change, settings, seed)
    return found


def intervals(samples: dict[str, list[Sample]], benchmarks: list[str], settings: Compare, seed: int) -> dict[str, Any]:
    """Every model's own pass@1 and mean tokens with intervals."""
    split = {name: grouped(rows, "benchmark") for name, rows in samples.items()}
    values = (("pass", "pass@1"), ("tokens", "mean_tokens"))
    return {
        model: {
            b: {name: bootstrap(per_question(groups[b], value), settings, seed) for value, name in values} for b in benchmarks
        }
        for model, groups in split.items()
    }


def main() -> None:
    settings, seed = params.load(Compare, "compare"), params.load(int, "seed")
    models = [*params.load(list[str], "teachers"), "base"]
    benchmarks = list(params.load(dict[str, Any], "evaluate.benchmarks"))
    with provenance.record("metrics/compare.json", "numpy") as metrics:
        samples = {name: read(f"data/samples/{name}").to_pylist() for name in models}
        metrics["models"] = intervals(samples, benchmarks, settings, seed)
        metrics["differences"] = differences(samples, benchmarks, settings, seed)
    for pair, by_benchmark in metrics["differences"].items():
        told = [
            f"{b} {d['pass@1']['mean']:+.1f} [{d['pass@1']['low']:+.1f}, {d['pass@1']['high']:+.1f}]"
            for b, d in by_benchmark.items()
        ]
        say("compare", f"{pair}: {', '.join(told)}")


if __name__ == "__main__":
    provenance.run(main)
