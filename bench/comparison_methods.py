"""How often each way of comparing two students errs: `python -m bench.comparison_methods [RUNS]` prints a table for the docs.

Worlds are made: a question's logit is normal, each arm adds its own deviation per question, each training seed one per
question and one for all questions, and samples are drawn. Level is how often two equal arms are called different at 5 %,
coverage how often the interval of 95 % holds the true difference, power how often a true difference is found.

The true difference is that of arms: over questions like these, and over trainings like these. The mixed model is that of a
balanced layout, arms x seeds within arms x questions, by its mean squares with Satterthwaite's degrees of freedom.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from scipy import stats

from distillery.core.text_table import format_table
from distillery.evaluation.paired_statistics import estimate_over, resampled_means, sign_flip_p
from distillery.evaluation.seed_variance import NONE, pooled_seed_variance

LEVEL, RESAMPLES = 0.05, 1000
Arms = tuple[list[np.ndarray], list[np.ndarray]]
"""Two arms: percent of samples that pass, (seeds, questions), an array per benchmark."""


@dataclass(frozen=True)
class World:
    """What is compared; logits throughout."""

    seeds: int = 3
    questions: tuple[int, ...] = (30, 30, 60, 60)
    samples: int = 16
    mean: float = 0.0
    """Of questions' logits: a high one is a ceiling."""
    spread: float = 1.5
    """Standard deviation of questions' logits."""
    interaction: float = 0.5
    """Of each arm's deviation per question."""
    training: float = 0.1
    """Of each seed's deviation over all questions; on a question, its deviation is as large again."""
    effect: tuple[float, ...] = (0.0,)
    """By how much the first arm is better, on each benchmark, or the same on all."""

    def draw(self, rng: np.random.Generator) -> tuple[Arms, float]:
        """Two arms, and the true difference of their scores in points."""
        arms: Arms = ([], [])
        effects = self.effect * (len(self.questions) // len(self.effect))
        between_seeds = rng.normal(0, self.training, (2, self.seeds))
        for count, effect in zip(self.questions, effects, strict=True):
            logits = rng.normal(self.mean, self.spread, count)
            for number, arm in enumerate(arms):
                own = logits + (effect if number == 0 else 0.0) + rng.normal(0, self.interaction, count)
                each = own + between_seeds[number][:, None] + rng.normal(0, self.training, (self.seeds, count))
                arm.append(100 * rng.binomial(self.samples, 1 / (1 + np.exp(-each))) / self.samples)
        return arms, self.truth(effects)

    def truth(self, effects: tuple[float, ...]) -> float:
        """The expected difference, in points, by quadrature."""
        sd = sqrt(self.spread**2 + self.interaction**2 + 2 * self.training**2)
        nodes, weights = np.polynomial.hermite_e.hermegauss(60)
        logits = self.mean + sd * nodes
        passed = [np.sum(weights / (1 + np.exp(-logits - effect))) / weights.sum() for effect in (*effects, 0.0)]
        return float(100 * (np.mean(passed[:-1]) - passed[-1]))


@dataclass(frozen=True)
class Result:
    """A method's p, and its interval of 95 % (None: it gives none)."""

    p: float
    interval: tuple[float, float] | None


def changes(arms: Arms) -> list[np.ndarray]:
    return [a.mean(0) - b.mean(0) for a, b in zip(*arms, strict=True)]


def ours(arms: Arms, run: int) -> Result:
    found = pooled_seed_variance(list(arms))
    between_seeds = found.of_means(len(arms[0][0]), len(arms[1][0])) if found else NONE
    held = estimate_over(changes(arms), RESAMPLES, 1 - LEVEL, run, between_seeds, 100.0)
    interval = None if held["low"] is None or held["high"] is None else (held["low"], held["high"])
    return Result(sign_flip_p(changes(arms), RESAMPLES, run, between_seeds), interval)


def by_t(mean: float, variance: float, freedom: float) -> Result:
    if variance <= 0 or not freedom:
        return Result(float(mean == 0), (mean, mean))
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * sqrt(variance)
    return Result(2 * float(stats.t.sf(abs(mean) / sqrt(variance), freedom)), (mean - half, mean + half))


def mean_and_variance(strata: list[np.ndarray]) -> tuple[float, float]:
    mean = float(np.mean([each.mean() for each in strata]))
    return mean, sum(float(each.var(ddof=1)) / len(each) for each in strata) / len(strata) ** 2


def t_over_questions(arms: Arms, run: int) -> Result:
    strata = changes(arms)
    return by_t(*mean_and_variance(strata), sum(map(len, strata)) - len(strata))


def bootstrap(arms: Arms, run: int) -> Result:
    strata = changes(arms)
    draws = np.mean([resampled_means(each, RESAMPLES, run + 7 * i) for i, each in enumerate(strata)], 0)
    low, high = np.quantile(draws, [LEVEL / 2, 1 - LEVEL / 2])
    return Result(min(1.0, 2 * min(float(np.mean(draws <= 0)), float(np.mean(draws >= 0)))), (float(low), float(high)))


def t_over_seeds(arms: Arms, run: int) -> Result:
    one, other = (np.mean([each.mean(1) for each in arm], 0) for arm in arms)
    variance = float(one.var(ddof=1) + other.var(ddof=1)) / len(one) if len(one) > 1 else 0.0
    return by_t(float(one.mean() - other.mean()), variance, 2 * (len(one) - 1))


def mixed_model(arms: Arms, run: int) -> Result:
    strata, seeds = changes(arms), len(arms[0][0])
    mean, questions = mean_and_variance(strata)
    parts, freedom = [questions], [sum(map(len, strata)) - len(strata)]
    if seeds > 1:
        scores = [np.mean([each.mean(1) for each in arm], 0) for arm in arms]
        rest = [each - each.mean(0) - each.mean(1, keepdims=True) + each.mean() for arm in arms for each in arm]
        noise = sum(float((each**2).sum()) / (seeds - 1) / (each.shape[1] - 1) / each.shape[1] for each in rest)
        parts += [sum(float(each.var(ddof=1)) for each in scores) / seeds, noise / seeds / len(strata) ** 2]
        freedom += [2 * (seeds - 1), 2 * (seeds - 1) * freedom[0]]
    signs = (1, 1, -1)
    variance = max(questions, sum(sign * part for sign, part in zip(signs, parts, strict=False)))
    return by_t(mean, variance, variance**2 / sum(part**2 / each for part, each in zip(parts, freedom, strict=True)))


METHODS: dict[str, Callable[[Arms, int], Result]] = {
    "ours": ours,
    "t over questions": t_over_questions,
    "bootstrap": bootstrap,
    "t over seeds": t_over_seeds,
    "mixed model": mixed_model,
}
AIME = World(questions=(30,), samples=64, spread=3.5, interaction=1.0, training=0.2)
WORLDS = {
    **{f"four benchmarks, {seeds} seeds": World(seeds=seeds) for seeds in (1, 2, 3, 5)},
    "four benchmarks, 3 equal seeds": World(training=0.0),
    **{f"like AIME, 64 samples, {seeds} seeds": replace(AIME, seeds=seeds) for seeds in (1, 3)},
    "at the ceiling, 3 seeds": World(mean=4.0, questions=(60,), samples=4),
    "two questions, 3 seeds": World(questions=(2,)),
}
EFFECTS = {
    "four benchmarks, 1 seeds": (0.35,),
    "four benchmarks, 3 seeds": (0.35,),
    "four benchmarks, 5 seeds": (0.35,),
    "four benchmarks, 3 seeds, on one of them alone": (1.4, 0.0, 0.0, 0.0),
    "like AIME, 64 samples, 3 seeds": (1.5,),
}


STUDY = replace(AIME, mean=3.3, effect=(0.7,), seeds=1, training=0.0)
"""As arXiv 2505.14464 reports AIME2024: 84.3 against 79.4 %."""
SIZES = (30, 60, 120, 240, 480)


def rates(world: World, runs: int, seed: int) -> dict[str, tuple[float, float | None]]:
    """By method: how often it calls the arms different, and how often its interval holds the truth (None: it gives none)."""
    rng, found = np.random.default_rng(seed), {name: ([], []) for name in METHODS}  # type: ignore[var-annotated]
    for run in range(runs):
        arms, truth = world.draw(rng)
        for name, method in METHODS.items():
            result = method(arms, run)
            found[name][0].append(result.p <= LEVEL)
            if result.interval:
                found[name][1].append(result.interval[0] <= truth <= result.interval[1])
    return {name: (float(np.mean(called)), float(np.mean(held)) if held else None) for name, (called, held) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.comparison_methods")
    parser.add_argument("runs", type=int, nargs="?", default=2000)
    runs = parser.parse_args().runs
    rows, powers, sizes = [], [], []
    for name, world in WORLDS.items():
        cells = [
            f"{called:.3f} / {'none' if held is None else f'{held:.3f}'}" for called, held in rates(world, runs, 1).values()
        ]
        rows.append([name, *cells])
    for name, effect in EFFECTS.items():
        world = replace(WORLDS[name.removesuffix(", on one of them alone")], effect=effect)
        powers.append([name, f"{world.truth(effect * (len(world.questions) // len(effect))):.1f}"])
        powers[-1] += [f"{called:.2f}" for called, _ in rates(world, runs, 2).values()]
    for questions in SIZES:
        world = replace(STUDY, questions=(questions,))
        called, _ = rates(world, runs, 3)["ours"]
        sizes.append([f"{questions} questions", f"{world.truth(STUDY.effect):.1f}", f"{called:.2f}"])
    print("\n".join(format_table(["equal arms: level / coverage", *METHODS], rows)))
    print("\n".join(format_table(["power", "points", *METHODS], powers)))
    print("\n".join(format_table(["like AIME2024 in the study, one training", "points", "power"], sizes)))


if __name__ == "__main__":
    main()
