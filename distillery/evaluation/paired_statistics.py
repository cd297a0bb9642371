"""Statistics over questions: intervals, paired tests, and multiple comparisons.

Samples of one question are correlated, so we resample questions and keep each one's samples together (cluster bootstrap:
Efron and Tibshirani, An Introduction to the Bootstrap, 1993). Percentile intervals are too narrow for few questions; they
are widened as Hesterberg shows (The American Statistician 69(4), 2015, section 4.2).

p values are from a sign-flip permutation test (Fisher; Good, Permutation Tests, 2000): where two models are equally good, a
question's difference is as likely to be d as -d. The bootstrap's own p rejects too often where differences are skewed, as on
AIME, where most questions are always or never solved: 7.5 % of the time at the level of 5 %, where this test keeps 4.9 %.

Where students were trained with several seeds, a `SeedVariance` says what training adds: normal draws are added to those of the
bootstrap and of the sign flips, and quantiles are those of a t distribution, since so few seeds leave its variance uncertain.
"""

from math import ceil, sqrt

import numpy as np
from scipy import stats

from distillery.evaluation.seed_variance import NONE, SeedVariance

POWER = 0.8
LARGEST_BLOCK = 2_000_000
Estimate = dict[str, float | None]
"""``mean``, ``low`` and ``high``; the last two None where there is no interval."""


def scatters(values: np.ndarray) -> bool:
    """Whether values differ by more than rounding."""
    return bool(np.ptp(values) > 1e-9 * (1 + abs(values).max()))


def draws_of_mean(values: np.ndarray, resamples: int, seed: int, span: float | None) -> np.ndarray:
    """Bootstrap draws of the mean of (questions,) values.

    Values that are all equal do not scatter, and a bootstrap would be certain of them. Where all are 0, a mean of u goes
    unseen with a probability of at most (1 - u) ^ questions, if one value can differ by 1 at most; likewise where all are as
    high as they can be. Draws are then from that distribution, to both sides, with ``span`` as the 1. Where they are equal
    otherwise, or know no such limit (``span`` None), draws are not numbers.
    """
    if scatters(values):
        return resampled_means(values, resamples, seed)
    if span is None or values[0] not in (0.0, span):
        return np.full(resamples, np.nan)
    rng = np.random.default_rng(seed)
    drawn: np.ndarray = values[0] + span * rng.choice((-1.0, 1.0), resamples) * rng.beta(1, len(values), resamples)
    return drawn


def resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of so many bootstrap samples of (questions,) values; the same seed picks the same questions."""
    rng, found = np.random.default_rng(seed), []
    block = max(1, LARGEST_BLOCK // len(values))
    for start in range(0, resamples, block):
        picks = rng.integers(0, len(values), (min(block, resamples - start), len(values)))
        found.append(values[picks].mean(1))
    return np.concatenate(found)


def tail_of(confidence: float, count: float, between_seeds: SeedVariance = NONE, variance: float = 1.0) -> float:
    """The percentile, as a share, at which an interval of this confidence over ``count`` values ends.

    ``variance`` is that of the mean of these values, to which ``between_seeds`` adds.
    """
    if count < 2:
        return (1 - confidence) / 2
    wider = sqrt((variance * count / (count - 1) + between_seeds.variance) / (variance + between_seeds.variance))
    return float(stats.norm.cdf(wider * stats.t.ppf((1 - confidence) / 2, between_seeds.freedom(variance, count - 1))))


def interval(draws: np.ndarray, value: float, count: float, confidence: float, between_seeds: SeedVariance = NONE) -> Estimate:
    """A value with the interval of its bootstrap ``draws`` over ``count`` questions; none where draws are not numbers.

    ``between_seeds`` is part of the draws.
    """
    if not np.isfinite(draws).all():
        return {"mean": round(value, 4), "low": None, "high": None}
    variance = max(float(draws.var()) - between_seeds.variance, 0.0) or float(not between_seeds.variance)
    tail = tail_of(confidence, count, between_seeds, variance)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return {name: round(float(each), 4) for name, each in {"mean": value, "low": low, "high": high}.items()}


def sign_flip_p(strata: list[np.ndarray], resamples: int, seed: int, between_seeds: SeedVariance = NONE) -> float:
    """The two-sided p of a paired difference, one number per question in each stratum (benchmark): (questions,) each.

    The statistic is the mean over strata of their means; under the null hypothesis every question's sign is a coin flip, and
    ``between_seeds`` is added. All sign patterns are enumerated where there are no more than ``resamples``, else so many are
    drawn, and the observed one counts among them (Phipson and Smyth, 2010).
    """
    weighted = np.concatenate([values / (len(values) * len(strata)) for values in strata])
    weighted = weighted[weighted != 0]
    least = abs(weighted.sum()) - 1e-9 * abs(weighted).sum()  # as extreme as observed, but for rounding
    if least <= 0:
        return 1.0
    if len(weighted) < 63 and 2 ** len(weighted) <= resamples:
        patterns = np.arange(2 ** len(weighted))[:, None] >> np.arange(len(weighted)) & 1
        p = float(np.mean(between_seeds.share_beyond((2 * patterns - 1) @ weighted, least)))
        return between_seeds.corrected(p, float(weighted @ weighted))
    rng, extreme = np.random.default_rng(seed), 0.0
    block = max(1, LARGEST_BLOCK // len(weighted))
    for start in range(0, resamples, block):
        flips = rng.integers(0, 2, (min(block, resamples - start), len(weighted)), np.int8)
        extreme += float(np.sum(between_seeds.share_beyond((2.0 * flips - 1) @ weighted, least)))
    return between_seeds.corrected((extreme + 1) / (resamples + 1), float(weighted @ weighted))


def smallest_p(questions: int, resamples: int) -> float:
    """The least p that `sign_flip_p` can give, however large the difference."""
    return max(1 / (resamples + 1), 2.0 ** (1 - questions))


def estimate_over(
    strata: list[np.ndarray],
    resamples: int,
    confidence: float,
    seed: int,
    between_seeds: SeedVariance = NONE,
    span: float | None = None,
) -> Estimate:
    """The mean over strata (benchmarks) of the means of their (questions,) values, with its interval.

    Given the differences of two models on the same questions, this is the interval of their paired difference. Each
    stratum's questions are drawn on their own, its draws widened for their number; the overall interval counts as so many
    questions as Satterthwaite's degrees of freedom give (Biometrics Bulletin 2(6), 1946). There is none where questions are
    so few that no difference could be significant. ``span`` is as in `draws_of_mean`.
    """
    mean, count = float(np.mean([values.mean() for values in strata])), effective_count(strata)
    if count <= 1 or smallest_p(sum(map(len, strata)), resamples) > 1 - confidence:
        return {"mean": round(mean, 4), "low": None, "high": None}
    draws = between_seeds.draws(resamples, seed)
    for i, values in enumerate(strata):
        wider = sqrt(len(values) / (len(values) - 1) * (count - 1) / count)
        draws += (values.mean() + wider * (draws_of_mean(values, resamples, seed + i, span) - values.mean())) / len(strata)
    return interval(draws, mean, count, confidence, between_seeds)


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


def smallest_detectable(
    strata: list[np.ndarray], level: float, resamples: int, between_seeds: SeedVariance = NONE
) -> float | None:
    """The smallest true difference that a test at ``level`` finds with a power of 80 %, with questions like these.

    It depends on how differences scatter and on how many there are, not on the one that was observed (power reckoned from
    that says no more than its p: Hoenig and Heisey, The American Statistician 55(1), 2001). Of several strata it is for the
    mean over strata, as in `estimate_over`. None where nothing scatters, a stratum has a single question, or so few
    questions give no p within the level; with fewer than thirty the power is a little less.
    """
    if not any(map(scatters, strata)) or min(map(len, strata)) < 2 or smallest_p(sum(map(len, strata)), resamples) > level:
        return None
    variance = variance_of_mean(strata)
    freedom = between_seeds.freedom(variance, effective_count(strata) - 1)
    wanted = stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(POWER, freedom)
    return round(float(wanted * sqrt(variance + between_seeds.variance)), 2)


def variance_of_mean(strata: list[np.ndarray]) -> float:
    """The variance of the mean over strata of the means of their (questions,) values."""
    return sum(float(each.var(ddof=1)) / len(each) for each in strata) / len(strata) ** 2


def sampling_variance(variances: list[np.ndarray]) -> float:
    """The part of it that other samples on the same questions would change.

    ``variances`` has, for each stratum, the sampling variance of each question's mean; not a number where one question was
    sampled once.
    """
    return sum(float(each.sum()) / len(each) ** 2 for each in variances) / len(variances) ** 2


def sampling_interval(mean: float, variances: list[np.ndarray], confidence: float) -> dict[str, float] | None:
    """The interval of a mean on these very questions: what other samples of the same models would change."""
    variance = sampling_variance(variances)
    if not np.isfinite(variance):
        return None
    half = float(stats.norm.ppf((1 + confidence) / 2)) * sqrt(variance)
    return {"low": round(mean - half, 4), "high": round(mean + half, 4)}


SOURCES = ("seeds", "questions", "samples")


def variance_shares(
    strata: list[np.ndarray], variances: list[np.ndarray], between_seeds: SeedVariance
) -> dict[str, float] | None:
    """How much of a difference's variance is due to training seeds, to the choice of questions, and to samples.

    None where nothing scatters, or questions or samples are too few to say.
    """
    if min(map(len, strata)) < 2:
        return None
    samples, total = sampling_variance(variances), variance_of_mean(strata)
    parts = (between_seeds.variance, max(0.0, total - samples), min(total, samples))
    if not np.isfinite(samples) or not sum(parts):
        return None
    return {name: part / sum(parts) for name, part in zip(SOURCES, parts, strict=True)}


def what_settles(shares: dict[str, float], detectable: float, wanted: float) -> dict[str, int | None]:
    """By how many times more seeds, or questions, or samples alone, the detectable difference falls to ``wanted``.

    More questions bring more samples with them. None where that source alone cannot do it. The quantiles stay as they are,
    which asks for slightly too many.
    """
    allowed = (wanted / detectable) ** 2
    reducible = {
        "seeds": shares["seeds"],
        "questions": shares["questions"] + shares["samples"],
        "samples": shares["samples"],
    }
    left = {name: allowed - (1 - share) for name, share in reducible.items()}
    return {name: ceil(share / left[name]) if left[name] > 0 else None for name, share in reducible.items()}
