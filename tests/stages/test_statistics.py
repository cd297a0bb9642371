import numpy as np
import pytest

from stages.compare import Compare, bootstrap, differences, per_question
from stages.score import pass_at_1, score

SETTINGS = Compare(resamples=2000, confidence=0.95)


def samples(rates, per=4, tokens=10, rng=None):
    """Samples of one benchmark: question i passes round(rates[i] * per) of ``per`` times."""
    return [
        {
            "benchmark": "b",
            "question_id": f"q{i:03}",
            "difficulty": "1",
            "verdict": "pass" if s < round(rate * per) else "fail",
            "completion_tokens": tokens,
            "finish_reason": "stop",
        }
        for i, rate in enumerate(rates)
        for s in range(per)
    ]


def test_pass_at_1_is_the_mean_over_questions_of_the_mean_over_samples():
    uneven = samples([1.0], per=8) + [row | {"question_id": "other"} for row in samples([0.0], per=2)]
    assert pass_at_1(uneven) == 50.0


def test_a_score_counts_cuts_and_unknowns():
    rows = samples([0.5, 0.5])
    rows[0] |= {"finish_reason": "length", "verdict": "unknown", "difficulty": "2"}
    figures = score(rows)
    assert (figures["pass@1"], figures["truncated_share"], figures["unknown_share"]) == (37.5, 0.125, 0.125)
    assert set(figures["by_difficulty"]) == {"1", "2"}


def test_values_a_question_come_in_the_order_of_questions():
    shuffled = sorted(samples([0.0, 0.5, 1.0]), key=lambda row: row["verdict"])
    assert per_question(shuffled, "pass").tolist() == [0.0, 50.0, 100.0]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    settings, hits, runs = Compare(400, 0.95), 0, 300
    for run in range(runs):
        rates = rng.beta(2, 2, 60)
        found = bootstrap(100 * rng.binomial(8, rates) / 8, settings, run)
        hits += found["low"] <= 50 <= found["high"]
    assert 0.91 <= hits / runs <= 0.98


def test_a_paired_difference_is_found_that_is_lost_among_the_questions():
    rng = np.random.default_rng(2)
    rates = rng.uniform(0.0, 0.85, 16)
    found = differences({"a": samples(rates + 0.125, 8), "b": samples(rates, 8)}, ["b"], SETTINGS, 0)["a - b"]["b"]
    assert found["pass@1"]["low"] > 0 and found["pass@1"]["p"] < 0.01
    spread = 1.96 * 100 * np.std(rates) * np.sqrt(2 / 16)
    assert found["pass@1"]["mean"] < spread, "an unpaired interval would hold zero"


def test_equal_models_do_not_differ():
    same = samples([0.25, 0.5, 0.75, 1.0])
    found = differences({"a": same, "b": same}, ["b"], SETTINGS, 0)["a - b"]["b"]
    assert found["pass@1"] == pytest.approx({"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0})
