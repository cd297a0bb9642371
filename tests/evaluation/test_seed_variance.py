"""Variance between training seeds: how it is estimated, and what intervals and tests are with it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.comparison_methods import AIME, METHODS, World, ours, rates
from distillery.evaluation.paired_statistics import estimate_over, sign_flip_p, smallest_detectable, tail_of
from distillery.evaluation.seed_variance import NONE, SeedVariance, pooled_seed_variance


def test_one_seed_each_says_nothing_of_training():
    assert pooled_seed_variance([[np.zeros((1, 5))], [np.zeros((1, 5))]]) is None and pooled_seed_variance([]) is None


def test_the_variance_between_seeds_is_found_without_that_of_questions():
    """Two points between seeds, on questions that scatter by thirty."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        questions = rng.normal(50, 30, 40)
        arms = [[questions + rng.normal(0, 2, (4, 1)) + rng.normal(0, 10, (4, 40))] for _ in range(3)]
        estimate = pooled_seed_variance(arms)
        assert estimate is not None
        found.append(estimate.variance)
    assert np.mean(found) == pytest.approx(4.0, rel=0.1)


def test_arms_are_pooled_by_their_degrees_of_freedom():
    """Seed means of 0 and 2 (variance 2) with one degree, and of 0, 3 and 6 (variance 9) with two; no other scatter."""
    one, other = np.array([[0.0] * 5, [2.0] * 5]), np.array([[0.0] * 5, [3.0] * 5, [6.0] * 5])
    found = pooled_seed_variance([[one], [other], [np.zeros((1, 5))]])
    assert found is not None and found.variance == pytest.approx((2 + 2 * 9) / 3)
    assert found.uncertainty == pytest.approx(found.variance**2 / 3)
    between_seeds = found.of_means(2, 1)
    assert (between_seeds.variance, between_seeds.uncertainty) == pytest.approx((1.5 * 20 / 3, 1.5**2 * found.uncertainty))


@given(st.integers(2, 4), st.integers(1, 3), st.floats(-50, 50))
def test_the_level_of_an_arm_does_not_matter(seeds, benchmarks, shift):
    rng = np.random.default_rng(seeds)
    arm = [rng.normal(0, 10, (seeds, 6 + 3 * block)) for block in range(benchmarks)]
    one, moved = pooled_seed_variance([arm]), pooled_seed_variance([[block + shift for block in arm]])
    assert one is not None and moved is not None and moved.variance == pytest.approx(one.variance, abs=1e-6)


def test_without_seed_variance_everything_is_as_by_questions_alone():
    change = np.random.default_rng(1).normal(0.4, 1, 40)
    assert sign_flip_p([change], 2000, 0, NONE) == sign_flip_p([change], 2000, 0)
    assert NONE.corrected(0.03, 1.0) == 0.03 and tail_of(0.95, 30, NONE, 7.0) == tail_of(0.95, 30)


def test_seeds_widens_p_interval_and_what_is_detectable():
    change, between_seeds = np.random.default_rng(1).normal(0.6, 1, 40), SeedVariance(0.04, 0.04**2 / 4)
    assert sign_flip_p([change], 4000, 0, between_seeds) > 2 * sign_flip_p([change], 4000, 0)
    wide, narrow = (estimate_over([change], 4000, 0.95, 0, each) for each in (between_seeds, NONE))
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]  # type: ignore[operator]
    least = [smallest_detectable([change], 0.05, 4000, each) or 0.0 for each in (between_seeds, NONE)]
    assert least[0] > 1.2 * least[1]


@pytest.mark.slow
def test_seeds_alone_is_a_t_test():
    """Questions that do not scatter, and training whose variance has four degrees of freedom."""
    between_seeds = SeedVariance(1.0, 1.0 / 4)
    p = sign_flip_p([np.full(20, 3.0)], 2**20, 0, SeedVariance(100.0, 100.0**2 / 4))
    expected = 2 * stats.t.sf(3.0 / np.sqrt(100 + 9 / 20), (100 + 9 / 20) ** 2 / (100.0**2 / 4))
    assert p == pytest.approx(expected, rel=0.02)
    assert between_seeds.share_beyond(np.array([0.0]), 1.96)[0] == pytest.approx(0.05, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "world", [World(seeds=2), World(seeds=3), World(seeds=5), replace(AIME, seeds=3), World(seeds=3, training=0.0)], ids=str
)
def test_level_and_coverage_with_several_seeds(world):
    """Two arms alone, so that training has the fewest degrees of freedom; `bench.comparison_methods` has more runs."""
    found = rates(world, 500, 3)
    level, coverage = found["ours"]
    assert level <= 0.08 and coverage is not None and coverage >= 0.92


@pytest.mark.slow
def test_by_questions_alone_another_seed_is_taken_for_another_teacher():
    found = rates(World(seeds=3), 200, 4)
    assert found["bootstrap"][0] > 0.15 > found["ours"][0] and found["t over questions"][0] > 0.15


def test_two_questions_give_no_interval_and_no_significance():
    arms, _ = World(questions=(2,)).draw(np.random.default_rng(0))
    assert ours(arms, 0).interval is None and ours(arms, 0).p > 0.05 and set(METHODS) > {"ours"}
