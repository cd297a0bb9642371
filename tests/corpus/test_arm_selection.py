"""Arms: which traces each takes of what its teachers have."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core.arms import Arm, arms
from distillery.core.errors import ConfigError
from distillery.core.schemas import CURATED
from distillery.corpus.arm_selection import Drawn, hashes, limits, shared, sum_tokens, taken, within

WINDOW = 100


def name(query: int) -> str:
    return f"{query:032x}"


def traces(teacher: str, *rows: tuple[int, int, int, str, float]) -> pa.Table:
    """CURATED rows of (query, attempt, response tokens, verdict, fit); a prompt has ten tokens."""
    found = [
        {
            "query_id": name(query),
            "teacher": teacher,
            "attempt": attempt,
            "verdict": verdict,
            "fit": fit,
            "response_tokens": tokens,
            "dialogue_tokens": tokens + 10,
        }
        for query, attempt, tokens, verdict, fit in rows
    ]
    return pa.Table.from_pylist(found, CURATED)


TWO = {
    "a": traces("a", (1, 1, 20, "pass", -1.0), (1, 2, 10, "pass", -2.0), (1, 3, 95, "pass", -0.1), (2, 2, 30, "pass", -1.0)),
    "b": traces("b", (1, 1, 15, "fail", -0.5), (1, 2, 40, "pass", -0.6), (2, 1, 5, "pass", -3.0), (3, 1, 5, "pass", -3.0)),
}


def chosen(arm: Arm, seed: int = 0, curated: dict[str, pa.Table] = TWO) -> dict[int, list[tuple[str, int]]]:
    """By query, the traces that an arm takes: teacher and attempt."""
    found = taken(arm, curated, shared(curated, WINDOW), WINDOW, seed)
    by_query: dict[int, list[tuple[str, int]]] = {}
    for row in found.to_pylist():
        by_query.setdefault(int(row["query_id"], 16), []).append((row["teacher"], row["attempt"]))
    return by_query


@pytest.mark.parametrize(
    ("settings", "first", "second"),
    [
        ({}, [("a", 1)], [("a", 2)]),
        ({"take": "shortest"}, [("a", 2)], [("a", 2)]),
        ({"take": "longest"}, [("a", 1)], [("a", 2)]),
        ({"take": "best_fit"}, [("a", 1)], [("a", 2)]),
        ({"per_query": 2}, [("a", 1), ("a", 2)], [("a", 2)]),
        ({"take": "shortest", "per_query": 2}, [("a", 2), ("a", 1)], [("a", 2)]),
    ],
)
def test_an_arm_takes_the_traces_that_it_says(settings, first, second):
    """The longest and best fitting one of the first query is too long for the window."""
    assert chosen(Arm(("a",), **settings)) == {1: first, 2: second}


def test_a_query_that_a_teacher_did_not_solve_is_in_no_arm():
    assert 3 not in chosen(Arm(("b",)))


@pytest.mark.parametrize(("verified", "attempt"), [(True, 2), (False, 1)])
def test_an_unverified_arm_takes_first_attempts(verified, attempt):
    assert chosen(Arm(("b",), verified=verified))[1] == [("b", attempt)]


def test_a_mixture_takes_from_all_its_teachers():
    assert chosen(Arm(("a", "b"), take="best_fit")) == {1: [("b", 2)], 2: [("a", 2)]}
    both = chosen(Arm(("a", "b"), per_query=2))
    assert {tuple(sorted(pair)) for pair in both.values()} == {(("a", 1), ("b", 2)), (("a", 2), ("b", 1))}
    drawn = {chosen(Arm(("a", "b")), seed)[1][0][0] for seed in range(20)}
    assert drawn == {"a", "b"}, "one of them at random"
    assert chosen(Arm(("a", "b")), 3) == chosen(Arm(("b", "a")), 3)


def corpus(count: int) -> dict[str, pa.Table]:
    return {"a": traces("a", *((query, 1, 10 + query % 7, "pass", -1.0) for query in range(count)))}


def cut(described: dict[str, Arm], curated: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """What each arm takes, cut."""
    common = shared(curated, WINDOW)
    tables = {key: taken(arm, curated, common, WINDOW, 0) for key, arm in described.items()}
    drawn = {key: Drawn() for key in described}
    for key, table in tables.items():
        half = len(table) // 2
        for part in (table.slice(0, half), table.slice(half)):
            drawn[key].add(part)
    return {key: within(tables[key], last) for key, last in limits(described, drawn).items()}


@given(st.integers(1, 60), st.floats(0.01, 1), st.floats(0.01, 1))
def test_shares_are_nested_and_exact(count, one, other):
    found = cut({"x": Arm(("a",), share=min(one, other)), "y": Arm(("a",), share=max(one, other))}, corpus(count))
    few, more = (set(found[key]["query_id"].to_pylist()) for key in "xy")
    assert few <= more and len(few) == max(1, round(min(one, other) * count))


@given(st.integers(1, 60), st.integers(1, 900))
def test_tokens_are_never_exceeded_but_by_the_first_query(count, tokens):
    (table,) = cut({"x": Arm(("a",), tokens=tokens)}, corpus(count)).values()
    found = sum_tokens([table])
    assert found["queries"] == 1 or found["response_tokens"] <= tokens
    assert found["queries"] == count or found["response_tokens"] + 16 > tokens


def test_arms_of_equal_tokens_match_the_smallest():
    curated = corpus(500) | {"b": traces("b", *((query, 1, 4, "pass", -1.0) for query in range(500)))}
    equal: dict[str, Any] = {"tokens": "equal"}
    found = cut({"x": Arm(("a",), **equal), "y": Arm(("b",), **equal), "z": Arm(("a",), share=0.1)}, curated)
    tokens = {key: sum_tokens([table])["response_tokens"] for key, table in found.items()}
    assert tokens["y"] == 2000 and 1984 <= tokens["x"] <= 2000
    assert sum_tokens([found["z"]])["queries"] == 50


def test_draws_depend_on_seed_and_purpose_and_are_spread_evenly():
    ids = pa.array([name(query) for query in range(2000)])
    one, other = hashes(0, "queries", ids), hashes(1, "queries", ids)
    assert len(set(one.tolist())) == 2000 and (one != other).all() and (one != hashes(0, "b", ids)).all()
    assert 0.45 < (one < 2**63).mean() < 0.55


def written(folder, text: str) -> None:
    (folder / "params.yaml").write_text(f"teachers: [a, b]\nunverified: false\n{text}\n")


def test_a_teachers_name_is_an_arm_without_further_settings(inside):
    written(inside, "arms: [a, both]\narm: {both: {teachers: [a, b], per_query: 2}}")
    assert arms() == {"a": Arm(("a",)), "both": Arm(("a", "b"), per_query=2)}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("arms: [c]\narm: {}", "params.yaml: arms: 'c' is no teacher; describe it under `arm`"),
        ("arms: []\narm: {}", "params.yaml: arms: empty; name at least one"),
        ("arms: [a]\narm: {a: {teachers: [b]}}", "params.yaml: arm.a: a teacher has this name"),
        ("arms: [x]\narm: {x: {teachers: [c]}}", "params.yaml: arm.x.teachers: 'c' is none of a, b"),
        ("arms: [x]\narm: {x: {teachers: []}}", "params.yaml: arm.x.teachers: "),
        ("arms: [x]\narm: {x: {teachers: [a], take: best}}", "params.yaml: arm.x.take: "),
        ("arms: [x]\narm: {x: {teachers: [a], share: 0}}", "params.yaml: arm.x.share: "),
        ("arms: [x]\narm: {x: {teachers: [a], verified: false}}", "params.yaml: arm.x.verified: false needs unverified: true"),
        ("arms: [base]\narm: {}", "params.yaml: arms: 'base' cannot be a name"),
    ],
)
def test_arms_that_cannot_be_are_named(inside, text, error):
    written(inside, text)
    with pytest.raises(ConfigError) as caught:
        arms()
    assert str(caught.value).startswith(error)
