"""Rollouts that others made: what is read from rows in their forms, and how verdicts differ from those that rows carry."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distillery.core.errors import DataError
from distillery.core.response_parts import answer_part
from distillery.verification.rollouts import read, rollout_of

ASKED = [{"role": "user", "content": "what is 2 + 3 ?"}]
GYM = {
    "responses_create_params": {"input": ASKED},
    "response": {
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "2 and 3"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "so \\boxed{5}"}]},
        ]
    },
    "expected_answer": "5",
    "reward": 1.0,
}
FORMS: dict[str, dict] = {
    "NeMo Gym": GYM,
    "verifiers": {
        "prompt": ASKED,
        "completion": [{"role": "assistant", "content": "\\boxed{5}"}],
        "answer": "5",
        "reward": 1.0,
        "task": "default",
    },
    "verifiers, texts": {"prompt": "what is 2 + 3 ?", "completion": "\\boxed{5}", "answer": "5", "reward": 1},
    "verifiers, JSON": {"prompt": json.dumps(ASKED), "completion": "\\boxed{5}", "answer": 5, "reward": 1.0},
    "OpenThoughts": {
        "problem": "what is 2 + 3 ?",
        "deepseek_reasoning": "2 and 3",
        "deepseek_solution": "\\boxed{5}",
        "ground_truth_solution": "5",
        "domain": "math",
        "correct": True,
    },
    "messages": {"messages": [*ASKED, {"role": "assistant", "content": "\\boxed{5}"}], "answer": "5", "verdict": "pass"},
    "messages with a thought": {
        "messages": [*ASKED, {"role": "assistant", "content": "\\boxed{5}", "reasoning_content": "2 and 3"}],
        "solution": "5",
        "label": True,
    },
    "conversations": {
        "conversations": [{"from": "human", "value": "what is 2 + 3 ?"}, {"from": "gpt", "value": "\\boxed{5}"}],
        "ground_truth": "5",
        "score": 1.0,
    },
    "ours": {"category": "math", "text": "\\boxed{5}", "ground_truth": "5", "messages": ASKED, "verified": True},
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_query_answer_reference_and_what_it_says_of_itself(name):
    found = rollout_of(FORMS[name], "x:1")
    assert found.fields["messages"] == ASKED and found.fields["category"] == "math"
    assert found.fields["ground_truth"] == "5" and found.claimed is True
    assert "\\boxed{5}" in (answer_part(found.text) or "") and "2 and 3" not in (answer_part(found.text) or "")


@pytest.mark.parametrize(
    ("more", "category"),
    [
        ({"tests": ["assert f(1) == 2"]}, "code"),
        ({"verification_info": {"test_cases": []}}, "code"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}, "if"),
        ({"info": json.dumps({"answer": "5"})}, "math"),
        ({"verifier_metadata": {"unit_tests": ["x"]}}, "code"),
        ({"domain": "Programming", "answer": "5"}, "code"),
        ({"category": "other"}, "other"),
    ],
)
def test_the_category_is_named_or_follows_from_the_reference(more, category):
    assert rollout_of({"prompt": "p", "completion": "c"} | more, "x:1").fields["category"] == category


@pytest.mark.parametrize(
    ("carried", "claimed"),
    [
        ({"reward": 0.99}, False),
        ({"score": 1}, True),
        ({"verdict": "FAIL"}, False),
        ({"label": "perhaps"}, None),
        ({}, None),
        ({"correct": None, "reward": 1.0}, True),
    ],
)
def test_what_a_row_says_of_itself(carried, claimed):
    assert rollout_of({"prompt": "p", "completion": "c", "answer": "5"} | carried, "x:1").claimed is claimed


@pytest.mark.parametrize(
    "row", [{}, {"messages": []}, {"response": {"output": []}}, {"messages": ASKED, "answer": "5"}, {"text": None}]
)
def test_a_row_without_a_response_is_named(row):
    with pytest.raises(DataError, match="x:1: no response"):
        rollout_of(row, "x:1")


@pytest.mark.parametrize("changed", [{"completion": "5 \ud800"}, {"prompt": "a \x00"}, {"answer": "\udfff"}])
def test_a_text_that_cannot_be_stored_is_named(changed):
    with pytest.raises(DataError, match="x:1: null byte or lone surrogate"):
        rollout_of({"prompt": "p", "completion": "c", "answer": "5"} | changed, "x:1")


def test_files_and_folders_are_read(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.jsonl").write_text(json.dumps(FORMS["ours"]) + "\n")
    pq.write_table(pa.Table.from_pylist([FORMS["verifiers"]]), tmp_path / "b.parquet")
    rows = dict(read(str(tmp_path)))
    assert [where.rsplit("/", 1)[1] for where in rows] == ["b.parquet:1", "a.jsonl:1"]
    assert all(rollout_of(row, where).claimed for where, row in rows.items())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no \.jsonl or \.parquet file there"):
        list(read(str(tmp_path / "empty")))
