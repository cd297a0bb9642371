"""How the differences between arms change with the amount of data, and whether more data can still change who is ahead.

A difference is taken to be linear in the logarithm of the share of queries, from the smallest share to all of them, which
is an assumption that no pilot can check beyond its largest share. Its scatter about that line, pooled over pairs, is the
variance between training seeds; the choice of questions adds its own variance, which all shares have in common.
"""

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from scipy import stats

CAN, CANNOT = "more data can change it", "the remaining data cannot change it"


@dataclass(frozen=True)
class Curve:
    """The differences of one pair of arms: a point per share, and the variance that the choice of questions gives each."""

    shares: tuple[float, ...]
    points: tuple[float, ...]
    question_variance: float


@dataclass(frozen=True)
class Line:
    """A line through a curve's points over the logarithm of the share: its value at all data, and its slope."""

    at_all: float
    slope: float
    residuals: tuple[float, ...]
    leverage: float
    """The variance of ``at_all`` in units of a point's own."""

    @property
    def crossing(self) -> float | None:
        """The share at which the line crosses zero; None where it does not up to all data."""
        share = exp(-self.at_all / self.slope) if self.slope and -self.at_all / self.slope < 0 else None
        return None if share is None else round(share, 4)


@dataclass(frozen=True)
class Outlook:
    """What a pair's difference will be with all data: its mean and interval, and whether its sign is settled."""

    mean: float
    low: float
    high: float
    crossing: float | None

    @property
    def verdict(self) -> str:
        return CANNOT if self.low > 0 or self.high < 0 else CAN


def line_of(curve: Curve) -> Line:
    """The least-squares line of at least two shares."""
    design = np.stack([np.ones(len(curve.shares)), [log(share) for share in curve.shares]], 1)
    inverse = np.linalg.inv(design.T @ design)
    at_all, slope = inverse @ design.T @ np.array(curve.points)
    residuals = np.array(curve.points) - design @ np.array([at_all, slope])
    return Line(float(at_all), float(slope), tuple(residuals.tolist()), float(inverse[0, 0]))


def outlooks(curves: dict[str, Curve], confidence: float) -> dict[str, Outlook]:
    """What to expect of every pair with all data, for students of one seed like those of the curves.

    Raises ValueError for fewer than three shares, which leave no scatter to see.
    """
    lines = {pair: line_of(curve) for pair, curve in curves.items()}
    freedom = sum(len(line.residuals) - 2 for line in lines.values())
    if freedom < 1:
        raise ValueError("a pilot needs at least three shares")
    scatter = sum(residual**2 for line in lines.values() for residual in line.residuals) / freedom
    found = {}
    for pair, line in lines.items():
        line_variance, questions = scatter * (1 + line.leverage), curves[pair].question_variance
        of_both = (line_variance + questions) ** 2 / (line_variance**2 / freedom) if line_variance else 1e9
        half = float(stats.t.ppf((1 + confidence) / 2, of_both)) * sqrt(line_variance + questions)
        found[pair] = Outlook(line.at_all, line.at_all - half, line.at_all + half, line.crossing)
    return found
