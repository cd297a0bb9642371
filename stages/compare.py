"""compare: tests which differences between students are statistically significant.

Every student answers the same questions, so differences are paired by question: p values by sign-flip permutation, intervals
by bootstrap over questions (`paired_statistics`). ``overall`` is the mean over benchmarks, each of the same weight. All
differences of one measure are one family, those of ``overall`` a family of their own, and p values are adjusted within a
family by Holm's method. A difference is significant (``higher`` or ``lower``) where its adjusted p is within the level; else
two models are ``equivalent`` where the whole interval is within the margin, and ``not significant`` otherwise. The smallest
difference that Holm's next step would find with a power of 80 % is ``detectable``.

Three causes make a difference vary. Other *questions* like these: intervals are for those, and ``on_these_questions`` is the
narrower one of the benchmark as it is. Other *samples*, which that one covers. And other *training seeds*: their variance is
pooled over all arms (`seed_variance`), and counts in p and interval as soon as an arm has two seeds; with one seed each it is
in no figure, as ``training`` says. ``variance`` has the share of each, and ``settles`` how many times more of one of them
alone would make a difference as small as the margin detectable.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from distillery.core import config
from distillery.core.arms import arm_names
from distillery.core.config import NonNegativeFloat, Positive, Section, Share
from distillery.core.files import read_json
from distillery.core.progress import log
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import read_table
from distillery.core.teachers import BASE, keep_only
from distillery.evaluation.adaptivity import adaptivity
from distillery.evaluation.benchmarks import enabled_benchmarks
from distillery.evaluation.model_values import (
    MEASURES,
    OVERALL,
    Measured,
    Values,
    clustered,
    clusters_of,
    strata_of,
    values_of,
)
from distillery.evaluation.paired_statistics import (
    Estimate,
    estimate_over,
    holm,
    sampling_interval,
    sign_flip_p,
    smallest_detectable,
    smallest_p,
    variance_shares,
    what_settles,
)
from distillery.evaluation.seed_variance import NONE, PooledSeedVariance, SeedVariance, pooled_seed_variance

BINS = 5
SIGNIFICANT, EQUIVALENT, NOT_SIGNIFICANT = ("higher", "lower"), "equivalent", "not significant"
SPANS = {"pass@1": 100.0, "mean_tokens": None}
"""By how much a measure can differ at most on one question; None: without limit."""
CONDITIONS = ("engines", "sampling", "prompts", "tasks", "verifiers", "judge")


@dataclass(frozen=True)
class Compare(Section):
    """How models are compared."""

    resamples: Positive
    """Draws of the bootstrap and of the permutation test."""
    confidence: Share
    """The confidence of intervals; 1 less it is the level of significance."""
    margin: NonNegativeFloat = 2.0
    """Models whose pass@1 differs by less than so many points, with that confidence, are equivalent."""


@dataclass(frozen=True)
class Paired:
    """Two models on one benchmark, or on all, by one measure: a pair per benchmark."""

    left: list[Measured]
    right: list[Measured]
    between_seeds: SeedVariance

    @property
    def changes(self) -> list[np.ndarray]:
        """The differences, (questions,) each."""
        return [a.means - b.means for a, b in zip(self.left, self.right, strict=True)]

    @property
    def sampling(self) -> list[np.ndarray]:
        """Their sampling variances, (questions,) each."""
        return [a.sampling + b.sampling for a, b in zip(self.left, self.right, strict=True)]


class SeedVariances:
    """What training adds to the models' differences; the base was not trained, so it has no share in it."""

    def __init__(self, values: Values):
        self.values = values
        self.known: dict[tuple[str, str], PooledSeedVariance | None] = {}

    def variance(self, benchmark: str, measure: str) -> PooledSeedVariance | None:
        """Between the seeds of one arm, pooled over arms; None where each arm has one seed."""
        if (benchmark, measure) not in self.known:
            arms = [strata_of(benchmark, by, measure) for model, by in self.values.items() if model != BASE]
            self.known[benchmark, measure] = pooled_seed_variance([[each.values for each in strata] for strata in arms])
        return self.known[benchmark, measure]

    def of(self, benchmark: str, measure: str, *models: str) -> SeedVariance:
        found = self.variance(benchmark, measure)
        seeds = (len(strata_of(benchmark, self.values[model], measure)[0].values) for model in models if model != BASE)
        return found.of_means(*seeds) if found else NONE


def pair_of(values: Values, training: SeedVariances, models: tuple[str, str], benchmark: str, measure: str) -> Paired:
    left, right = (strata_of(benchmark, values[model], measure) for model in models)
    return Paired(left, right, training.of(benchmark, measure, *models))


def compared(pair: Paired, span: float | None, settings: Compare, seed: int) -> dict[str, Any]:
    """A paired difference: its mean, interval, p, and the interval on these very questions."""
    found: dict[str, Any] = dict(
        estimate_over(pair.changes, settings.resamples, settings.confidence, seed, pair.between_seeds, span)
    )
    found["p"] = float(f"{sign_flip_p(pair.changes, settings.resamples, seed, pair.between_seeds):.3g}")
    found["on_these_questions"] = sampling_interval(found["mean"], pair.sampling, settings.confidence)
    return found


def differences(values: Values, settings: Compare, seed: int) -> dict[str, Any]:
    """For every two models, benchmark and measure: the paired difference, its adjusted p, and the verdict."""
    found: dict[str, Any] = {}
    families: dict[tuple[str, bool], list[tuple[dict[str, Any], Paired]]] = {}
    training = SeedVariances(values)
    for models in combinations(values, 2):
        for benchmark, measure in product((OVERALL, *values[models[0]]), MEASURES):
            pair = pair_of(values, training, models, benchmark, measure)
            difference = compared(pair, SPANS[measure], settings, seed)
            found.setdefault(" - ".join(models), {}).setdefault(benchmark, {})[measure] = difference
            families.setdefault((measure, benchmark == OVERALL), []).append((difference, pair))
    for (measure, _), family in families.items():
        judge(family, settings, settings.margin if measure == "pass@1" else 0.0)
    return found


def judge(family: list[tuple[dict[str, Any], Paired]], settings: Compare, margin: float) -> None:
    """Adds to each difference of a family its adjusted p, the verdict, what would be found, and what it varies with.

    Where none could be found, since questions are few or do not scatter, nothing is equivalent.
    """
    level = 1 - settings.confidence
    adjusted = holm([difference["p"] for difference, _ in family])
    undecided = sum(p > level for p in adjusted)
    for (difference, pair), p in zip(family, adjusted, strict=True):
        difference["p_holm"] = p
        found = smallest_detectable(pair.changes, level / max(1, undecided), settings.resamples, pair.between_seeds)
        difference["detectable"] = found
        low, high = difference["low"], difference["high"]
        within = found is not None and low is not None and -margin < low and high < margin
        others = EQUIVALENT if within else NOT_SIGNIFICANT
        difference["verdict"] = SIGNIFICANT[difference["mean"] < 0] if p <= level else others
        shares = variance_shares(pair.changes, pair.sampling, pair.between_seeds)
        difference["variance"] = shares and {name: round(share, 3) for name, share in shares.items()}
        if margin and shares and found and difference["verdict"] == NOT_SIGNIFICANT:
            difference["settles"] = what_settles(shares, found, margin)


def intervals(values: Values, settings: Compare, seed: int) -> dict[str, Any]:
    """Every model's own pass@1 and mean tokens with intervals, and the standard deviation between its seeds."""
    found: dict[str, Any] = {}
    training = SeedVariances(values)
    for model, by_benchmark in values.items():
        for benchmark, measure in product((OVERALL, *by_benchmark), MEASURES):
            strata, between_seeds = strata_of(benchmark, by_benchmark, measure), training.of(benchmark, measure, model)
            means = [each.means for each in strata]
            about: dict[str, Any] = possible(
                estimate_over(means, settings.resamples, settings.confidence, seed, between_seeds, SPANS[measure]),
                SPANS[measure],
            )
            sampling = [each.sampling for each in strata]
            about["on_these_questions"] = sampling_interval(about["mean"], sampling, settings.confidence)
            by_seed = np.mean([each.values.mean(1) for each in strata], 0)
            about["sd_between_seeds"] = round(float(by_seed.std(ddof=1)), 4) if len(by_seed) > 1 else None
            found.setdefault(model, {}).setdefault(benchmark, {})[measure] = about
    return found


def possible(estimate: Estimate, span: float | None) -> Estimate:
    """An interval without the values that a measure from 0 to ``span`` cannot have."""
    return {name: each if each is None or span is None else min(max(each, 0.0), span) for name, each in estimate.items()}


def training_of(values: Values) -> dict[str, Any]:
    """How many seeds each arm has, and the standard deviation of the overall score between them, pooled; None if unknown."""
    seeds = {model: len(next(iter(by.values()))["pass@1"].values) for model, by in values.items() if model != BASE}
    found = SeedVariances(values).variance(OVERALL, "pass@1")
    return {"seeds": seeds, "sd": found and round(float(np.sqrt(found.variance)), 4)}


def difficulties(values: Values) -> dict[str, list[np.ndarray]]:
    """By model, an array per benchmark: how hard its questions are, as the fail rates of all *other* models, from 0 to 1.

    Leave-one-model-out: the model's own samples are excluded, since a truncated one fails and is long, whatever the question.
    """
    failing = {model: [1 - measures["pass@1"].means / 100 for measures in by.values()] for model, by in values.items()}
    return {
        model: [np.mean(blocks, 0) for blocks in zip(*(failing[other] for other in failing if other != model), strict=True)]
        for model in failing
    }


def adaptivities(values: Values, settings: Compare, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """How each model's length depends on difficulty, and by how much that differs between models."""
    tokens = {model: [measures["mean_tokens"].means for measures in by.values()] for model, by in values.items()}
    return adaptivity(difficulties(values), tokens, settings.resamples, settings.confidence, seed)


def by_difficulty(values: Values, settings: Compare, seed: int) -> list[dict[str, Any]]:
    """Mean tokens per model and difficulty bin with their interval; ``fails`` is the bin's midpoint in percent."""
    rows = []
    for model, blocks in difficulties(values).items():
        bins = np.minimum((np.concatenate(blocks) * BINS).astype(int), BINS - 1)
        tokens = np.concatenate([measures["mean_tokens"].means for measures in values[model].values()])
        for each in np.unique(bins):
            here = tokens[bins == each]
            middle = 100 * (int(each) + 0.5) / BINS
            tokens_here = estimate_over([here], settings.resamples, settings.confidence, seed)
            rows.append({"model": model, "fails": middle, "questions": len(here)} | tokens_here)
    return rows


def too_few(values: Values, settings: Compare) -> Iterator[str]:
    """One line for each benchmark on which no difference can reach significance, whatever its size."""
    benchmarks = next(iter(values.values()))
    family = len(list(combinations(values, 2))) * len(benchmarks)
    for benchmark, measures in benchmarks.items():
        questions = len(measures["pass@1"].means)
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
    models = [*arm_names(), BASE]
    keep_only("data/samples", models)
    keep_only("metrics/evaluate", models, ".json")
    benchmarks = enabled_benchmarks()
    with record_metrics("metrics/compare.json", "numpy", "scipy") as (metrics, _):
        samples = {name: read_table(f"data/samples/{name}").to_pylist() for name in models}
        by_question = values_of(samples, benchmarks)
        values = clustered(by_question, clusters_of(samples[BASE], benchmarks))
        metrics.update(margin=settings.margin, training=training_of(values))
        metrics["models"] = intervals(values, settings, seed)
        metrics["differences"] = differences(values, settings, seed)
        metrics["adaptivity"], metrics["adaptivity_differences"] = adaptivities(by_question, settings, seed)
        metrics["by_difficulty"] = by_difficulty(by_question, settings, seed)
        conditions = {name: read_json(f"metrics/evaluate/{name}.json")["conditions"] for name in models}
        metrics["warnings"] = [*unlike(conditions), *too_few(values, settings)]
    for warning in metrics["warnings"]:
        log("compare", warning)
    for pair, by_benchmark in metrics["differences"].items():
        scored = by_benchmark[OVERALL]["pass@1"]
        about = f"{scored['mean']:+.1f}{interval_text(scored)}, p {scored['p_holm']:.3g}: {scored['verdict']}"
        log("compare", f"{pair}, overall pass@1: {about}")


def interval_text(found: dict[str, Any]) -> str:
    return "" if found["low"] is None else f" [{found['low']:+.1f}, {found['high']:+.1f}]"


if __name__ == "__main__":
    run_stage(main)
