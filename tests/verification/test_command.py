"""python -m distillery.verification, as users run it, in a folder with settings that need no model."""

import json
from pathlib import Path

import pytest

from distillery.core.errors import ConfigError, DataError
from distillery.verification import __main__ as command
from distillery.verification.rollouts import rollout_of
from tests.support.builders import LIMITS

RULES = {name: {"verifier": name, "threshold": 0.9} for name in ("math", "code", "science", "if")}
GOOD = {"category": "math", "ground_truth": "5", "text": "<think> 2 + 3 </think> <answer> 5 </answer>"}


@pytest.fixture
def settings(inside):
    limits = {name: getattr(LIMITS, name) for name in LIMITS.__dataclass_fields__}
    verify = {"rules": RULES, "timeout": 5.0, "processes": 1, "sandbox": limits, "judge": None, "reward": None}
    (inside / "params.yaml").write_text(json.dumps({"verify": verify, "prompts": "prompts"}))
    return inside


def write(folder: Path, *rows) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_it_writes_one_verdict_per_line_in_row_order(settings, capsys):
    rows = [
        GOOD,
        {**GOOD, "text": "so it is 6"},
        {"category": "code", "test_cases": {"inputs": ["3"], "outputs": ["6"]}, "response": "```python\nprint(6)\n```"},
        {"category": "if", "constraints": [{"id": "punctuation:no_comma", "kwargs": {}}], "text": "no pause"},
        {"category": "science", "ground_truth": "oxygen", "text": "O2"},
    ]
    command.main(str(write(settings, *rows)))
    verdicts = [json.loads(line) for line in (settings / "rows.verdicts.jsonl").open()]
    assert [v["verdict"] for v in verdicts] == ["pass", "fail", "pass", "pass", "unknown"]
    assert [v["row"] for v in verdicts] == [f"{settings}/rows.jsonl:{n}" for n in range(1, 6)]
    output = capsys.readouterr().out
    assert ["math", "1", "1", "0", "0", "0"] in [line.split() for line in output.splitlines()]
    assert "inconclusive 1: no judge is configured; set verify.judge" in output


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"category": "math"}, "no response; its fields are category"),
        ({"category": "math", "text": 5}, "no response; its fields are category, text"),
        ({"category": "poetry", "text": "x"}, "no reference (ground_truth, answer,"),
        ({"prompt": [], "completion": []}, "no response; its fields are prompt, completion"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_the_others_are_verified(settings, capsys, row, line):
    command.main(str(write(settings, GOOD, row)))
    first, second = (json.loads(each) for each in (settings / "rows.verdicts.jsonl").open())
    assert first["verdict"] == "pass" and second["verdict"] == "unknown"
    assert line in second["reason"] and second["row"].endswith("rows.jsonl:2")
    said = capsys.readouterr().out
    assert "not read: " in said and "1 verdicts in" in said and "1 rows cannot be read" in said


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ((GOOD, '{"category": "math", "te'), "rows.jsonl:2: malformed JSON"),
        ((GOOD, "[1]"), "rows.jsonl:2: expected an object"),
        (({"category": "other", "text": "x"},), "verify.rules.other: missing"),
        (({"text": "x"},), "rows.jsonl:1: no reference .*; nor can any other row be read"),
        ((), "rows.jsonl: no rows"),
    ],
)
def test_what_cannot_be_verified_is_one_line_and_nothing_is_written(settings, rows, line):
    with pytest.raises((DataError, ConfigError), match=line) as caught:
        command.main(str(write(settings, *rows)))
    assert "\n" not in str(caught.value) and not list(settings.glob("*.verdicts*"))


def test_a_missing_file_is_named(settings):
    with pytest.raises(DataError, match=r"gone.jsonl: no such file"):
        command.main("gone.jsonl")


def test_the_documented_example_has_a_row_of_each_category():
    examples = Path(__file__).resolve().parents[2] / "docs/examples/responses.jsonl"
    rows = [json.loads(line) for line in examples.open()]
    assert {row["category"] for row in rows} == {"math", "code", "science", "if", "multiturn", "other"}
    for row in rows:
        assert command.item_of_rollout(rollout_of(row, "x"), "k").answer


def test_verdicts_never_replace_the_responses(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ConfigError, match="verdicts would replace the responses"):
        command.main(str(path), str(path))
    assert path.read_text() == "{}\n" and command.place_of(str(path)).name == "rows.verdicts.jsonl"
    (tmp_path / "rows.parquet").touch()
    assert command.place_of(str(tmp_path / "rows.parquet")).name == "rows.parquet.verdicts.jsonl"
