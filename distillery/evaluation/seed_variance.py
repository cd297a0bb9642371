"""Training seeds as a source of variance beside questions and samples.

Two students that were trained on the same data with other seeds differ, by more than their samples explain. How much is
estimated from all arms together, since an arm has few seeds: the variance of a seed's mean score, less what the scatter of
its questions would give by itself (a two-way layout of seeds and questions; Searle, Casella and McCulloch, Variance
Components, 1992). So few seeds leave that estimate uncertain, which widens intervals by Satterthwaite's degrees of freedom
(Biometrics Bulletin 2(6), 1946).
"""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class SeedVariance:
    """What training adds to the variance of a score or a difference, and how uncertain that is.

    ``uncertainty`` is the sum over mean squares of square / degrees of freedom, as in Satterthwaite's formula.
    """

    variance: float = 0.0
    uncertainty: float = 0.0

    def freedom(self, other: float, of_other: float = inf) -> float:
        """Degrees of freedom of the sum of this variance and another one with its own."""
        uncertain = self.uncertainty + other**2 / of_other
        return (self.variance + other) ** 2 / uncertain if uncertain else inf

    def draws(self, count: int, seed: int) -> np.ndarray:
        """So many draws, (count,)."""
        return sqrt(self.variance) * np.random.default_rng(seed).standard_normal(count)

    def share_beyond(self, means: np.ndarray, limit: float) -> np.ndarray:
        """For each mean, the probability that it and a draw add up to ``limit`` or more in absolute value."""
        if not self.variance:
            beyond: np.ndarray = (abs(means) >= limit).astype(float)
            return beyond
        above, below = ((limit - sign * means) / sqrt(self.variance) for sign in (1, -1))
        tails: np.ndarray = stats.norm.sf(above) + stats.norm.sf(below)
        return tails

    def corrected(self, p: float, other: float) -> float:
        """A two-sided p for a known variance, corrected for the uncertainty of this one; ``other`` is known."""
        freedom = self.freedom(other)
        return p if freedom == inf else 2 * float(stats.t.sf(stats.norm.isf(p / 2), freedom))


NONE = SeedVariance()


@dataclass(frozen=True)
class PooledSeedVariance:
    """The variance of a student's score between training seeds, pooled over arms, with its uncertainty as in `SeedVariance`."""

    variance: float
    uncertainty: float

    def of_means(self, *seeds: int) -> SeedVariance:
        """Of a score that is a mean over so many seeds, or of the difference of two of them."""
        weight = sum(1 / count for count in seeds)
        return SeedVariance(weight * self.variance, weight**2 * self.uncertainty)


def pooled_seed_variance(arms: list[list[np.ndarray]]) -> PooledSeedVariance | None:
    """From the values of each arm, (seeds, questions), an array per benchmark; the score is the mean over benchmarks.

    None where no arm has a second seed.
    """
    several = [strata for strata in arms if len(strata[0]) > 1]
    if not several:
        return None
    freedom = sum(len(strata[0]) - 1 for strata in several)
    between = sum((len(strata[0]) - 1) * _between(strata) for strata in several) / freedom
    blocks = [(values, len(strata)) for strata in several for values in strata]
    noises = [(len(values) - 1, values.shape[1] - 1, _noise(values) / count**2) for values, count in blocks]
    noise = sum(extra * each for extra, _, each in noises) / freedom
    squares = sum(extra * each**2 / max(questions, 1) for extra, questions, each in noises) / freedom**2
    return PooledSeedVariance(max(0.0, between - noise), between**2 / freedom + squares)


def _between(strata: list[np.ndarray]) -> float:
    """The variance of a seed's score between seeds."""
    return float(np.mean([values.mean(1) for values in strata], 0).var(ddof=1))


def _noise(values: np.ndarray) -> float:
    """What scatter that neither seed nor question explains adds to the variance of a seed's mean; 0 of one question."""
    rows, columns = values.shape
    if columns < 2:
        return 0.0
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    return float((rest**2).sum()) / ((rows - 1) * (columns - 1) * columns)
