"""Metrics of a model's samples: pass@1, pass@k, majority@k, lengths, by benchmark and difficulty.

pass@k is the unbiased estimate of Chen et al. (arXiv 2107.03374): the probability that at least one of k samples drawn
without replacement passes. majority@k asks whether the most frequent answer to a question passes; equally frequent answers
count by their share, and programs have none.
"""

from collections import Counter, defaultdict
from math import comb
from statistics import fmean, stdev
from typing import Any

import numpy as np

from distillery.core.schemas import PASS, UNKNOWN

QUANTILES = {"p05": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "p95": 0.95}


Sample = dict[str, Any]


def grouped(samples: list[Sample], field: str) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample[field]].append(sample)
    return dict(sorted(groups.items(), key=lambda group: (group[0] is not None, group[0])))


def pass_at(k: int, samples: list[Sample]) -> float:
    """The probability that one of ``k`` of a question's samples passes; of all of them where there are fewer."""
    total, passed = len(samples), sum(sample["verdict"] == PASS for sample in samples)
    k = min(k, total)
    return 1 - comb(total - passed, k) / comb(total, k)


def majority(samples: list[Sample]) -> float:
    """The chance that the most frequent answer of a question's samples passes, where one of several is drawn.

    All that pass are one answer, however they are spelt: each has the reference's value.
    """
    answers = Counter(PASS if s["verdict"] == PASS else f"other: {s['answer']}" for s in samples if s["answer"] is not None)
    most = max(answers.values(), default=0)
    winners = [answer for answer, count in answers.items() if count == most]
    return float(PASS in winners) / len(winners) if winners else 0.0


def pass_at_1(samples: list[Sample]) -> float:
    """The mean over questions of the share of samples that pass, in percent."""
    return 100 * fmean(pass_at(1, question) for question in grouped(samples, "question_id").values())


def sizes(most: int) -> list[int]:
    """Powers of two from 2, and the number of samples."""
    return sorted({k for k in (2**i for i in range(1, most.bit_length())) if k < most} | ({most} if most > 1 else set()))


def many(samples: list[Sample]) -> dict[str, float]:
    """pass@k for several k and majority@k over all samples, in percent."""
    questions = grouped(samples, "question_id").values()
    most = max(map(len, questions))
    figures = {f"pass@{k}": 100 * fmean(pass_at(k, question) for question in questions) for k in sizes(most)}
    if any(sample["answer"] is not None for sample in samples):
        figures[f"majority@{most}"] = 100 * fmean(map(majority, questions))
    return {name: round(value, 2) for name, value in figures.items()}


def score_over_seeds(samples: list[Sample]) -> dict[str, Any]:
    """The figures of one benchmark, as means over the students of all training seeds, with the spread of the main ones."""
    students = [score(group) for group in grouped(samples, "seed").values()]
    figures = mean_of(students)
    if len(students) > 1:
        spread = {name: round(stdev(each[name] for each in students), 4) for name in ("pass@1", "mean_tokens")}
        figures["sd_between_seeds"] = spread
    return figures


def mean_of(figures: list[Any]) -> Any:
    """The mean of equally shaped figures, key by key; a key that some lack is a mean over those that have it."""
    if not isinstance(figures[0], dict):
        return round(fmean(figures), 4)
    names = list(dict.fromkeys(name for each in figures for name in each))
    return {name: mean_of([each[name] for each in figures if name in each]) for name in names}


def score(samples: list[Sample]) -> dict[str, Any]:
    """The figures of one student on one benchmark."""
    lengths = [sample["completion_tokens"] for sample in samples]
    return {
        "pass@1": round(pass_at_1(samples), 2),
        "mean_tokens": round(fmean(lengths), 2),
        "truncated_share": round(fmean(sample["finish_reason"] == "length" for sample in samples), 4),
        "unknown_share": round(fmean(sample["verdict"] == UNKNOWN for sample in samples), 4),
        "many": many(samples),
        "tokens": {name: round(float(np.quantile(lengths, q)), 1) for name, q in QUANTILES.items()},
        "by_difficulty": {
            level: {
                "pass@1": round(pass_at_1(group), 2),
                "mean_tokens": round(fmean(sample["completion_tokens"] for sample in group), 2),
            }
            for level, group in grouped(samples, "difficulty").items()
        },
    }
