"""compare: which differences between students are differences, which are noise, and which nobody can tell.

Every student answers the same questions, so differences are paired by question (`stages.statistics`). ``overall`` is the
mean over benchmarks, each of the same weight. All differences of one measure are one family, those of ``overall`` one of
their own, and their p are adjusted for its size. A difference counts as one (``higher`` or ``lower``) where its adjusted p
is within the level; all others could not be told, and say how many questions would tell them, at the level that Holm's
next step asks for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from stages import params, provenance
from stages.params import Positive, Section, Share
from stages.provenance import say
from stages.score import Sample, grouped
from stages.statistics import adaptivity, estimate_over, holm, p_of, questions_needed
from stages.tables import DataError, read, read_json
from stages.verifiers import PASS

MEASURES = ("pass@1", "mean_tokens")
OVERALL = "overall"
BANDS = 5
TOLD, UNTOLD = ("higher", "lower"), "could not tell"
CONDITIONS = ("engines", "sampling", "prompts", "tasks")
Values = dict[str, dict[str, dict[str, np.ndarray]]]
"""By model, benchmark and measure: one number a question, (questions,)."""


@dataclass(frozen=True)
class Compare(Section):
    """``resamples`` of the bootstrap; ``confidence`` of its intervals, and of what counts as told."""

    resamples: Positive
    confidence: Share


def per_question(samples: list[Sample]) -> tuple[list[str], dict[str, np.ndarray]]:
    """The questions' ids, sorted, and each measure's mean over a question's samples; pass@1 in percent."""
    questions = grouped(samples, "question_id")
    passed = [100 * np.mean([sample["verdict"] == PASS for sample in group]) for group in questions.values()]
    tokens = [np.mean([sample["completion_tokens"] for sample in group]) for group in questions.values()]
    return list(questions), dict(zip(MEASURES, map(np.array, (passed, tokens)), strict=True))


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


def differences(values: Values, settings: Compare, seed: int) -> dict[str, Any]:
    """For every two models, benchmark and measure: the paired difference, its adjusted p, and what it comes to."""
    found: dict[str, Any] = {}
    family: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for a, b in combinations(values, 2):
        for benchmark, measure in product((OVERALL, *values[a]), MEASURES):
            pairs = zip(*(strata_of(benchmark, values[model], measure) for model in (a, b)), strict=True)
            change = [left - right for left, right in pairs]
            told: dict[str, Any] = dict(estimate_over(change, settings.resamples, settings.confidence, seed), change=change)
            found.setdefault(f"{a} - {b}", {}).setdefault(benchmark, {})[measure] = told
            family.setdefault((measure, benchmark == OVERALL), []).append(told)
    for members in family.values():
        for told, adjusted in zip(members, holm([member["p"] for member in members]), strict=True):
            told["p_holm"] = adjusted
            told["verdict"] = TOLD[told["mean"] < 0] if adjusted <= 1 - settings.confidence else UNTOLD
        untold = sum(told["verdict"] == UNTOLD for told in members)
        for told in members:
            told["questions_needed"] = questions_needed(told.pop("change"), (1 - settings.confidence) / max(1, untold))
    return found


def intervals(values: Values, settings: Compare, seed: int) -> dict[str, Any]:
    """Every model's own pass@1 and mean tokens with intervals."""
    of = lambda strata: estimate_over(strata, settings.resamples, settings.confidence, seed)  # noqa: E731
    return {
        model: {
            benchmark: {measure: of(strata_of(benchmark, by_benchmark, measure)) for measure in MEASURES}
            for benchmark in (OVERALL, *by_benchmark)
        }
        for model, by_benchmark in values.items()
    }


def difficulties(values: Values) -> dict[str, list[np.ndarray]]:
    """By model, an array a benchmark: how hard its questions are, as the fail rates of all *other* models, from 0 to 1.

    A model's own samples have no say: one that is cut fails and is long, whatever the question.
    """
    failing = {model: [1 - measures["pass@1"] / 100 for measures in by.values()] for model, by in values.items()}
    return {
        model: [np.mean(blocks, 0) for blocks in zip(*(failing[other] for other in failing if other != model), strict=True)]
        for model in failing
    }


def adaptivities(values: Values, settings: Compare, seed: int) -> dict[str, Any]:
    """How each model's length follows difficulty."""
    tokens = {model: [measures["mean_tokens"] for measures in by.values()] for model, by in values.items()}
    return adaptivity(difficulties(values), tokens, settings.resamples, settings.confidence, seed)


def by_difficulty(values: Values) -> list[dict[str, Any]]:
    """Each model's mean tokens over the questions of like difficulty: ``fails``, percent, is the middle of their band."""
    rows = []
    for model, blocks in difficulties(values).items():
        band = np.minimum((np.concatenate(blocks) * BANDS).astype(int), BANDS - 1)
        tokens = np.concatenate([measures["mean_tokens"] for measures in values[model].values()])
        for each in np.unique(band):
            here = tokens[band == each]
            middle = 100 * (int(each) + 0.5) / BANDS
            rows.append({"model": model, "fails": middle, "questions": len(here), "mean_tokens": round(float(here.mean()), 2)})
    return rows


def too_few(values: Values, settings: Compare) -> Iterator[str]:
    """A line for each benchmark on which no difference could ever be told, so few are the resamples for its family."""
    benchmarks = next(iter(values.values()))
    family = len(list(combinations(values, 2))) * len(benchmarks)
    for benchmark, measures in benchmarks.items():
        questions = len(measures["pass@1"])
        if family * p_of(1 / (settings.resamples + 1), questions) > 1 - settings.confidence:
            asked = f"{questions} questions, {settings.resamples} resamples, {family} comparisons at {settings.confidence}"
            yield f"no difference on {benchmark} can be told, however large ({asked}): raise compare.resamples"


def unlike(conditions: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line for each condition under which not all models were evaluated alike."""
    for name in CONDITIONS:
        by_value: dict[str, list[str]] = {}
        for model, held in conditions.items():
            by_value.setdefault(str(held.get(name)), []).append(model)
        if len(by_value) > 1:
            yield f"not evaluated alike: {name} differ: " + "; ".join(
                f"{', '.join(models)}: {value}" for value, models in by_value.items()
            )


def main() -> None:
    settings, seed = params.load(Compare, "compare"), params.load(int, "seed")
    models = [*params.load(list[str], "teachers"), "base"]
    benchmarks = list(params.load(dict[str, Any], "evaluate.benchmarks"))
    with provenance.record("metrics/compare.json", "numpy", "scipy") as metrics:
        values = values_of({name: read(f"data/samples/{name}").to_pylist() for name in models}, benchmarks)
        metrics["models"] = intervals(values, settings, seed)
        metrics["differences"] = differences(values, settings, seed)
        metrics["adaptivity"] = adaptivities(values, settings, seed)
        metrics["by_difficulty"] = by_difficulty(values)
        conditions = {name: read_json(f"metrics/evaluate/{name}.json")["conditions"] for name in models}
        metrics["warnings"] = [*unlike(conditions), *too_few(values, settings)]
    for warning in metrics["warnings"]:
        say("compare", warning)
    for pair, by_benchmark in metrics["differences"].items():
        told = [f"{b} {scored['pass@1']['mean']:+.1f} ({scored['pass@1']['verdict']})" for b, scored in by_benchmark.items()]
        say("compare", f"{pair}: {', '.join(told)}")


if __name__ == "__main__":
    provenance.run(main)
