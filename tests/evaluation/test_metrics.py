"""The metrics of a model's samples."""

from itertools import combinations

import numpy as np
import pytest

from distillery.evaluation.metrics import majority, many, pass_at, pass_at_1, score
from tests.support.builders import samples


def test_pass_at_1_is_the_mean_over_questions_of_the_mean_over_samples():
    uneven = samples([1.0], per=8) + [row | {"question_id": "other"} for row in samples([0.0], per=2)]
    assert pass_at_1(uneven) == 50.0


def test_a_score_counts_truncated_and_unknown():
    rows = samples([0.5, 0.5])
    rows[0] |= {"finish_reason": "length", "verdict": "unknown", "difficulty": "2"}
    figures = score(rows)
    assert (figures["pass@1"], figures["truncated_share"], figures["unknown_share"]) == (37.5, 0.125, 0.125)
    assert set(figures["by_difficulty"]) == {"1", "2"}


def test_pass_at_k_is_the_share_of_draws_with_a_pass():
    for passed in range(6):
        rows = [{"verdict": "pass" if i < passed else "fail"} for i in range(5)]
        for k in range(1, 6):
            draws = [any(row["verdict"] == "pass" for row in draw) for draw in combinations(rows, k)]
            assert pass_at(k, rows) == pytest.approx(np.mean(draws))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [("aab", 1.0), ("abb", 0.0), ("ab", 0.5), ("ba", 0.5), ([None, None, "a"], 1.0), ([None], 0.0)],
)
def test_the_majority_is_the_answer_given_most_often(answers, expected):
    rows = [{"answer": each, "verdict": "pass" if each == "a" else "fail"} for each in answers]
    assert majority(rows) == expected


def test_correct_answers_count_together_however_they_are_spelt():
    answers = [("1/2", "pass"), ("0.5", "pass"), ("3", "fail"), ("3", "fail"), ("50%", "pass")]
    assert majority([{"answer": answer, "verdict": verdict} for answer, verdict in answers]) == 1.0


def test_many_samples_give_pass_at_k_and_a_majority():
    figures = many(samples([0.5, 0.0], per=4))
    assert figures == {"pass@2": 41.67, "pass@4": 50.0, "majority@4": 25.0}
    assert many([row | {"answer": None} for row in samples([1.0], per=1)]) == {}


def test_two_samples_give_pass_at_2():
    assert many(samples([0.5, 0.0], per=2)) == {"pass@2": 50.0, "majority@2": 25.0}
    assert list(many(samples([1.0], per=3))) == ["pass@2", "pass@3", "majority@3"]
