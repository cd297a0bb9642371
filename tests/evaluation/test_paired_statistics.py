from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distillery.evaluation.paired_statistics import (
    Estimate,
    effective_count,
    estimate_over,
    holm,
    resampled_means,
    sampling_interval,
    sign_flip_p,
    smallest_detectable,
    smallest_p,
    tail_of,
)

RUNS = 1000


def covers(found: Estimate, truth: float) -> bool:
    low, high = found["low"], found["high"]
    return low is not None and high is not None and low <= truth <= high


@pytest.mark.slow
@pytest.mark.parametrize(("questions", "per"), [(30, 8), (60, 4), (200, 4)])
def test_intervals_have_nominal_coverage(questions, per):
    rng, hits = np.random.default_rng(1), 0
    for run in range(RUNS):
        rates = rng.beta(2, 2, questions)
        found = estimate_over([100 * rng.binomial(per, rates) / per], 500, 0.95, run)
        hits += covers(found, 50)
    assert 0.93 <= hits / RUNS <= 0.97


@pytest.mark.slow
def test_intervals_of_paired_differences_have_nominal_coverage():
    rng, hits = np.random.default_rng(2), 0
    for run in range(RUNS):
        easy = rng.uniform(0.1, 0.8, 30)
        a, b = 100 * rng.binomial(8, easy + 0.1) / 8, 100 * rng.binomial(8, easy) / 8
        found = estimate_over([a - b], 500, 0.95, run)
        hits += covers(found, 10)
    assert 0.93 <= hits / RUNS <= 0.97


@pytest.mark.slow
def test_the_paired_test_has_more_power_and_keeps_its_level():
    rng = np.random.default_rng(3)
    paired = apart = alarms = 0
    for run in range(RUNS):
        rates = rng.uniform(0.05, 0.8, 30)
        a, b, same = (100 * rng.binomial(16, r) / 16 for r in (rates + 0.1, rates, rates))
        paired += sign_flip_p([a - b], 500, run) <= 0.05
        apart += stats.ttest_ind(a, b).pvalue <= 0.05
        alarms += sign_flip_p([same - b], 500, run) <= 0.05
    assert paired / RUNS > 0.9 and apart / RUNS < 0.5
    assert alarms / RUNS <= 0.065, "5 % and sampling error of 1,000 runs"


def passes(rng: np.random.Generator, questions: int, samples: int, models: int) -> np.ndarray:
    """Percent of samples that pass, (models, questions): equally good models on questions as varied as AIME's.

    Question logits have a standard deviation of 3.5, so that most are always or never solved; the interaction of model and
    question adds one of 1.
    """
    logits = rng.normal(0, 3.5, questions) + rng.normal(0, 1, (models, questions))
    return 100 * rng.binomial(samples, 1 / (1 + np.exp(-logits))) / samples


@pytest.mark.slow
def test_the_false_positive_rate_matches_the_level():
    """Here the bootstrap's p is at most .05 in 7.5 % of runs, and at most .05 / 24 in 0.40 % instead of 0.21 %."""
    rng, runs = np.random.default_rng(11), 6000
    ps = np.array([sign_flip_p([np.subtract(*passes(rng, 30, 64, 2))], 4000, run) for run in range(runs)])
    assert 0.042 <= np.mean(ps <= 0.05) <= 0.058
    assert np.mean(ps <= 0.05 / 24) <= 0.0033, "0.21 % and two standard errors of 6,000 runs"


@pytest.mark.slow
def test_the_family_wise_error_rate_of_equal_models_is_within_the_level():
    """Four models on four benchmarks, 24 comparisons with Holm's method: the bootstrap's p gave 7.8 %."""
    rng, runs, alarms = np.random.default_rng(12), 600, 0
    for run in range(runs):
        benchmarks = [passes(rng, 30, 64, 4) for _ in range(4)]
        pairs = combinations(range(4), 2)
        ps = [sign_flip_p([found[a] - found[b]], 4000, run) for a, b in pairs for found in benchmarks]
        alarms += min(holm(ps)) <= 0.05
    assert 0.015 <= alarms / runs <= 0.065


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9), st.lists(st.integers(-5, 5), max_size=3))
def test_few_questions_are_enumerated_exactly(one, other):
    strata = [np.array(values, float) for values in (one, other) if values]
    flips = product(*([-1, 1] for values in strata for _ in values))
    weights = np.concatenate([values / len(values) / len(strata) for values in strata])
    sums = np.array([abs(np.dot(signs, weights)) for signs in flips])
    expected = np.mean(sums >= abs(weights.sum()) - 1e-9)
    assert sign_flip_p(strata, 10_000, 0) == pytest.approx(expected)


def test_sampled_sign_patterns_approximate_the_exact_test():
    change = np.random.default_rng(1).normal(0.4, 1, 16)
    assert sign_flip_p([change], 60_000, 0) == pytest.approx(sign_flip_p([change], 2**16, 0), rel=0.1)


@pytest.mark.parametrize(("questions", "resamples"), [(1, 100), (4, 100), (30, 999), (200, 50)])
def test_the_smallest_p_is_that_of_equal_differences(questions, resamples):
    assert sign_flip_p([np.ones(questions)], resamples, 0) == pytest.approx(smallest_p(questions, resamples))


def test_no_difference_has_p_1():
    assert sign_flip_p([np.zeros(5)], 100, 0) == 1.0 and sign_flip_p([np.array([1.0, -1.0])], 100, 0) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(30, 30, 500, 280), (12, 200), (48, 48, 60, 48)])
def test_intervals_and_tests_over_benchmarks_keep_their_level(sizes):
    rng, hits, alarms = np.random.default_rng(7), 0, 0
    for run in range(RUNS):
        rates = [rng.beta(2, 2, questions) for questions in sizes]
        a, b = ([100 * rng.binomial(4, each) / 4 for each in rates] for _ in range(2))
        found = estimate_over(a, 500, 0.95, run)
        hits += covers(found, 50)
        alarms += sign_flip_p([x - y for x, y in zip(a, b, strict=True)], 500, run) <= 0.05
    assert 0.93 <= hits / RUNS <= 0.97 and alarms / RUNS <= 0.065


def test_the_effective_count_is_the_size_of_the_only_noisy_benchmark():
    small = np.random.default_rng(0).normal(size=4)
    assert effective_count([small, np.zeros(500)]) == pytest.approx(4)
    assert effective_count([small, small]) == pytest.approx(7), "three degrees of freedom each"
    assert effective_count([small[:2], small[:2]]) == pytest.approx(3), "one each"
    assert effective_count([small[:1], small]) == 1


def test_benchmarks_of_few_questions_widen_the_interval():
    """For their own numbers of questions, 4 and 6: half the width is 0.347, and would be 0.30 by one's own count alone."""
    few, more = np.array([0.0, 1, 1, 0.5]), np.array([1.0, 0, 0.25, 0.5, 0.75, 1])
    found = estimate_over([few, more], 20_000, 0.95, 0)
    assert (found["low"], found["high"]) == pytest.approx((0.2356, 0.9306), abs=0.005)


def test_four_benchmarks_of_one_question_cannot_be_significant():
    assert sign_flip_p([np.array([100.0])] * 4, 500, 0) == 2 / 16
    assert sign_flip_p([np.array([100.0])], 500, 0) == 1.0


def test_the_detectable_difference_does_not_depend_on_the_split_into_benchmarks():
    """The same questions as one benchmark or as four quarters."""
    drawn = np.random.default_rng(9).normal(0.3, 100.0, 4000)
    assert smallest_detectable(np.split(drawn, 4), 0.05, 10_000) == pytest.approx(
        smallest_detectable([drawn], 0.05, 10_000), rel=0.05
    )


@pytest.mark.slow
def test_holm_controls_the_family_wise_error_rate():
    rng, alarms = np.random.default_rng(4), 0
    for run in range(RUNS):
        ps = [sign_flip_p([rng.normal(size=40)], 500, 10 * run + i) for i in range(6)]
        alarms += min(holm(ps)) <= 0.05
    assert alarms / RUNS <= 0.065


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=7))
def test_holm_is_the_closure_of_bonferronis_tests(ps):
    """A hypothesis is rejected where every set of hypotheses that holds it is, by Bonferroni's test (Marcus et al. 1976)."""
    sets = [held for size in range(1, len(ps) + 1) for held in combinations(range(len(ps)), size)]
    expected = [max(min(1.0, len(held) * min(ps[j] for j in held)) for held in sets if i in held) for i in range(len(ps))]
    assert holm(ps) == pytest.approx(expected, rel=5e-3)


def test_the_interval_matches_scipy_for_many_questions():
    values = np.random.default_rng(5).gamma(2, 10, 1000)
    ours = estimate_over([values], 20_000, 0.95, 0)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours["low"] - theirs.low) < 0.04 * width and abs(ours["high"] - theirs.high) < 0.04 * width


@pytest.mark.parametrize("shift", [0.05, 0.2, 0.35])
def test_p_is_close_to_the_paired_t_test(shift):
    rng = np.random.default_rng(6)
    change = rng.normal(shift, 1, 60)
    assert sign_flip_p([change], 50_000, 0) == pytest.approx(stats.ttest_1samp(change, 0).pvalue, rel=0.25, abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize(("level", "count"), [(0.05, 200), (0.05 / 24, 200), (0.05, 30)])
def test_the_detectable_difference_is_found_with_80_percent_power(level, count):
    rng = np.random.default_rng(4)
    found = []
    for _ in range(400):
        change = smallest_detectable([rng.normal(0.0, 100.0, count)], level, 10_000) or 0.0
        found += [stats.ttest_1samp(rng.normal(change, 100.0, count), 0).pvalue <= level for _ in range(5)]
    assert 0.75 <= np.mean(found) <= 0.85
    assert smallest_detectable([np.zeros(5)], level, 10_000) is None


def test_the_detectable_difference_ignores_the_observed_one():
    drawn = np.random.default_rng(5).normal(0.0, 30.0, 50)
    assert smallest_detectable([drawn], 0.05, 10_000) == smallest_detectable([drawn + 40], 0.05, 10_000)


def test_the_interval_on_these_questions_covers_what_other_samples_give():
    """Twenty questions of fixed difficulty, sampled eight times each, again and again."""
    rng, samples = np.random.default_rng(3), 8
    rates = rng.uniform(0.1, 0.9, 20)
    covered = []
    for _ in range(1000):
        drawn = 100.0 * (rng.random((20, samples)) < rates[:, None])
        found = sampling_interval(drawn.mean(), [drawn.var(1, ddof=1) / samples], 0.95) or {}
        covered.append(found["low"] <= 100 * rates.mean() <= found["high"])
    assert 0.93 <= np.mean(covered) <= 0.97


def test_one_sample_per_question_gives_no_interval_on_these_questions():
    assert sampling_interval(50.0, [np.array([1.0, np.nan])], 0.95) is None
    assert sampling_interval(50.0, [np.array([4.0, 4.0]), np.array([0.0])], 0.95) == {"low": 48.6141, "high": 51.3859}


def test_the_tail_is_wider_for_few_questions():
    """A t quantile, inflated by n / (n - 1); of one question there is none to widen."""
    assert tail_of(0.95, 1) == pytest.approx(0.025)
    assert tail_of(0.95, 2) == pytest.approx(stats.norm.cdf(np.sqrt(2) * stats.t.ppf(0.025, 1)))
    assert tail_of(0.95, 30) == pytest.approx(stats.norm.cdf(np.sqrt(30 / 29) * stats.t.ppf(0.025, 29)))


def test_the_detectable_difference_follows_from_variance_and_number():
    """Five per cent and 80 % power: 2.262 + 0.883 standard errors with nine degrees of freedom."""
    values = np.arange(10.0)
    assert smallest_detectable([values], 0.05, 10_000) == pytest.approx(3.145 * values.std(ddof=1) / np.sqrt(10), abs=0.01)
    for few in ([np.array([1.0])], [np.zeros(30), np.ones(30)], [np.array([1.0, 2.0, 4.0])]):
        assert smallest_detectable(few, 0.05, 10_000) is None
    assert smallest_detectable([values], 0.05, 18) is None, "no p of so few resamples is within the level"


def test_resampled_means_do_not_depend_on_the_size_of_blocks(monkeypatch):
    values = np.arange(10.0)
    whole = resampled_means(values, 100, 3)
    monkeypatch.setattr("distillery.evaluation.paired_statistics.LARGEST_BLOCK", 70)
    assert whole.shape == (100,) and resampled_means(values, 100, 3).tolist() == whole.tolist()
