import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.decontaminate import Benchmarks, Decontaminate, decontaminate, grams, report, words
from stages.similarity import nearest
from tests.conftest import make_query

SETTINGS = Decontaminate(ngram=13, short_ngram=8, max_cosine=0.9)
LONG = "Every morning Aya walks nine kilometres to a coffee shop at a constant speed of s kilometres per hour."
ITEMS = [
    {"id": "aime2024-0001", "question": LONG},
    {"id": "math500-0001", "question": "What is the value of seven plus eight minus three ?"},
]


def run(text: str, cosine: float = 0.1):
    query = make_query(text)
    return decontaminate([query], {query["id"]: ("aime2024-0001", cosine)}, Benchmarks(ITEMS, SETTINGS))


def test_a_copy_in_other_case_and_spacing_is_exact():
    _, (row,) = run("  " + LONG.upper().replace(" ", "  "))
    assert (row["reason"], row["benchmark_item"], row["score"]) == ("exact", "aime2024-0001", 1.0)


def test_a_copy_inside_a_longer_text_is_found_by_ngrams():
    _, (row,) = run("Please solve this. " + LONG + " Explain each step.")
    assert (row["reason"], row["benchmark_item"]) == ("ngram", "aime2024-0001")
    assert row["score"] == len(words(LONG)) - 12


def test_a_short_item_is_found_by_shorter_ngrams():
    _, (row,) = run("tell me , what is the value of seven plus eight minus three now")
    assert (row["reason"], row["benchmark_item"]) == ("ngram", "math500-0001")


def test_a_very_short_item_is_found_whole_inside_another_text():
    items = [{"id": "math500-0002", "question": "Compute $\\dbinom{8}{4}$."}]
    found = Benchmarks(items, SETTINGS).match("Solve step by step. Compute $\\dbinom{8}{4}$. Put your answer in a box.")
    assert found == ("ngram", "math500-0002", 1.0)


def test_the_spelling_of_latex_is_no_difference():
    items = [{"id": "a-1", "question": "Find $\\frac{1}{x_1}$ for the least x."}]
    found = Benchmarks(items, SETTINGS).match("find $\\dfrac{1}{x_{1}}$ for the least x")
    assert found == ("exact", "a-1", 1.0)


def test_an_item_without_words_matches_nothing():
    assert Benchmarks([{"id": "a-1", "question": "?!"}], SETTINGS).match("...") is None


def test_only_a_cosine_above_the_threshold_counts():
    kept, _ = run("something else altogether", cosine=0.9)
    assert len(kept) == 1
    _, (row,) = run("something else altogether", cosine=0.91)
    assert (row["reason"], row["score"]) == ("embedding", 0.91)


def test_the_report_counts_by_benchmark_and_method():
    _, rejected = run(LONG)
    assert report(rejected) == {"aime2024": {"exact": 1}}


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 6))
def test_grams_are_every_window(tokens, n):
    expected = {tuple(tokens[i : i + n]) for i in range(len(tokens)) if i + n <= len(tokens)}
    assert grams(tuple(tokens), n) == expected


def test_the_nearest_item_is_the_one_of_highest_cosine():
    rng = np.random.default_rng(0)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    queries, items = unit(rng.normal(size=(50, 8))), unit(rng.normal(size=(7, 8)))
    index, cosine = nearest(queries, items, block=16)
    assert (index == (queries @ items.T).argmax(1)).all()
    assert np.allclose(cosine, (queries @ items.T).max(1))
