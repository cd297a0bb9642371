from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from stages.compare import Compare, adaptivities, by_difficulty, differences, per_question, too_few, unlike, values_of
from stages.score import majority, many, pass_at, pass_at_1, score
from stages.statistics import adaptivity, effective_count, estimate, estimate_over, holm, p_of, questions_needed, tail_of
from stages.tables import DataError

SETTINGS = Compare(resamples=2000, confidence=0.95)
RUNS = 1000


def samples(rates, per=4, tokens=10, benchmark="b"):
    """Samples of one benchmark: question i passes round(rates[i] * per) of ``per`` times."""
    return [
        {
            "benchmark": benchmark,
            "question_id": f"q{i:03}",
            "difficulty": "1",
            "verdict": "pass" if s < round(rate * per) else "fail",
            "completion_tokens": tokens,
            "finish_reason": "stop",
            "answer": "1",
        }
        for i, rate in enumerate(rates)
        for s in range(per)
    ]


def compared(**models):
    """The differences of models' samples on one benchmark."""
    return differences(values_of(models, ["b"]), SETTINGS, 0)


def test_pass_at_1_is_the_mean_over_questions_of_the_mean_over_samples():
    uneven = samples([1.0], per=8) + [row | {"question_id": "other"} for row in samples([0.0], per=2)]
    assert pass_at_1(uneven) == 50.0


def test_a_score_counts_cuts_and_unknowns():
    rows = samples([0.5, 0.5])
    rows[0] |= {"finish_reason": "length", "verdict": "unknown", "difficulty": "2"}
    figures = score(rows)
    assert (figures["pass@1"], figures["truncated_share"], figures["unknown_share"]) == (37.5, 0.125, 0.125)
    assert set(figures["by_difficulty"]) == {"1", "2"}


def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_pass():
    for passed in range(6):
        rows = [{"verdict": "pass" if i < passed else "fail"} for i in range(5)]
        for k in range(1, 6):
            draws = [any(row["verdict"] == "pass" for row in draw) for draw in combinations(rows, k)]
            assert pass_at(k, rows) == pytest.approx(np.mean(draws))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [("aab", 1.0), ("abb", 0.0), ("ab", 1.0), ("ba", 0.0), ([None, None, "a"], 1.0), ([None], 0.0)],
)
def test_the_majority_is_the_answer_given_most_often(answers, expected):
    rows = [{"answer": each, "verdict": "pass" if each == "a" else "fail"} for each in answers]
    assert majority(rows) == expected


def test_many_samples_give_pass_at_k_and_a_majority():
    figures = many(samples([0.5, 0.0], per=4))
    assert figures == {"pass@2": 41.67, "pass@4": 50.0, "majority@4": 50.0}
    assert many([row | {"answer": None} for row in samples([1.0], per=1)]) == {}


def test_values_a_question_come_in_the_order_of_questions():
    shuffled = sorted(samples([0.0, 0.5, 1.0]), key=lambda row: row["verdict"])
    names, values = per_question(shuffled)
    assert names == ["q000", "q001", "q002"] and values["pass@1"].tolist() == [0.0, 50.0, 100.0]


@pytest.mark.parametrize(("questions", "per"), [(30, 8), (60, 4), (200, 4)])
def test_intervals_cover_the_truth_as_often_as_they_say(questions, per):
    rng, hits = np.random.default_rng(1), 0
    for run in range(RUNS):
        rates = rng.beta(2, 2, questions)
        found = estimate(100 * rng.binomial(per, rates) / per, 500, 0.95, run)
        hits += found["low"] <= 50 <= found["high"]
    assert 0.93 <= hits / RUNS <= 0.97


def test_intervals_of_a_paired_difference_cover_it_too():
    rng, hits = np.random.default_rng(2), 0
    for run in range(RUNS):
        easy = rng.uniform(0.1, 0.8, 30)
        a, b = 100 * rng.binomial(8, easy + 0.1) / 8, 100 * rng.binomial(8, easy) / 8
        found = estimate(a - b, 500, 0.95, run)
        hits += found["low"] <= 10 <= found["high"]
    assert 0.93 <= hits / RUNS <= 0.97


def test_pairing_finds_what_the_unpaired_test_misses_and_raises_no_false_alarm():
    rng = np.random.default_rng(3)
    paired = apart = alarms = 0
    for run in range(RUNS):
        rates = rng.uniform(0.05, 0.8, 30)
        a, b, same = (100 * rng.binomial(16, r) / 16 for r in (rates + 0.1, rates, rates))
        paired += estimate(a - b, 500, 0.95, run)["p"] <= 0.05
        apart += stats.ttest_ind(a, b).pvalue <= 0.05
        alarms += estimate(same - b, 500, 0.95, run)["p"] <= 0.05
    assert paired / RUNS > 0.9 and apart / RUNS < 0.5
    assert alarms / RUNS <= 0.065, "5 % and what 1,000 runs may scatter"


@pytest.mark.parametrize("sizes", [(30, 30, 500, 280), (12, 200), (48, 48, 60, 48)])
def test_intervals_over_benchmarks_cover_the_truth_and_raise_no_false_alarm(sizes):
    rng, hits, alarms = np.random.default_rng(7), 0, 0
    for run in range(RUNS):
        rates = [rng.beta(2, 2, questions) for questions in sizes]
        a, b = ([100 * rng.binomial(4, each) / 4 for each in rates] for _ in range(2))
        found = estimate_over(a, 500, 0.95, run)
        hits += found["low"] <= 50 <= found["high"]
        alarms += estimate_over([x - y for x, y in zip(a, b, strict=True)], 500, 0.95, run)["p"] <= 0.05
    assert 0.93 <= hits / RUNS <= 0.97 and alarms / RUNS <= 0.065


def test_overall_is_the_mean_of_benchmarks_and_a_family_of_its_own():
    rng = np.random.default_rng(2)
    rates = rng.uniform(0.0, 0.7, 16)
    both = {"x": rates + rng.uniform(0.0, 0.3, 16), "y": rates}
    rows = {name: [row for b in ("b", "c") for row in samples(each, 8, benchmark=b)] for name, each in both.items()}
    by_benchmark = differences(values_of(rows, ["b", "c"]), SETTINGS, 0)["x - y"]
    overall, one, other = (by_benchmark[name]["pass@1"] for name in ("overall", "b", "c"))
    assert overall["mean"] == pytest.approx((one["mean"] + other["mean"]) / 2) and overall["verdict"] == "higher"
    assert overall["p_holm"] == overall["p"] and one["p_holm"] > one["p"], "one pair: a family of one, beside one of two"
    assert overall["high"] - overall["low"] < one["high"] - one["low"]


def test_a_small_benchmark_that_holds_all_the_noise_counts_as_many_questions_as_it_has():
    small = np.random.default_rng(0).normal(size=4)
    assert effective_count([small, np.zeros(500)]) == pytest.approx(4)
    assert effective_count([small, small]) == pytest.approx(7), "three degrees of freedom each"


def test_a_benchmark_of_one_question_tells_nothing_with_others():
    assert estimate_over([np.array([100.0])] * 4, 500, 0.95, 0)["p"] == 1.0
    assert estimate_over([np.array([100.0]), np.random.default_rng(0).normal(50, 1, 200)], 500, 0.95, 0)["p"] == 1.0


def test_the_questions_needed_of_several_benchmarks_are_as_many_in_all():
    """The same questions, taken for one benchmark or for four of a quarter each."""
    drawn = np.random.default_rng(9).normal(0.3, 1.0, 4000)
    assert questions_needed(np.split(drawn, 4), 0.05) == pytest.approx(questions_needed([drawn], 0.05), rel=0.05)


def test_holm_keeps_the_family_within_the_level():
    rng, alarms = np.random.default_rng(4), 0
    for run in range(RUNS):
        ps = [estimate(rng.normal(size=40), 500, 0.95, 10 * run + i)["p"] for i in range(6)]
        alarms += min(holm(ps)) <= 0.05
    assert alarms / RUNS <= 0.065


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(ps):
    from statsmodels.stats.multitest import multipletests

    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1].tolist(), rel=5e-3)


def test_the_interval_is_that_of_scipy_for_many_questions():
    values = np.random.default_rng(5).gamma(2, 10, 1000)
    ours = estimate(values, 20_000, 0.95, 0)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours["low"] - theirs.low) < 0.04 * width and abs(ours["high"] - theirs.high) < 0.04 * width


@pytest.mark.parametrize("shift", [0.05, 0.2, 0.35])
def test_p_is_near_that_of_the_paired_t_test(shift):
    rng = np.random.default_rng(6)
    change = rng.normal(shift, 1, 60)
    assert estimate(change, 50_000, 0.95, 0)["p"] == pytest.approx(stats.ttest_1samp(change, 0).pvalue, rel=0.25, abs=0.002)


@given(st.integers(2, 500), st.floats(0.5, 0.999))
def test_p_is_the_level_at_which_the_interval_touches(count, confidence):
    """But for tails of two or three questions that no double can hold."""
    assume(tail_of(confidence, count) > 1e-290)
    assert p_of(tail_of(confidence, count), count) == pytest.approx(1 - confidence)


def test_a_paired_difference_is_told_and_says_which_way():
    rng = np.random.default_rng(2)
    rates = rng.uniform(0.0, 0.85, 16)
    found = compared(a=samples(rates + 0.125, 8), b=samples(rates, 8))["a - b"]["b"]["pass@1"]
    assert found["low"] > 0 and found["p_holm"] < 0.01 and found["verdict"] == "higher"
    back = compared(b=samples(rates, 8), a=samples(rates + 0.125, 8))["b - a"]["b"]["pass@1"]
    assert back["verdict"] == "lower" and back["mean"] == -found["mean"]


def test_a_small_difference_could_not_be_told_and_says_what_it_would_take():
    rng = np.random.default_rng(3)
    one, two = (samples(rng.uniform(0, 1, 12), 4) for _ in range(2))
    found = compared(a=one, b=two)["a - b"]["b"]["pass@1"]
    assert found["verdict"] == "could not tell" and found["questions_needed"] > 12


@pytest.mark.parametrize("level", [0.05, 0.05 / 24])
def test_the_questions_needed_do_tell(level):
    rng = np.random.default_rng(4)
    draw = lambda count: np.asarray(rng.normal(0.3, 1.0, count))  # noqa: E731
    wanted = questions_needed([draw(100_000)], level)
    told = np.mean([stats.ttest_1samp(draw(wanted), 0).pvalue <= level for _ in range(2000)])
    assert 0.76 <= told <= 0.84
    assert questions_needed([np.zeros(5)], level) is None


def test_what_could_not_be_told_needs_more_questions_than_there_were():
    """Each at the level that Holm's next step asks for: by their own p, two of the five would pass for told."""
    drawn = np.random.default_rng(8).normal(size=40)
    drawn = (drawn - drawn.mean()) / drawn.std(ddof=1)
    ones = {f"{t}": {"pass@1": 10 * (drawn + t / np.sqrt(40)), "mean_tokens": drawn} for t in (5.0, 2.3, 2.2, 1.0, 0.5, 0.2)}
    zero = {benchmark: dict.fromkeys(measures, np.zeros(40)) for benchmark, measures in ones.items()}
    by_benchmark = differences({"a": ones, "b": zero}, SETTINGS, 0)["a - b"]
    found = [measures["pass@1"] for benchmark, measures in by_benchmark.items() if benchmark != "overall"]
    untold = [each for each in found if each["verdict"] == "could not tell"]
    assert len(untold) == 5 and sum(each["p"] <= 0.05 for each in untold) == 2
    assert all(each["questions_needed"] > 40 for each in untold)


def test_equal_models_do_not_differ():
    same = samples([0.25, 0.5, 0.75, 1.0])
    found = compared(a=same, b=same)["a - b"]["b"]["pass@1"]
    expected = {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "p_holm": 1.0, "questions_needed": None}
    assert found == expected | {"verdict": "could not tell"}


def test_one_question_tells_nothing():
    found = compared(a=samples([1.0]), b=samples([0.0]))["a - b"]["b"]["pass@1"]
    assert found["mean"] == 100 and found["p"] == 1 and found["verdict"] == "could not tell"


def test_models_that_were_asked_otherwise_are_not_compared():
    with pytest.raises(DataError, match="data/samples/b: other questions of b than the rest"):
        compared(a=samples([1.0, 0.5]), b=samples([1.0]))


def adapting(factor, rng, questions=80):
    """Two benchmarks of questions of all difficulties, and tokens that grow ``factor`` times over them."""
    difficulty = [rng.uniform(0.0, 0.6, questions), rng.uniform(0.3, 1.0, questions)]
    return difficulty, [np.exp(5 + np.log(factor) * block + rng.normal(0, 0.3, questions)) for block in difficulty]


def test_adaptivity_is_how_length_grows_over_ten_points():
    rng, hits, true = np.random.default_rng(5), 0, 100 * (4**0.1 - 1)
    for run in range(200):
        difficulty, tokens = adapting(4.0, rng)
        found = adaptivity({"m": difficulty}, {"m": tokens}, 300, 0.95, run)["m"]["within"]
        hits += found["low"] <= true <= found["high"]
    assert 0.9 <= hits / 200 <= 0.985
    flat = [np.full(80, 50.0)] * 2
    found = adaptivity({"m": difficulty, "flat": difficulty}, {"m": tokens, "flat": flat}, 300, 0.95, 0)
    assert found["m"]["within"]["p"] < 0.01 and found["flat"]["within"]["mean"] == 0.0 and found["flat"]["within"]["p"] == 1.0
    assert found["m"]["across"]["mean"] == pytest.approx(true, rel=0.5)


def test_no_difficulty_no_adaptivity():
    found = adaptivity({"m": [np.zeros(5)]}, {"m": [np.arange(1.0, 6.0)]}, 100, 0.95, 0)
    assert found == {"m": {"within": None, "across": None}}


def test_what_was_not_alike_is_named():
    alike = {"engines": ["vllm 1 float32"], "sampling": {}, "prompts": "x", "tasks": {"b": "y"}}
    assert not list(unlike({"a": alike, "b": alike}))
    (line,) = unlike({"a": alike, "b": alike | {"engines": ["vllm 1 bfloat16"]}, "c": alike})
    assert line == "not evaluated alike: engines differ: a, c: ['vllm 1 float32']; b: ['vllm 1 bfloat16']"


def test_lengths_stand_by_how_many_samples_of_the_others_fail():
    values = {
        "a": {"b": {"pass@1": np.array([100.0, 0.0, 0.0]), "mean_tokens": np.array([4.0, 8.0, 10.0])}},
        "c": {"b": {"pass@1": np.array([100.0, 100.0, 0.0]), "mean_tokens": np.array([1.0, 2.0, 3.0])}},
    }
    rows = [(row["model"], row["fails"], row["questions"], row["mean_tokens"]) for row in by_difficulty(values)]
    assert rows == [("a", 10, 2, 6), ("a", 90, 1, 10), ("c", 10, 1, 1), ("c", 90, 2, 2.5)]


def test_a_model_that_sometimes_loops_is_not_called_adaptive():
    """A cut sample fails and is long: by its own fails its lengths would follow difficulty in most runs."""
    rng, alarms, own = np.random.default_rng(6), 0, 0
    settings = Compare(resamples=300, confidence=0.95)
    for run in range(100):
        rates, values = rng.beta(4, 1, 300), {}
        for model in "abcd":
            cut = rng.random((300, 4)) < 0.05
            passed = (rng.random((300, 4)) < rates[:, None]) & ~cut
            tokens = np.where(cut, 40_000.0, np.exp(rng.normal(7, 0.3, (300, 4))))
            values[model] = {"b": {"pass@1": 100 * passed.mean(1), "mean_tokens": tokens.mean(1)}}
        alarms += adaptivities(values, settings, run)["a"]["within"]["p"] <= 0.05
        by_own = {"a": [1 - values["a"]["b"]["pass@1"] / 100]}
        own += adaptivity(by_own, {"a": [values["a"]["b"]["mean_tokens"]]}, 300, 0.95, run)["a"]["within"]["p"] <= 0.05
    assert alarms <= 12 and own > 80


def test_a_family_too_large_for_its_resamples_is_said_to_tell_nothing():
    values = {model: {"b": {"pass@1": np.zeros(30)}} for model in "abcd"}
    assert not list(too_few(values, Compare(resamples=10_000, confidence=0.95)))
    (line,) = too_few(values, Compare(resamples=200, confidence=0.95))
    assert line.startswith("no difference on b can be told, however large (30 questions, 200 resamples, 6 comparisons at 0.95)")
