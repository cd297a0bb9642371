"""The metrics of a model's samples."""

from itertools import combinations

import numpy as np
import pytest

from distillery.evaluation.metrics import majority, many, pass_at, pass_at_1, score, sizes
from tests.support.builders import samples


def test_pass_at_1_is_the_mean_over_questions_of_the_mean_over_samples():
    uneven = samples([1.0], per=8) + [row | {"question_id": "other"} for row in samples([0.0], per=2)]
    assert pass_at_1(uneven) == 50.0


def test_scores_are_given_to_two_decimals():
    thirds = samples([1.0, 0.0, 0.0])
    figures = score([row | {"completion_tokens": 10 + (i == 0)} for i, row in enumerate(thirds)])
    assert figures["pass@1"] == 33.33 and figures["mean_tokens"] == round(10 + 1 / len(thirds), 2)


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


def test_figures_are_rounded_where_they_are_read():
    rows = samples([1 / 3, 1.0], per=3)
    for row, tokens in zip(rows, (10, 20, 31, 7, 7, 8), strict=True):
        row["completion_tokens"] = tokens
    rows[0] |= {"finish_reason": "length"}
    rows[5] |= {"difficulty": "2", "verdict": "unknown"}
    quantiles = {"min": 7.0, "q1": 7.2, "median": 9.0, "q3": 17.5, "max": 31.0}
    found = score(rows)
    assert {name: found["tokens"].get(name, value) for name, value in quantiles.items()} == quantiles
    assert (found["pass@1"], found["mean_tokens"]) == (50.0, 13.83)
    assert (found["truncated_share"], found["unknown_share"]) == (0.1667, 0.1667)
    assert found["by_difficulty"] == {"1": {"pass@1": 66.67, "mean_tokens": 15.0}, "2": {"pass@1": 0.0, "mean_tokens": 8.0}}


def test_sizes_are_powers_of_two_and_the_number_of_samples():
    assert [sizes(most) for most in (1, 2, 3, 4, 5, 8, 12)] == [
        *([], [2], [2, 3], [2, 4], [2, 4, 5], [2, 4, 8], [2, 4, 8, 12]),
    ]


def test_questions_may_have_unequal_numbers_of_samples():
    uneven = samples([1.0], per=4) + [row | {"question_id": "other"} for row in samples([0.0], per=2)]
    assert many(uneven) == {"pass@2": 50.0, "pass@4": 50.0, "majority@4": 50.0}


def test_one_answer_is_enough_for_a_majority_and_no_answer_gives_none():
    rows = samples([1.0], per=2)
    rows[0] |= {"answer": None}
    assert many(rows) == {"pass@2": 100.0, "majority@2": 100.0}
    assert many([row | {"answer": None} for row in rows]) == {"pass@2": 100.0}
    assert majority([]) == 0.0
