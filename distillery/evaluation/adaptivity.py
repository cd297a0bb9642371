"""Adaptivity: how the length of a model's answers depends on the difficulty of questions, within and across benchmarks."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from distillery.evaluation.paired_statistics import Estimate, interval

STEP = 0.1
Blocks = list[np.ndarray]
"""One array per benchmark, one column per question."""


def slope_within(difficulty: Blocks, lengths: Blocks) -> np.ndarray:
    """The slope of log length on difficulty, each benchmark about its own mean; arrays (draws, questions) each."""
    products = squares = np.zeros(1)
    for x, y in zip(difficulty, lengths, strict=True):
        x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
        products, squares = products + (x * y).sum(1), squares + (x * x).sum(1)
    return products / np.where(squares > 0, squares, np.nan)


def slope_across(difficulty: Blocks, lengths: Blocks) -> np.ndarray:
    """The same between the benchmarks' means."""
    x, y = (np.stack([block.mean(1) for block in blocks], 1) for blocks in (difficulty, lengths))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    squares = (x * x).sum(1)
    return (x * y).sum(1) / np.where(squares > 0, squares, np.nan)


def growth(slope: np.ndarray) -> np.ndarray:
    """A slope of log length, as the growth of length in percent per ten points."""
    return 100 * (np.exp(STEP * slope) - 1)


SLOPES: dict[str, Callable[[Blocks, Blocks], np.ndarray]] = {"within": slope_within, "across": slope_across}


@dataclass(frozen=True)
class Adaptivity:
    """How one model's length depends on difficulty, with bootstrap draws of it, (resamples,); not a number where unknown."""

    value: float
    draws: np.ndarray


def adaptivity(
    difficulty: dict[str, Blocks], tokens: dict[str, Blocks], resamples: int, confidence: float, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """By model, then by pair: by how many percent answers grow per ten points of difficulty (the fail rate).

    By model, ``difficulty`` is each question's fail rate, from 0 to 1, and ``tokens`` its mean length. The figure comes
    from the slope of log tokens on difficulty; 0 is a length independent of it. None where all questions are equally
    hard. Models share the draws of questions, so their draws are compared pair by pair, in percentage points.
    """
    rng, first = np.random.default_rng(seed), next(iter(tokens.values()))
    picks = [rng.integers(0, len(block), (resamples, len(block))) for block in first]
    count = sum(map(len, first))
    known = {model: _slopes(difficulty[model], blocks, picks) for model, blocks in tokens.items()}

    def estimated(value: float, draws: np.ndarray) -> Estimate | None:
        sound = np.isfinite(value) and np.isfinite(draws).sum() > resamples // 2
        return interval(draws[np.isfinite(draws)], float(value), count, confidence) if sound else None

    alone = {model: {name: estimated(each.value, each.draws) for name, each in by.items()} for model, by in known.items()}
    pairs = {
        f"{a} - {b}": {
            name: estimated(known[a][name].value - known[b][name].value, known[a][name].draws - known[b][name].draws)
            for name in SLOPES
        }
        for a, b in combinations(known, 2)
    }
    return alone, pairs


def _slopes(difficulty: Blocks, tokens: Blocks, picks: list[np.ndarray]) -> dict[str, Adaptivity]:
    """A model's growth by each of SLOPES, not a number where questions are equally hard; ``picks`` are the draws."""
    logs = [np.log(np.maximum(block, 1.0)) for block in tokens]
    drawn, drawn_logs = ([block[pick] for block, pick in zip(each, picks, strict=True)] for each in (difficulty, logs))
    found = {}
    for name, slope in SLOPES.items():
        (value,) = slope([block[None] for block in difficulty], [block[None] for block in logs])
        found[name] = Adaptivity(float(growth(value)), growth(slope(drawn, drawn_logs)))
    return found
