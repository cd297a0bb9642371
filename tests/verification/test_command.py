"""python -m distillery.verification, as users run it, in a folder with settings that need no model."""

import json
from pathlib import Path

import pytest

from distillery.core.files import ScannedRow
from distillery.verification import __main__ as command
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
    assert [v["line"] for v in verdicts] == [1, 2, 3, 4, 5]
    output = capsys.readouterr().out
    assert "math             1 pass       1 fail       0 inconclusive" in output
    assert "inconclusive 1: no judge is configured; set verify.judge" in output


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ('{"category": "math", "te', "rows.jsonl:2: malformed JSON"),
        ("[1]", "rows.jsonl:2: expected an object"),
        ({"category": "math"}, "rows.jsonl:2: no 'text'"),
        ({"category": "math", "text": 5}, "rows.jsonl:2: no 'text'"),
        ({"category": "poetry", "text": "x"}, "rows.jsonl:2: category 'poetry' is none of math, code"),
        ({**GOOD, "messages": 5}, "rows.jsonl:2: 'messages' must be a list"),
        ({**GOOD, "messages": ["hi"]}, "rows.jsonl:2: 'messages' must be a list"),
        ({"category": "other", "text": "x"}, "verify.rules.other: missing"),
    ],
)
def test_an_invalid_row_is_a_one_line_error_and_nothing_is_written(settings, row, line):
    with pytest.raises(SystemExit) as caught:
        command.main(str(write(settings, GOOD, row)))
    assert line in str(caught.value) and "\n" not in str(caught.value)
    assert not list(settings.glob("*.verdicts*"))


def test_empty_and_missing_files_are_named(settings):
    with pytest.raises(SystemExit, match=r"rows.jsonl: no rows"):
        command.main(str(write(settings)))
    with pytest.raises(SystemExit, match=r"gone.jsonl: no such file"):
        command.main("gone.jsonl")
    with pytest.raises(SystemExit, match="usage"):
        command.main()


def test_the_documented_example_has_a_row_of_each_category():
    examples = Path(__file__).resolve().parents[2] / "docs/examples/responses.jsonl"
    rows = [json.loads(line) for line in examples.open()]
    assert {row["category"] for row in rows} == {"math", "code", "science", "if", "multiturn", "other"}
    for number, row in enumerate(rows):
        assert command.item_in(ScannedRow("x", row), str(number)).answer
