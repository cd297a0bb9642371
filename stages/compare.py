"""compare: tests which differences between students are statistically significant.

Every student answers the same questions, so differences are paired by question: p values by sign-flip permutation, intervals
by bootstrap over questions (`paired_statistics`). ``overall`` is the mean over benchmarks, each of the same weight. All
differences of one measure are one family, those of ``overall`` a family of their own, and p values are adjusted within a
family by Holm's method. A difference is significant (``higher`` or ``lower``) where its adjusted p is within the level; else
two models are ``equivalent`` where the whole interval is within the margin, and ``not significant`` otherwise. The smallest
difference that Holm's next step would find with a power of 80 % is ``detectable``.

Intervals are for questions like these, of which the benchmark is a sample; ``on_these_questions`` is the narrower one of the
benchmark as it is, which leaves only the luck of sampling. A single training per student is behind each: the luck of its
seed is in neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from distillery.core import config
from distillery.core.config import NonNegativeFloat, Positive, Section, Share
from distillery.core.errors import DataError
from distillery.core.files import read_json
from distillery.core.progress import log
from distillery.core.schemas import PASS
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import read_table
from distillery.core.teachers import BASE, keep_only, teacher_names
from distillery.evaluation.benchmarks import enabled_benchmarks
from distillery.evaluation.metrics import Sample, grouped
from distillery.evaluation.paired_statistics import (
    adaptivity,
    estimate_over,
    holm,
    sampling_interval,
    sign_flip_p,
    smallest_detectable,
    smallest_p,
)

MEASURES = ("pass@1", "mean_tokens")
OVERALL = "overall"
BINS = 5
SIGNIFICANT, EQUIVALENT, NOT_SIGNIFICANT = ("higher", "lower"), "equivalent", "not significant"
VARIANCE = {"pass@1": "variance of pass@1", "mean_tokens": "variance of mean_tokens"}
"""Where the sampling variances of a measure's values stand beside them."""
CONDITIONS = ("engines", "sampling", "prompts", "tasks", "verifiers", "judge")
Values = dict[str, dict[str, dict[str, np.ndarray]]]
"""By model, benchmark and measure: one number per question, (questions,)."""


@dataclass(frozen=True)
class Compare(Section):
    """How models are compared."""

    resamples: Positive
    """Draws of the bootstrap and of the permutation test."""
    confidence: Share
    """The confidence of intervals; 1 less it is the level of significance."""
    margin: NonNegativeFloat = 2.0
    """Models whose pass@1 differs by less than so many points, with that confidence, are equivalent."""


def per_question(samples: list[Sample]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The questions' ids, sorted, and each measure's mean over a question's samples with its variance; pass@1 in percent."""
    questions = grouped(samples, "question_id")
    passed = [np.array([100.0 * (sample["verdict"] == PASS) for sample in group]) for group in questions.values()]
    tokens = [np.array([float(sample["completion_tokens"]) for sample in group]) for group in questions.values()]
    values = {}
    for measure, drawn in zip(MEASURES, (passed, tokens), strict=True):
        values[measure] = np.array([each.mean() for each in drawn])
        values[VARIANCE[measure]] = np.array([each.var(ddof=1) / len(each) if len(each) > 1 else np.nan for each in drawn])
    return list(questions), values


def values_of(samples: dict[str, list[Sample]], benchmarks: list[str]) -> Values:
    """Raises DataError where two models did not answer the same questions."""
    values: Values = {}
    asked: dict[str, list[str]] = {}
    for model, rows in samples.items():
        split = grouped(rows, "benchmark")
        values[model] = {}
        for benchmark in benchmarks:
            questions, values[model][benchmark] = per_question(split.get(benchmark, []))
            if asked.setdefault(benchmark, questions) != questions or not questions:
                raise DataError(f"data/samples/{model}: other questions of {benchmark} than the rest; run `dvc repro`")
    return values


def strata_of(benchmark: str, by_benchmark: dict[str, dict[str, np.ndarray]], measure: str) -> list[np.ndarray]:
    """A measure on one benchmark, or on every one of them."""
    chosen = by_benchmark.values() if benchmark == OVERALL else [by_benchmark[benchmark]]
    return [measures[measure] for measures in chosen]


def compared(change: list[np.ndarray], settings: Compare, seed: int) -> dict[str, Any]:
    """A paired difference: its mean, interval and p; ``change`` has one number per question, an array per benchmark."""
    found = estimate_over(change, settings.resamples, settings.confidence, seed)
    return {**found, "p": float(f"{sign_flip_p(change, settings.resamples, seed):.3g}")}


def differences(values: Values, settings: Compare, seed: int) -> dict[str, Any]:
    """For every two models, benchmark and measure: the paired difference, its adjusted p, and the verdict."""
    found: dict[str, Any] = {}
    families: dict[tuple[str, bool], list[tuple[dict[str, Any], list[np.ndarray]]]] = {}
    for a, b in combinations(values, 2):
        for benchmark, measure in product((OVERALL, *values[a]), MEASURES):
            change = [left - right for left, right in paired(values, (a, b), benchmark, measure)]
            difference = compared(change, settings, seed)
            variances = [left + right for left, right in paired(values, (a, b), benchmark, VARIANCE[measure])]
            difference["on_these_questions"] = sampling_interval(difference["mean"], variances, settings.confidence)
            found.setdefault(f"{a} - {b}", {}).setdefault(benchmark, {})[measure] = difference
            families.setdefault((measure, benchmark == OVERALL), []).append((difference, change))
    for (measure, _), family in families.items():
        judge(family, settings, settings.margin if measure == "pass@1" else 0.0)
    return found


def paired(values: Values, pair: tuple[str, str], benchmark: str, measure: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two models' values, (questions,) each, a pair of arrays per benchmark."""
    return list(zip(*(strata_of(benchmark, values[model], measure) for model in pair), strict=True))


def judge(family: list[tuple[dict[str, Any], list[np.ndarray]]], settings: Compare, margin: float) -> None:
    """Adds to each difference of a family its adjusted p, the verdict, and the smallest difference that would be found.

    Where none could be found, since questions are few or do not scatter, nothing is equivalent.
    """
    level = 1 - settings.confidence
    adjusted = holm([difference["p"] for difference, _ in family])
    undecided = sum(p > level for p in adjusted)
    for (difference, change), p in zip(family, adjusted, strict=True):
        difference["p_holm"] = p
        difference["detectable"] = smallest_detectable(change, level / max(1, undecided), settings.resamples)
        within = difference["detectable"] is not None and -margin < difference["low"] and difference["high"] < margin
        others = EQUIVALENT if within else NOT_SIGNIFICANT
        difference["verdict"] = SIGNIFICANT[difference["mean"] < 0] if p <= level else others


def intervals(values: Values, settings: Compare, seed: int) -> dict[str, Any]:
    """Every model's own pass@1 and mean tokens with intervals."""
    found: dict[str, Any] = {}
    for model, by_benchmark in values.items():
        for benchmark, measure in product((OVERALL, *by_benchmark), MEASURES):
            strata = strata_of(benchmark, by_benchmark, measure)
            about: dict[str, Any] = dict(estimate_over(strata, settings.resamples, settings.confidence, seed))
            variances = strata_of(benchmark, by_benchmark, VARIANCE[measure])
            about["on_these_questions"] = sampling_interval(about["mean"], variances, settings.confidence)
            found.setdefault(model, {}).setdefault(benchmark, {})[measure] = about
    return found


def difficulties(values: Values) -> dict[str, list[np.ndarray]]:
    """By model, an array per benchmark: how hard its questions are, as the fail rates of all *other* models, from 0 to 1.

    Leave-one-model-out: the model's own samples are excluded, since a truncated one fails and is long, whatever the question.
    """
    failing = {model: [1 - measures["pass@1"] / 100 for measures in by.values()] for model, by in values.items()}
    return {
        model: [np.mean(blocks, 0) for blocks in zip(*(failing[other] for other in failing if other != model), strict=True)]
        for model in failing
    }


def adaptivities(values: Values, settings: Compare, seed: int) -> dict[str, Any]:
    """How each model's length depends on difficulty."""
    tokens = {model: [measures["mean_tokens"] for measures in by.values()] for model, by in values.items()}
    return adaptivity(difficulties(values), tokens, settings.resamples, settings.confidence, seed)


def by_difficulty(values: Values) -> list[dict[str, Any]]:
    """Mean tokens per model and difficulty bin; ``fails`` is the bin's midpoint in percent."""
    rows = []
    for model, blocks in difficulties(values).items():
        bins = np.minimum((np.concatenate(blocks) * BINS).astype(int), BINS - 1)
        tokens = np.concatenate([measures["mean_tokens"] for measures in values[model].values()])
        for each in np.unique(bins):
            here = tokens[bins == each]
            middle = 100 * (int(each) + 0.5) / BINS
            rows.append({"model": model, "fails": middle, "questions": len(here), "mean_tokens": round(float(here.mean()), 2)})
    return rows


def too_few(values: Values, settings: Compare) -> Iterator[str]:
    """One line for each benchmark on which no difference can reach significance, whatever its size."""
    benchmarks = next(iter(values.values()))
    family = len(list(combinations(values, 2))) * len(benchmarks)
    for benchmark, measures in benchmarks.items():
        questions = len(measures["pass@1"])
        if family * smallest_p(questions, settings.resamples) > 1 - settings.confidence:
            asked = f"{questions} questions, {settings.resamples} resamples, {family} comparisons at {settings.confidence}"
            yield f"no difference on {benchmark} can reach significance ({asked}); raise compare.resamples or add questions"


def unlike(conditions: dict[str, dict[str, Any]]) -> Iterator[str]:
    """One line for each condition that differs between models."""
    for name in CONDITIONS:
        by_value: dict[str, list[str]] = {}
        for model, held in conditions.items():
            by_value.setdefault(str(held.get(name)), []).append(model)
        if len(by_value) > 1:
            yield f"evaluation conditions differ: {name}: " + "; ".join(
                f"{', '.join(models)}: {value}" for value, models in by_value.items()
            )


def main() -> None:
    settings, seed = config.load(Compare, "compare"), config.load(int, "seed")
    models = [*teacher_names(), BASE]
    keep_only("data/samples", models)
    keep_only("metrics/evaluate", models, ".json")
    benchmarks = enabled_benchmarks()
    with record_metrics("metrics/compare.json", "numpy", "scipy") as (metrics, _):
        values = values_of({name: read_table(f"data/samples/{name}").to_pylist() for name in models}, benchmarks)
        metrics["margin"] = settings.margin
        metrics["models"] = intervals(values, settings, seed)
        metrics["differences"] = differences(values, settings, seed)
        metrics["adaptivity"] = adaptivities(values, settings, seed)
        metrics["by_difficulty"] = by_difficulty(values)
        conditions = {name: read_json(f"metrics/evaluate/{name}.json")["conditions"] for name in models}
        metrics["warnings"] = [*unlike(conditions), *too_few(values, settings)]
    for warning in metrics["warnings"]:
        log("compare", warning)
    for pair, by_benchmark in metrics["differences"].items():
        scored = by_benchmark[OVERALL]["pass@1"]
        about = f"[{scored['low']:+.1f}, {scored['high']:+.1f}], p {scored['p_holm']:.3g}: {scored['verdict']}"
        log("compare", f"{pair}, overall pass@1: {scored['mean']:+.1f} {about}")


if __name__ == "__main__":
    run_stage(main)
