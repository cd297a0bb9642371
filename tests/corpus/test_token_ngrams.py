from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.corpus.token_ngrams import repeated, repetition

RESPONSES = st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=12)


def shards_of(responses, cut):
    """The responses as two shards, the first with ``cut`` of them."""

    def shards():
        for group in (responses[:cut], responses[cut:]):
            ends = np.cumsum([len(each) for each in group], dtype=np.int64)
            ids = np.array([token for each in group for token in each], np.uint16)
            yield ids, ends - np.array([len(each) for each in group], np.int64), ends

    return shards


def grams(response, n):
    return [tuple(response[i : i + n]) for i in range(len(response) - n + 1)]


@given(RESPONSES, st.integers(1, 4), st.integers(1, 5), st.integers(0, 12))
def test_repeated_ngrams_equal_brute_force(responses, n, most, cut):
    counts = Counter(gram for response in responses for gram in grams(response, n))
    expected = [any(counts[gram] > most for gram in grams(response, n)) for response in responses]
    assert np.concatenate(repeated(shards_of(responses, cut), n, most, 1)).tolist() == expected


@pytest.mark.slow
def test_collisions_and_table_growth_do_not_change_results():
    rng = np.random.default_rng(0)
    responses = [rng.integers(0, 40, 400).tolist() for _ in range(2000)]
    counts = Counter(gram for response in responses for gram in grams(response, 3))
    expected = [any(counts[gram] > 24 for gram in grams(response, 3)) for response in responses]
    assert 0 < sum(expected) < 2000 and sum(count > 12 for count in counts.values()) > 20_000
    assert np.concatenate(repeated(shards_of(responses, 700), 3, 24, 1)).tolist() == expected


@pytest.mark.parametrize("most", [0, 255])
def test_a_limit_out_of_range_is_an_error(most):
    with pytest.raises(ValueError, match="max_repeats must be between 1 and 254"):
        repeated(shards_of([[1]], 1), 2, most, 1)


def test_exceeding_the_memory_is_an_error():
    responses = [np.arange(900_000).tolist()] * 3
    shards = lambda: iter([(np.array(each, np.uint32), np.array([0]), np.array([len(each)])) for each in responses])  # noqa: E731
    with pytest.raises(ValueError, match=r"raise curate\.memory"):
        repeated(shards, 2, 2, 1)


@given(RESPONSES, st.integers(1, 4))
def test_repetition_equals_brute_force(responses, n):
    expected = [1 - len(set(found)) / len(found) if (found := grams(response, n)) else 0.0 for response in responses]
    for ids, begins, ends in shards_of(responses, len(responses))():
        assert repetition(ids, begins, ends, n).tolist() == pytest.approx(expected[: len(begins)])
