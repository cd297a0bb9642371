"""Statistics over questions: intervals, paired tests, multiple comparisons, and how length depends on difficulty.

Samples of one question are correlated, so we resample questions and keep each one's samples together (cluster bootstrap:
Efron and Tibshirani, An Introduction to the Bootstrap, 1993). Percentile intervals are too narrow for few questions; they
are widened as Hesterberg shows (The American Statistician 69(4), 2015, section 4.2).

p values are from a sign-flip permutation test (Fisher; Good, Permutation Tests, 2000): where two models are equally good, a
question's difference is as likely to be d as -d. The bootstrap's own p rejects too often where differences are skewed, as on
AIME, where most questions are always or never solved: 7.5 % of the time at the level of 5 %, where this test keeps 4.9 %.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
from scipy import stats

POWER = 0.8
STEP = 0.1
LARGEST_BLOCK = 2_000_000
Estimate = dict[str, float]


def resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of so many bootstrap samples of (questions,) values; the same seed picks the same questions."""
    rng, found = np.random.default_rng(seed), []
    block = max(1, LARGEST_BLOCK // len(values))
    for start in range(0, resamples, block):
        picks = rng.integers(0, len(values), (min(block, resamples - start), len(values)))
        found.append(values[picks].mean(1))
    return np.concatenate(found)


def tail_of(confidence: float, count: float) -> float:
    """The percentile, as a share, at which an interval of this confidence over ``count`` values ends."""
    if count < 2:
        return (1 - confidence) / 2
    return float(stats.norm.cdf(sqrt(count / (count - 1)) * stats.t.ppf((1 - confidence) / 2, count - 1)))


def interval(draws: np.ndarray, value: float, count: float, confidence: float) -> Estimate:
    """A value with the interval of its bootstrap ``draws`` over ``count`` questions."""
    tail = tail_of(confidence, count)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return {name: round(float(each), 4) for name, each in {"mean": value, "low": low, "high": high}.items()}


def sign_flip_p(strata: list[np.ndarray], resamples: int, seed: int) -> float:
    """The two-sided p of a paired difference, one number per question in each stratum (benchmark): (questions,) each.

    The statistic is the mean over strata of their means; under the null hypothesis every question's sign is a coin flip. All
    sign patterns are enumerated where there are no more than ``resamples``, else so many are drawn, and the observed one
    counts among them (Phipson and Smyth, 2010).
    """
    weighted = np.concatenate([values / (len(values) * len(strata)) for values in strata])
    weighted = weighted[weighted != 0]
    least = abs(weighted.sum()) - 1e-9 * abs(weighted).sum()  # as extreme as observed, but for rounding
    if least <= 0:
        return 1.0
    if len(weighted) < 63 and 2 ** len(weighted) <= resamples:
        patterns = np.arange(2 ** len(weighted))[:, None] >> np.arange(len(weighted)) & 1
        return float(np.mean(abs((2 * patterns - 1) @ weighted) >= least))
    rng, extreme = np.random.default_rng(seed), 0
    block = max(1, LARGEST_BLOCK // len(weighted))
    for start in range(0, resamples, block):
        flips = rng.integers(0, 2, (min(block, resamples - start), len(weighted)), np.int8)
        extreme += int(np.sum(abs((2.0 * flips - 1) @ weighted) >= least))
    return (extreme + 1) / (resamples + 1)


def smallest_p(questions: int, resamples: int) -> float:
    """The least p that `sign_flip_p` can give, however large the difference."""
    return max(1 / (resamples + 1), 2.0 ** (1 - questions))


def estimate(values: np.ndarray, resamples: int, confidence: float, seed: int) -> Estimate:
    """The mean of (questions,) values, with its interval.

    Given the differences of two models on the same questions, this is the interval of their paired difference.
    """
    return interval(resampled_means(values, resamples, seed), float(values.mean()), len(values), confidence)


def estimate_over(strata: list[np.ndarray], resamples: int, confidence: float, seed: int) -> Estimate:
    """The same of the mean over strata (benchmarks) of their means, each stratum's questions drawn on their own.

    Each stratum's draws are widened for its own number of questions; the overall interval counts as so many questions
    as Satterthwaite's degrees of freedom give (Biometrics Bulletin 2(6), 1946).
    """
    if len(strata) == 1:
        return estimate(strata[0], resamples, confidence, seed)
    count = effective_count(strata)
    draws = np.zeros(resamples)
    for i, values in enumerate(strata):
        wider = sqrt(len(values) / (len(values) - 1) * (count - 1) / count) if count > 1 else 1.0
        draws += (values.mean() + wider * (resampled_means(values, resamples, seed + i) - values.mean())) / len(strata)
    return interval(draws, float(np.mean([values.mean() for values in strata])), count, confidence)


def effective_count(strata: list[np.ndarray]) -> float:
    """The size of one stratum that has the same degrees of freedom; 1 where a stratum has only one."""
    sizes = [len(values) for values in strata]
    if min(sizes) < 2:
        return 1.0
    variances = [float(values.var(ddof=1)) / len(values) for values in strata]
    squares = sum(variance**2 / (size - 1) for variance, size in zip(variances, sizes, strict=True))
    return 1.0 + (sum(variances) ** 2 / squares if squares else sum(sizes) - len(sizes))


def holm(ps: list[float]) -> list[float]:
    """Each p adjusted for the family by Holm's step-down method (Scandinavian Journal of Statistics 6, 1979)."""
    order, adjusted, least = sorted(range(len(ps)), key=ps.__getitem__), [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, ps[i] * (len(ps) - rank)))
        adjusted[i] = float(f"{least:.3g}")
    return adjusted


def smallest_detectable(strata: list[np.ndarray], level: float, resamples: int) -> float | None:
    """The smallest true difference that a test at ``level`` finds with a power of 80 %, with questions like these.

    It depends on how differences scatter and on how many there are, not on the one that was observed (power reckoned from
    that says no more than its p: Hoenig and Heisey, The American Statistician 55(1), 2001). Of several strata it is for the
    mean over strata, as in `estimate_over`. None where nothing scatters, a stratum has a single question, or so few
    questions give no p within the level; with fewer than thirty the power is a little less.
    """
    scatters = any(np.ptp(each) > 1e-9 * (1 + abs(each).max()) for each in strata)
    if not scatters or min(map(len, strata)) < 2 or smallest_p(sum(map(len, strata)), resamples) > level:
        return None
    variance = sum(float(each.var(ddof=1)) / len(each) for each in strata) / len(strata) ** 2
    freedom = effective_count(strata) - 1
    wanted = stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(POWER, freedom)
    return round(float(wanted * sqrt(variance)), 2)


def sampling_interval(mean: float, variances: list[np.ndarray], confidence: float) -> dict[str, float] | None:
    """The interval of a mean on these very questions: what other samples of the same models would change.

    ``variances`` has, for each stratum, the sampling variance of each question's mean; None where one question was
    sampled once.
    """
    variance = sum(float(each.sum()) / len(each) ** 2 for each in variances) / len(variances) ** 2
    if not np.isfinite(variance):
        return None
    half = float(stats.norm.ppf((1 + confidence) / 2)) * sqrt(variance)
    return {"low": round(mean - half, 4), "high": round(mean + half, 4)}


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


def adaptivity(
    difficulty: dict[str, Blocks], tokens: dict[str, Blocks], resamples: int, confidence: float, seed: int
) -> dict[str, dict[str, Any]]:
    """By model: by how many percent its answers grow per ten points of difficulty (the fail rate).

    By model, ``difficulty`` is each question's fail rate, from 0 to 1, and ``tokens`` its mean length. The figure comes
    from the slope of log tokens on difficulty; 0 is a length independent of it. None where all questions are equally
    hard. Models share the draws of questions, so their draws can be compared.
    """
    rng, first = np.random.default_rng(seed), next(iter(tokens.values()))
    picks = [rng.integers(0, len(block), (resamples, len(block))) for block in first]
    count = sum(map(len, first))
    found: dict[str, dict[str, Any]] = {}
    for model, blocks in tokens.items():
        logs = [np.log(np.maximum(block, 1.0)) for block in blocks]
        drawn, drawn_logs = (
            [block[pick] for block, pick in zip(each, picks, strict=True)] for each in (difficulty[model], logs)
        )
        found[model] = {}
        for name, slope in SLOPES.items():
            (value,) = slope([block[None] for block in difficulty[model]], [block[None] for block in logs])
            draws = growth(slope(drawn, drawn_logs))
            draws = draws[np.isfinite(draws)]
            sound = np.isfinite(value) and len(draws) > resamples // 2
            found[model][name] = interval(draws, float(growth(value)), count, confidence) if sound else None
    return found
