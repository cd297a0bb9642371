"""What the inspection of a data set of traces says."""

import json
from pathlib import Path

import pytest

from distillery.verification import inspect_traces
from distillery.verification.inspect_traces import reference_of

PARAMS = (Path(__file__).resolve().parents[2] / "params.yaml").read_text()
ROWS = [
    {"problem": "2 + 3 ?", "generations": ["<think>\nso\n</think>\n\nIt is \\boxed{5}", "<think>x</think>6"], "answer": "5"},
    {"messages": [{"role": "user", "content": "1 + 1 ?"}, {"role": "assistant", "content": "2", "reasoning_content": "easy"}]},
    {"messages": [{"role": "tool", "content": "x"}]},
    {"problem": "?", "output": "<think>a</think><answer>2</answer>", "expected_answer": 2},
]


@pytest.fixture
def source(inside):
    (inside / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return "set.jsonl"


def test_it_says_what_can_be_read_in_which_formats_and_how_it_verifies(source, inside, monkeypatch, capsys):
    (inside / "params.yaml").write_text(PARAMS)
    inspect_traces.main(source)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "3 of 4 rows are readable, with 4 responses"
    assert said[1] == "1 not: a turn calls a tool or holds a tool's answer"
    assert [line.split() for line in said[4:6]] == [["think", "3", "3", "3"], ["study", "1", "1", "1"]]
    assert said[-1].split() == ["math", "2", "1", "0", "0", "0"]


def test_only_as_many_rows_as_wanted_are_read(source, inside, monkeypatch, capsys):
    (inside / "params.yaml").write_text(PARAMS)
    monkeypatch.setenv("LIMIT", "1")
    inspect_traces.main(source)
    assert capsys.readouterr().out.startswith("1 of 1 rows are readable, with 2 responses")


@pytest.mark.parametrize("arguments", [(), ("a", "b", "c", "d")])
def test_wrong_arguments_get_the_usage(arguments):
    with pytest.raises(SystemExit, match="usage"):
        inspect_traces.main(*arguments)


def test_a_missing_source_is_one_line(inside):
    with pytest.raises(SystemExit, match=r"inspect: nowhere\.jsonl: "):
        inspect_traces.main("nowhere.jsonl")


def test_rows_name_their_reference_where_public_sets_have_it():
    info = {"conversations": [{"info": {"category": "code", "test_case": {"inputs": ["1"]}}}]}
    assert reference_of(info)["category"] == "code" and reference_of(info)["test_cases"]
    assert reference_of({"expected_answer": 2, "category": "Algebra"}) == {
        "category": "math",
        "ground_truth": "2",
        "test_cases": None,
        "constraints": None,
    }
    assert reference_of({"test_cases": "[1]"})["category"] == "code"
