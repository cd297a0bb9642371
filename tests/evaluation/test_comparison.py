"""The comparison of students: differences, families, conditions."""

import numpy as np
import pytest

from distillery.core.errors import DataError
from distillery.evaluation.model_values import MEASURES, Measured, clustered, clusters_of, measured, values_of
from distillery.evaluation.paired_statistics import smallest_detectable, what_settles
from distillery.evaluation.seed_variance import NONE, SeedVariance
from stages.compare import (
    Compare,
    Paired,
    SeedVariances,
    by_difficulty,
    differences,
    intervals,
    judge,
    too_few,
    training_of,
    unlike,
)
from tests.support.builders import samples

SETTINGS = Compare(resamples=2000, confidence=0.95, margin=2.0)


def known(values, sampling=0.0):
    """A measure of one seed with these values, (questions,)."""
    values = np.asarray(values, float)
    return Measured(values[None], np.full(len(values), sampling))


def paired(change, between_seeds=NONE):
    """Two models whose values differ by ``change``."""
    return Paired([known(change)], [known(np.zeros(len(change)))], between_seeds)


def compared(**models):
    """The differences of models' samples on one benchmark."""
    return differences(values_of(models, ["b"]), SETTINGS, 0)


def test_per_question_values_come_in_question_order():
    shuffled = sorted(samples([0.0, 0.5, 1.0]), key=lambda row: row["verdict"])
    names, values = measured(shuffled, "m", "b")
    assert names == ["q000", "q001", "q002"] and values["pass@1"].values.tolist() == [[0.0, 50.0, 100.0]]


def test_overall_is_the_mean_of_benchmarks_and_a_family_of_its_own():
    rng = np.random.default_rng(2)
    rates = rng.uniform(0.0, 0.7, 16)
    both = {"x": rates + rng.uniform(0.0, 0.3, 16), "y": rates}
    rows = {name: [row for b in ("b", "c") for row in samples(each, 8, benchmark=b)] for name, each in both.items()}
    by_benchmark = differences(values_of(rows, ["b", "c"]), SETTINGS, 0)["x - y"]
    overall, one, other = (by_benchmark[name]["pass@1"] for name in ("overall", "b", "c"))
    assert overall["mean"] == pytest.approx((one["mean"] + other["mean"]) / 2) and overall["verdict"] == "higher"
    assert overall["p_holm"] == overall["p"] and one["p_holm"] > one["p"], "overall is a family of one, benchmarks one of two"
    assert overall["high"] - overall["low"] < one["high"] - one["low"]


def test_a_significant_difference_has_a_direction():
    rng = np.random.default_rng(2)
    rates = rng.uniform(0.0, 0.7, 16)
    better = rates + rng.uniform(0.0, 0.3, 16)
    found = compared(a=samples(better, 8), b=samples(rates, 8))["a - b"]["b"]["pass@1"]
    assert found["low"] > 0 and found["p_holm"] < 0.01 and found["verdict"] == "higher"
    back = compared(b=samples(rates, 8), a=samples(better, 8))["b - a"]["b"]["pass@1"]
    assert back["verdict"] == "lower" and back["mean"] == -found["mean"]


def test_a_small_difference_is_not_significant_and_needs_more_questions():
    rng = np.random.default_rng(3)
    one, two = (samples(rng.uniform(0, 1, 12), 4) for _ in range(2))
    found = compared(a=one, b=two)["a - b"]["b"]["pass@1"]
    assert found["verdict"] == "not significant" and found["detectable"] > abs(found["mean"])


def test_insignificant_differences_need_more_questions_than_there_were():
    """Each at the level of Holm's next step: by unadjusted p, two of the five would be significant."""
    drawn = np.random.default_rng(8).normal(size=40)
    drawn = (drawn - drawn.mean()) / drawn.std(ddof=1)
    ones = {
        f"{t}": {"pass@1": known(10 * (drawn + t / np.sqrt(40))), "mean_tokens": known(drawn)}
        for t in (5.0, 2.3, 2.2, 1.0, 0.5, 0.2)
    }
    zero = {benchmark: dict.fromkeys(MEASURES, known(np.zeros(40))) for benchmark in ones}
    by_benchmark = differences({"a": ones, "b": zero}, SETTINGS, 0)["a - b"]
    found = [measures["pass@1"] for benchmark, measures in by_benchmark.items() if benchmark != "overall"]
    others = [each for each in found if each["verdict"] == "not significant"]
    assert len(others) == 5 and sum(each["p"] <= 0.05 for each in others) == 2
    assert all(each["detectable"] > abs(each["mean"]) for each in others)


def test_equal_models_do_not_differ():
    same = samples([0.25, 0.5, 0.75, 1.0])
    found = compared(a=same, b=same)["a - b"]["b"]["pass@1"]
    expected = {"mean": 0.0, "low": None, "high": None, "p": 1.0, "p_holm": 1.0, "detectable": None}
    assert found.pop("on_these_questions")["low"] < 0
    assert found == expected | {"verdict": "not significant", "variance": None}


def test_one_question_is_never_significant():
    found = compared(a=samples([1.0]), b=samples([0.0]))["a - b"]["b"]["pass@1"]
    assert found["mean"] == 100 and found["p"] == 1 and found["verdict"] == "not significant"


def test_models_with_different_questions_are_not_compared():
    with pytest.raises(DataError, match="data/samples/b: other questions of b than the rest"):
        compared(a=samples([1.0, 0.5]), b=samples([1.0]))


def test_differing_conditions_are_named():
    alike = {"engines": ["vllm 1 float32"], "sampling": {}, "prompts": "x", "tasks": {"b": "y"}}
    assert not list(unlike({"a": alike, "b": alike}))
    (line,) = unlike({"a": alike, "b": alike | {"engines": ["vllm 1 bfloat16"]}, "c": alike})
    assert line == "evaluation conditions differ: engines: a, c: ['vllm 1 float32']; b: ['vllm 1 bfloat16']"


def test_lengths_are_binned_by_the_others_failure_rate():
    values = {
        "a": {"b": {"pass@1": known([100, 0, 0]), "mean_tokens": known([4, 8, 10])}},
        "c": {"b": {"pass@1": known([100, 100, 0]), "mean_tokens": known([1, 2, 3])}},
    }
    found = by_difficulty(values, Compare(resamples=200, confidence=0.95, margin=2.0), 0)
    rows = [(row["model"], row["fails"], row["questions"], row["mean"]) for row in found]
    assert rows == [("a", 10, 2, 6), ("a", 90, 1, 10), ("c", 10, 1, 1), ("c", 90, 2, 2.5)]


def test_a_benchmark_on_which_nothing_can_reach_significance_is_named():
    values = {model: {"b": {"pass@1": known(np.zeros(30))}} for model in "abcd"}
    assert not list(too_few(values, Compare(resamples=10_000, confidence=0.95, margin=2.0)))
    assert not list(too_few(values, Compare(resamples=200, confidence=0.95, margin=2.0))), "6 / 201 is within the level"
    (line,) = too_few(values, Compare(resamples=100, confidence=0.95, margin=2.0))
    assert line.startswith("no difference on b can reach significance (30 questions, 100 resamples, 6 comparisons at 0.95)")
    few = {model: {"b": {"pass@1": known(np.zeros(7))}} for model in "abcd"}
    assert list(too_few(few, Compare(resamples=10_000, confidence=0.95, margin=2.0))), "6 x 2 / 128 is not"


def test_a_p_at_the_level_is_significant_and_zero_is_no_decrease():
    def difference(mean, p):
        return {"mean": mean, "p": p, "low": mean - 9, "high": mean + 9}, paired([mean, mean + 1.0, mean - 1.0])

    family = [difference(1.0, 0.025), difference(0.0, 0.025), difference(-1.0, 0.2)]
    judge(family[:2], SETTINGS, 2.0)
    assert [each["verdict"] for each, _ in family[:2]] == ["higher", "higher"]
    judge(family, SETTINGS, 2.0)
    assert [each["verdict"] for each, _ in family] == ["not significant"] * 3
    assert [each["p_holm"] for each, _ in family] == pytest.approx([0.075, 0.075, 0.2])


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (-1.9, 1.9, 2.0, "equivalent"),
        (-2.0, 1.0, 2.0, "not significant"),
        (-1, 2.1, 2.0, "not significant"),
        (0, 0, 0.0, "not significant"),
    ],
)
def test_models_are_equivalent_where_the_whole_interval_is_within_the_margin(low, high, margin, verdict):
    family = [({"mean": 0.0, "p": 0.5, "low": low, "high": high}, paired([1.0, -1.0, 0.0] * 5))]
    judge(family, SETTINGS, margin)
    assert family[0][0]["verdict"] == verdict
    significant = [({"mean": 1.0, "p": 0.01, "low": 0.5, "high": 1.5}, paired([1.0, 1.1, 0.9]))]
    judge(significant, SETTINGS, 2.0)
    assert significant[0][0]["verdict"] == "higher", "a small difference may be certain"


@pytest.mark.parametrize("change", [[0.0] * 30, [1.0, -1.0, 0.0], [1 / 3] * 29 + [1 / 3 + 1e-16]])
def test_nothing_is_equivalent_where_no_difference_could_be_found(change):
    family = [({"mean": 0.0, "p": 1.0, "low": 0.0, "high": 0.0}, paired(change))]
    judge(family, SETTINGS, 2.0)
    assert (family[0][0]["verdict"], family[0][0]["detectable"]) == ("not significant", None)


def test_the_detectable_difference_is_for_the_level_that_the_undecided_ones_share():
    """Two of three are undecided, so that each is judged at half the level."""
    change = [np.random.default_rng(0).normal(0.3, 1, 40)]
    family = [({"mean": 1.0, "p": p, "low": -9.0, "high": 9.0}, paired(change[0])) for p in (0.001, 0.2, 0.3)]
    judge(family, SETTINGS, 2.0)
    assert [each["verdict"] for each, _ in family] == ["higher", "not significant", "not significant"]
    assert {each["detectable"] for each, _ in family} == {smallest_detectable(change, 0.025, 2000)}
    alone = [({"mean": 1.0, "p": 0.001, "low": -9.0, "high": 9.0}, paired(change[0]))]
    judge(alone, SETTINGS, 2.0)
    assert alone[0][0]["detectable"] == smallest_detectable(change, 0.05, 2000)


def test_a_benchmark_may_just_reach_the_level():
    """The smallest p of 19 resamples is 1 / 20."""
    values = {model: {"b": {"pass@1": known(np.zeros(30))}} for model in "ab"}
    assert not list(too_few(values, Compare(resamples=19, confidence=0.95, margin=2.0)))
    assert list(too_few(values, Compare(resamples=18, confidence=0.95, margin=2.0)))


def seeded(rates_by_seed, per=8):
    """Samples of students of several seeds, whose questions pass at these rates."""
    return [row for seed, rates in enumerate(rates_by_seed) for row in samples(rates, per, seed=seed)]


def test_training_seeds_that_differ_as_much_as_the_arms_leave_them_undecided():
    """By questions alone the difference of twelve points would be certain."""
    rates = np.linspace(0.2, 0.7, 24)
    uneven = rates + np.tile([0.0, 0.125, -0.125], 8)
    arms = {"a": seeded([rates + 0.25, rates]), "b": seeded([uneven + 0.125, uneven - 0.125])}
    values = values_of(arms, ["b"])
    found = differences(values, SETTINGS, 0)["a - b"]["b"]["pass@1"]
    assert found["mean"] == pytest.approx(12.5) and found["verdict"] == "not significant"
    assert found["variance"]["seeds"] > 0.9 and found["low"] < 0 < found["high"]
    assert found["settles"]["questions"] is None and found["settles"]["samples"] is None
    one = {name: [row for row in rows if row["seed"] == 0] for name, rows in arms.items()}
    alone = differences(values_of(one, ["b"]), SETTINGS, 0)["a - b"]["b"]["pass@1"]
    assert alone["verdict"] == "higher" and alone["variance"]["seeds"] == 0
    assert training_of(values)["sd"] == pytest.approx(np.sqrt(2 * 12.5**2), rel=0.1)
    assert training_of(values_of(one, ["b"])) == {"seeds": {"a": 1, "b": 1}, "sd": None}


def test_what_settles_a_comparison_leaves_the_margin_detectable():
    """Variances of 60 seeds, 30 questions and 10 samples; a fourth of their sum may be left, 25."""
    shares = {"seeds": 0.6, "questions": 0.3, "samples": 0.1}
    assert what_settles(shares, 4.0, 2.0) == {"seeds": None, "questions": None, "samples": None}
    assert what_settles(shares, 4.0, 3.0) == {"seeds": 4, "questions": None, "samples": None}, "0.5625: 0.15 + 0.4"
    mostly = {"seeds": 0.05, "questions": 0.15, "samples": 0.8}
    assert what_settles(mostly, 4.0, 2.0) == {"seeds": None, "questions": 5, "samples": 16}, "0.2 and 0.05 are left"


def test_the_base_has_no_seed_variance():
    rates = np.linspace(0.2, 0.7, 24)
    values = values_of({"a": seeded([rates + 0.25, rates]), "base": samples(rates, 8)}, ["b"])
    between_seeds = SeedVariances(values)
    assert between_seeds.of("b", "pass@1", "base") == SeedVariance(0.0, 0.0) != between_seeds.of("b", "pass@1", "a")
    assert between_seeds.of("b", "pass@1", "a", "base") == between_seeds.of("b", "pass@1", "a")


def test_seeds_that_answered_other_questions_are_not_compared():
    rows = samples([0.5, 0.5], seed=0) + samples([0.5], seed=1)
    with pytest.raises(DataError, match="data/samples/a: other questions of b than the rest"):
        values_of({"a": rows}, ["b"])


def test_questions_of_a_cluster_count_as_one():
    rows = [row | {"cluster": "x" if row["question_id"] < "q002" else ""} for row in samples([0.0, 0.5, 1.0, 0.75])]
    clusters = clusters_of(rows, ["b"])
    assert clusters["b"].tolist()[0] == clusters["b"].tolist()[1] and len(set(clusters["b"].tolist())) == 3
    values = values_of({"a": rows}, ["b"])
    grouped = clustered(values, clusters)["a"]["b"]["pass@1"]
    assert grouped.means.mean() == pytest.approx(values["a"]["b"]["pass@1"].means.mean())
    assert sorted(grouped.means.tolist()) == pytest.approx([0.75 * 50, 0.75 * 75, 0.75 * 100])
    variance = values["a"]["b"]["pass@1"].sampling.sum() / 16
    assert grouped.sampling.sum() / 9 == pytest.approx(variance), "that of the mean stays"


def test_scores_stay_between_0_and_100_percent():
    values = values_of({"a": samples([1.0] * 20), "base": samples([0.0] * 20)}, ["b"])
    found = intervals(values, SETTINGS, 0)
    assert found["a"]["b"]["pass@1"]["high"] == 100 and 80 < found["a"]["b"]["pass@1"]["low"] < 95
    assert found["base"]["b"]["pass@1"]["low"] == 0 and 5 < found["base"]["b"]["pass@1"]["high"] < 20
    assert found["base"]["b"]["mean_tokens"]["low"] is None, "lengths that do not scatter say nothing of others"
