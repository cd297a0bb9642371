"""How far verdicts agree with labels: agreement, kappa, bias towards long answers, and what the order of two texts changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
SMALLEST_GROUP = 5
"""Answers of one label, shorter or longer, that a comparison by length needs at least."""

HEAD = ["category", "verifier", "responses", "agreement", "kappa", "wrong pass", "wrong fail", "inconclusive"]
HEAD += ["length bias", "order changes"]


@dataclass(frozen=True)
class Judged:
    """One labelled response.

    ``passed`` is the verdict, ``swapped`` the verdict where reference and answer have changed places; None where
    inconclusive, or not asked. ``length`` is the answer's, in characters.
    """

    label: bool
    passed: bool | None
    length: int
    swapped: bool | None = None


def agreement(rows: list[Judged], seed: int) -> dict[str, Any]:
    """What is reported of one category; shares are from 0 to 1, intervals of 95 % are resampled over responses.

    - ``agreement``, ``kappa`` (Cohen 1960), ``wrong_pass``, ``wrong_fail``: among responses with a verdict.
    - ``length_bias``: how much more often the longer half of answers passes than the shorter half, labels being equal.
    - ``order_changes``: the share of verdicts that change when reference and answer change places.
    """
    decided = [row for row in rows if row.passed is not None]
    both = [row for row in decided if row.swapped is not None]
    return {
        "responses": len(rows),
        "inconclusive_share": round(1 - len(decided) / len(rows), 4),
        "wrong_pass": sum(row.passed is True and not row.label for row in decided),
        "wrong_fail": sum(row.passed is False and row.label for row in decided),
        "agreement": estimate(decided, _agreement, seed),
        "kappa": estimate(decided, kappa, seed),
        "length_bias": estimate(decided, length_bias, seed),
        "order_changes": estimate(both, _order_changes, seed),
    }


def estimate(rows: list[Judged], statistic: Callable[[list[Judged]], float | None], seed: int) -> dict[str, float] | None:
    """A statistic and its bootstrap interval; None where these rows do not define it."""
    value = statistic(rows) if rows else None
    if value is None:
        return None
    picks = np.random.default_rng(seed).integers(len(rows), size=(RESAMPLES, len(rows)))
    values = [found for pick in picks if (found := statistic([rows[i] for i in pick])) is not None]
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"mean": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _agreement(rows: list[Judged]) -> float:
    return sum(row.passed == row.label for row in rows) / len(rows)


def _order_changes(rows: list[Judged]) -> float:
    return sum(row.passed != row.swapped for row in rows) / len(rows)


def kappa(rows: list[Judged]) -> float | None:
    """Agreement beyond what the two shares of passes give by chance; None where both are 0 or both are 1."""
    passes, labels = (sum(values) / len(rows) for values in ([bool(row.passed) for row in rows], [row.label for row in rows]))
    chance = passes * labels + (1 - passes) * (1 - labels)
    return None if chance == 1 else (_agreement(rows) - chance) / (1 - chance)


def length_bias(rows: list[Judged]) -> float | None:
    """The pass rate of longer answers less that of shorter ones, halved by each label's median; weighted by label.

    None where no label has enough answers on both sides.
    """
    differences, weights = [], []
    for label in (False, True):
        group = sorted((row for row in rows if row.label == label), key=lambda row: row.length)
        median = group[len(group) // 2].length if group else 0
        shorter = [bool(row.passed) for row in group if row.length < median]
        longer = [bool(row.passed) for row in group if row.length > median]
        if min(len(shorter), len(longer)) >= SMALLEST_GROUP:
            differences.append(sum(longer) / len(longer) - sum(shorter) / len(shorter))
            weights.append(len(shorter) + len(longer))
    return float(np.average(differences, weights=weights)) if weights else None


def table_rows(categories: dict[str, Any]) -> list[list[str]]:
    """One row per category, as `HEAD` names them."""
    rows = []
    for category, found in categories.items():
        wrong = [str(found["wrong_pass"]), str(found["wrong_fail"]), f"{100 * found['inconclusive_share']:.1f} %"]
        biases = [interval(found[name]) for name in ("length_bias", "order_changes")]
        measured = [interval(found[name]) for name in ("agreement", "kappa")]
        rows.append([category, found["verifier"], str(found["responses"]), *measured, *wrong, *biases])
    return rows


def interval(estimate: dict[str, float] | None) -> str:
    return "-" if estimate is None else f"{estimate['mean']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"
