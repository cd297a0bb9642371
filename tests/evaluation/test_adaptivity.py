import numpy as np
import pytest

from distillery.evaluation.adaptivity import adaptivity
from distillery.evaluation.model_values import Measured
from stages.compare import Compare, adaptivities


def adapting(factor, rng, questions=80):
    """Difficulties in two benchmarks, and tokens that grow by ``factor`` from difficulty 0 to 1."""
    difficulty = [rng.uniform(0.0, 0.6, questions), rng.uniform(0.3, 1.0, questions)]
    return difficulty, [np.exp(5 + np.log(factor) * block + rng.normal(0, 0.3, questions)) for block in difficulty]


def test_adaptivity_is_the_length_growth_per_ten_points():
    rng, hits, true = np.random.default_rng(5), 0, 100 * (4**0.1 - 1)
    for run in range(200):
        difficulty, tokens = adapting(4.0, rng)
        found = adaptivity({"m": difficulty}, {"m": tokens}, 300, 0.95, run)[0]["m"]["within"]
        hits += found["low"] <= true <= found["high"]
    assert 0.9 <= hits / 200 <= 0.985
    flat = [np.full(80, 50.0)] * 2
    found, pairs = adaptivity({"m": difficulty, "flat": difficulty}, {"m": tokens, "flat": flat}, 300, 0.95, 0)
    assert pairs["m - flat"]["within"] == found["m"]["within"], "the other one is 0 in every draw"
    assert found["m"]["within"]["low"] > 0
    assert found["flat"]["within"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert found["m"]["across"]["mean"] == pytest.approx(true, rel=0.5)


def test_constant_difficulty_gives_no_adaptivity():
    found = adaptivity({"m": [np.zeros(5)]}, {"m": [np.arange(1.0, 6.0)]}, 100, 0.95, 0)
    assert found == ({"m": {"within": None, "across": None}}, {})


def excludes_zero(estimate):
    return estimate["low"] > 0 or estimate["high"] < 0


@pytest.mark.slow
def test_a_model_that_sometimes_loops_is_not_called_adaptive():
    """Truncated samples fail and are long: by its own failures the model would look adaptive in most runs."""
    rng, alarms, own = np.random.default_rng(6), 0, 0
    settings = Compare(resamples=300, confidence=0.95)
    for run in range(100):
        rates, values = rng.beta(4, 1, 300), {}
        for model in "abcd":
            cut = rng.random((300, 4)) < 0.05
            passed = (rng.random((300, 4)) < rates[:, None]) & ~cut
            tokens = np.where(cut, 40_000.0, np.exp(rng.normal(7, 0.3, (300, 4))))
            means = {"pass@1": 100 * passed.mean(1), "mean_tokens": tokens.mean(1)}
            values[model] = {"b": {name: Measured(each[None], np.zeros(300)) for name, each in means.items()}}
        alarms += excludes_zero(adaptivities(values, settings, run)[0]["a"]["within"])
        by_own = {"a": [1 - values["a"]["b"]["pass@1"].means / 100]}
        tokens_of = {"a": [values["a"]["b"]["mean_tokens"].means]}
        own += excludes_zero(adaptivity(by_own, tokens_of, 300, 0.95, run)[0]["a"]["within"])
    assert alarms <= 12 and own > 80


@pytest.mark.parametrize(("hard", "known"), [(1, False), (2, True)])
def test_adaptivity_is_unknown_if_most_resamples_have_one_difficulty(hard, known):
    """With two questions, half of all resamples hold both, with this seed slightly fewer: not enough."""
    difficulty = [np.array([0.0, 1.0])] if hard == 1 else [np.array([0.0, 0.0, 1.0, 1.0])]
    found, _ = adaptivity({"m": difficulty}, {"m": [10 + 5 * block for block in difficulty]}, 1000, 0.95, 1)
    assert (found["m"]["within"] is not None) == known
