import numpy as np
import pyarrow as pa
import pytest

from distillery.core.errors import DataError
from distillery.core.formats import STUDY
from distillery.core.response_parts import columns_of
from distillery.core.schemas import CURATED, PERPLEXITY, QUERY, TRACE
from distillery.corpus.token_shards import DIALOGUES, Shard
from stages.curate import (
    REASONS,
    Price,
    account,
    cost,
    distillation,
    duplicates,
    malformed,
    measured,
    pass_rates,
    reasons,
    share,
)
from tests.support.builders import make_query

GOOD = {"attempt": 1, "finish_reason": "stop", "perplexity": 2.0, "verdict": "pass"}
GOOD |= columns_of("<think>a</think><answer>b</answer>", STUDY)
INCOMPLETE = (
    "<think></think><answer>b</answer>",
    "<answer>b</answer>",
    "<think>a</think><answer></answer>",
    "<think>a</think>b",
)
CHANGES = [*(columns_of(text, STUDY) for text in INCOMPLETE), {"finish_reason": "length"}]


def table(*rows, schema=CURATED):
    return pa.Table.from_pylist(list(rows), schema)


def asked(*queries):
    return pa.Table.from_pylist(sorted(queries, key=lambda query: query["id"]), QUERY)


@pytest.mark.parametrize("change", CHANGES)
def test_an_incomplete_or_truncated_trace_is_malformed(change):
    query = make_query()
    traces = table(GOOD | {"query_id": query["id"]}, GOOD | {"query_id": query["id"]} | change)
    assert malformed(asked(query), traces).tolist() == [False, True]


@pytest.mark.parametrize(
    ("roles", "sound"),
    [("u", True), ("uau", True), ("su", True), ("ua", False), ("uu", False), ("auu", False), ("", False), ("ut", False)],
)
def test_turns_must_alternate_and_end_with_the_user(roles, sound):
    names = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    query = make_query(messages=[{"role": names[role], "content": "x"} for role in roles])
    assert malformed(asked(query), table(GOOD | {"query_id": query["id"]})).tolist() == [not sound]


def test_a_trace_without_its_query_is_an_error():
    with pytest.raises(DataError, match="a query that data/queries does not hold"):
        malformed(asked(make_query()), table(GOOD | {"query_id": "0" * 32}))


def test_the_share_of_nothing_is_zero():
    assert share(0, 0) == 0.0 and share(2, 3) == 0.6667


@pytest.mark.parametrize("first", range(len(REASONS) + 1))
def test_the_first_of_several_reasons_is_reported(first):
    held = {name: np.array([i >= first]) for i, name in enumerate(REASONS)}
    (why,) = reasons(held)
    assert why == (first if first < len(REASONS) else -1)


def shard(*lengths):
    names = ("query_id", "attempt", "prompt_tokens", "response_tokens")
    rows = [dict(zip(names, each, strict=True)) for each in lengths]
    return Shard(pa.Table.from_pylist(rows, DIALOGUES), np.empty(0, np.uint16))


def test_verified_traces_are_joined_with_their_measurements():
    rows = [("a", 2, "pass"), ("b", 1, "pass"), ("b", 2, "pass")]
    traces = table(*({"query_id": q, "attempt": a, "verdict": v} for q, a, v in rows), schema=TRACE)
    scores = table(
        *({"query_id": q, "attempt": a, "perplexity": p} for q, a, p in [("a", 2, 1.5), ("b", 1, 2.5), ("b", 2, 9.0)]),
        schema=PERPLEXITY,
    )
    tokens = ("a", 2, 3, 4), ("b", 1, 5, 6), ("b", 2, 5, 7)
    found = measured(traces, shard(*tokens), scores).to_pylist()
    kept = [
        (row["query_id"], row["attempt"], row["perplexity"], row["response_tokens"], row["dialogue_tokens"]) for row in found
    ]
    assert kept == [("a", 2, 1.5, 4, 7), ("b", 1, 2.5, 6, 11), ("b", 2, 9.0, 7, 12)]
    with pytest.raises(DataError, match="not of these traces"):
        measured(traces, shard(*tokens[:2], ("d", 1, 1, 1)), scores)
    with pytest.raises(DataError, match="not of these traces"):
        measured(traces, shard(*tokens), scores.slice(0, 1))


def test_a_text_that_a_query_already_has_is_a_duplicate():
    rows = [("a", 1, "x"), ("a", 2, "y"), ("a", 3, "x"), ("b", 1, "x")]
    traces = table(*({"query_id": q, "attempt": a, "text": text} for q, a, text in rows), schema=TRACE)
    assert duplicates(traces).tolist() == [False, False, True, False]
    assert duplicates(TRACE.empty_table()).tolist() == []


def test_distillation_metrics_add_up_over_parts():
    one, two = make_query("one"), make_query("two", category="science", difficulty="2")
    row = {"finish_reason": "stop", "completion_tokens": 10, "verifier": "math", "reason": "late"}
    first = [
        row | {"query_id": one["id"], "attempt": 1, "verdict": "fail"},
        row | {"query_id": one["id"], "attempt": 2, "verdict": "pass"},
    ]
    second = [row | {"query_id": two["id"], "attempt": 1, "verdict": "unknown", "finish_reason": "length"}]
    parts = [account(asked(query), table(*rows, schema=TRACE)) for query, rows in ((one, first), (two, second))]
    figures = distillation(parts)
    assert (figures["verified"], figures["verified_share"], figures["pass_rate"]) == (1, 0.5, 0.3333)
    assert figures["first_attempt_by_category"] == {"math": 0.0, "science": 0.0}
    assert figures["by_attempt"] == {"1": 0.0, "2": 1.0}
    assert (figures["truncated_share"], figures["unknown_share"], figures["tokens_per_verified_trace"]) == (
        0.3333,
        0.3333,
        30.0,
    )
    assert figures["unknown_reasons"] == {"math: late": 1}
    assert figures["first_attempt_by_difficulty"] == {"1": 0.0, "2": 0.0}
    assert figures == distillation([account(asked(one, two), table(*first, *second, schema=TRACE))])


def test_missing_difficulties_form_one_group():
    queries = [make_query(str(i), difficulty=level) for i, level in enumerate((None, "", "none", "2"))]
    rows = [{"query_id": query["id"], "attempt": 1, "verdict": "pass", "finish_reason": "stop"} for query in queries]
    found = account(asked(*queries), table(*sorted(rows, key=lambda row: row["query_id"]), schema=TRACE))
    assert found["tallies"]["difficulty"] == {"none": (3, 3), "2": (1, 1)}


def test_the_cost_of_a_verified_trace_counts_every_device_and_attempt():
    run = {"engine_seconds": 1800.0, "devices": 2}
    expected = {"device_seconds": 3600.0, "device_seconds_per_verified_trace": 900.0}
    assert cost(run, 4, Price(None)) == expected
    assert cost(run, 4, Price(2.0)) == expected | {"price_per_verified_trace": 0.5}
    assert cost(run, 0, Price(2.0))["price_per_verified_trace"] == 2.0


def test_pass_rates_add_up_over_parts():
    assert pass_rates([{"x": (1, 2), "y": (0, 1)}, {"x": (2, 3)}]) == {"x": 0.6, "y": 0.0}


def test_a_part_without_traces_counts_nothing():
    empty = pa.Table.from_pylist([], TRACE)
    counts = account(pa.Table.from_pylist([make_query()], QUERY), empty)["counts"]
    assert counts == {
        "queries": 1,
        "attempts": 0,
        "verified": 0,
        "verified_traces": 0,
        "by_majority": 0,
        "unknown": 0,
        "truncated": 0,
        "tokens": 0,
    }


def test_prices_keep_eight_decimals():
    run = {"engine_seconds": 1.0, "devices": 1}
    assert cost(run, 3, Price(1.0)) == {
        "device_seconds": 1.0,
        "device_seconds_per_verified_trace": 0.3333,
        "price_per_verified_trace": 0.00009259,
    }
