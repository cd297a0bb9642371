import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.curate import Price, cost, distillation, judge, malformed, repeated
from tests.conftest import make_query

TRACE = {"think": "a", "answer": "b", "finish_reason": "stop", "perplexity": 2.0}


@given(st.lists(st.lists(st.integers(0, 2), max_size=12), max_size=12), st.integers(1, 4), st.integers(1, 5))
def test_repeated_ngrams_equal_brute_force(responses, n, most):
    counts = Counter(tuple(r[i : i + n]) for r in responses for i in range(len(r) - n + 1))
    expected = [any(counts[tuple(r[i : i + n])] > most for i in range(len(r) - n + 1)) for r in responses]
    assert repeated([np.array(r, np.uint16) for r in responses], n, most).tolist() == expected


@pytest.mark.parametrize("change", [{"think": ""}, {"think": None}, {"answer": ""}, {"finish_reason": "length"}])
def test_a_trace_without_both_parts_or_cut_is_malformed(change):
    assert malformed(make_query(), TRACE | change)


@pytest.mark.parametrize(
    ("roles", "sound"),
    [("u", True), ("uau", True), ("su", True), ("ua", False), ("uu", False), ("auu", False), ("", False)],
)
def test_turns_must_alternate_and_end_with_the_user(roles, sound):
    names = {"u": "user", "a": "assistant", "s": "system"}
    query = make_query(messages=[{"role": names[role], "content": "x"} for role in roles])
    assert malformed(query, TRACE) is not sound


def test_the_reasons_come_in_order_and_the_threshold_is_still_allowed():
    query = make_query()
    assert judge(query, TRACE, False, 2.0) is None
    assert judge(query, TRACE, True, 2.0) == "ngram"
    assert judge(query, TRACE, True, 1.99) == "perplexity"
    assert judge(query, TRACE | {"perplexity": math.nan}, False, 2.0) == "perplexity"
    assert judge(query, TRACE | {"think": ""}, True, 1.0) == "structure"


def test_the_distillation_figures():
    queries = {q["id"]: q for q in (make_query("one"), make_query("two", category="science", difficulty="2"))}
    one, two = queries
    row = {"finish_reason": "stop", "completion_tokens": 10, "verifier": "math", "reason": "late"}
    traces = [
        row | {"query_id": one, "attempt": 1, "verdict": "fail"},
        row | {"query_id": one, "attempt": 2, "verdict": "pass"},
        row | {"query_id": two, "attempt": 1, "verdict": "unknown", "finish_reason": "length"},
    ]
    figures = distillation(traces, queries)
    assert (figures["verified"], figures["verified_share"], figures["pass_rate"]) == (1, 0.5, 0.3333)
    assert figures["first_attempt_by_category"] == {"math": 0.0, "science": 0.0}
    assert figures["by_attempt"] == {"1": 0.0, "2": 1.0}
    assert (figures["truncated_share"], figures["unknown_share"], figures["tokens_a_verified_trace"]) == (0.3333, 0.3333, 30.0)
    assert figures["unknown_reasons"] == {"math: late": 1}
    assert figures["first_attempt_by_difficulty"] == {"1": 0.0, "2": 0.0}


def test_the_cost_of_a_verified_trace_counts_every_device_and_attempt():
    run = {"engine_seconds": 1800.0, "devices": 2}
    assert cost(run, 4, Price(2.0)) == {"device_seconds_a_verified_trace": 900.0, "cost_a_verified_trace": 0.5}
    assert cost(run, 4, Price(None))["cost_a_verified_trace"] is None
    assert cost(run, 0, Price(2.0))["cost_a_verified_trace"] == 2.0
