"""LiveCodeBench's encoding: tests are decoded, and no code in a pickle is run."""

import base64
import json
import os
import pickle
import zlib
from pathlib import Path

import pytest

from distillery.core.errors import ConfigError, DataError
from distillery.corpus.livecodebench import cases_of, listed, unpacked
from stages.benchmarks import Source, rows_of, unify

STDIN = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}, {"input": "5 5\n", "output": "10\n", "testtype": "stdin"}]
CALLS = [{"input": "[1, 2]\n3", "output": "6", "testtype": "functional"}]
MARK = Path("/tmp/a-pickle-ran")


def packed(value, protocol=4) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol=protocol))).decode()


class Hostile:
    def __reduce__(self):
        return os.system, (f"touch {MARK}",)


@pytest.mark.parametrize("protocol", range(6))
def test_private_tests_are_decoded_in_every_pickle_protocol(protocol):
    assert listed(packed(json.dumps(STDIN), protocol)) == STDIN


def test_public_and_private_tests_are_merged_and_converted():
    found = json.loads(cases_of([json.dumps(STDIN[:1]), packed(json.dumps(STDIN[1:]))], None))
    assert found == {"inputs": ["1 2\n", "5 5\n"], "outputs": ["3\n", "10\n"], "fn_name": None, "usual": True}
    found = json.loads(cases_of([CALLS, ""], '{"func_name": "total"}'))
    assert found == {"inputs": [[[1, 2], 3]], "outputs": ["6"], "fn_name": "total", "usual": True}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (Hostile(), "holds more than a text"),
        ([json.dumps(STDIN)], "holds more than a text"),
        ({"a": Hostile()}, "holds more than a text"),
        (7, "holds more than a text"),
    ],
)
def test_a_hostile_pickle_does_not_run(value, problem):
    MARK.unlink(missing_ok=True)
    for protocol in range(6):
        with pytest.raises(DataError, match=problem):
            unpacked(packed(value, protocol))
    assert not MARK.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("not base64 !", "not base64 of zlib"),
        (base64.b64encode(b"plain").decode(), "not base64 of zlib"),
        (base64.b64encode(zlib.compress(b"no pickle")).decode(), "pickle"),
        (base64.b64encode(zlib.compress(pickle.dumps("x"))[:-4]).decode(), "cut, or over"),
        (packed("no json"), "not JSON"),
        (packed('{"input": 1}'), "not a list of tests"),
        ("[1]", "not a list of tests"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_other_encodings_are_an_error(text, problem):
    with pytest.raises(DataError, match=problem):
        listed(text)


def test_a_zip_bomb_is_an_error(monkeypatch):
    monkeypatch.setattr("distillery.corpus.livecodebench.LARGEST", 1000)
    with pytest.raises(DataError, match="over 0 MiB when unpacked"):
        unpacked(packed("x" * 10_000))


@pytest.mark.parametrize(("columns", "metadata", "problem"), [([[]], None, "no tests"), ([CALLS], "{}", "no func_name")])
def test_tests_that_cannot_be_run_are_an_error(columns, metadata, problem):
    with pytest.raises(DataError, match=problem):
        cases_of(columns, metadata)


ITEM = {
    "question_content": "Add two numbers.",
    "public_test_cases": json.dumps(STDIN[:1]),
    "private_test_cases": packed(json.dumps(STDIN[1:])),
    "metadata": "{}",
    "starter_code": "",
    "difficulty": "easy",
    "contest_date": "2024-11-05T00:00:00",
}
SOURCE = Source(
    "lcb.jsonl",
    None,
    None,
    "question_content",
    None,
    "difficulty",
    tests=("public_test_cases", "private_test_cases"),
    metadata="metadata",
    starter="starter_code",
    date="contest_date",
    since="2024-10-01",
    until="2025-02-28",
)


def test_a_benchmark_takes_the_problems_in_its_date_range(inside):
    rows = [ITEM | {"contest_date": f"{day}T00:00:00"} for day in ("2024-09-30", "2024-10-01", "2025-02-28", "2025-03-01")]
    (inside / "params.yaml").write_text("world: lcb.jsonl\n")
    (inside / "lcb.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = unify("lcb", SOURCE, rows_of("lcb", SOURCE))
    assert [row["id"] for row in found] == ["lcb-0001", "lcb-0002"]
    assert found[0]["answer"] is None and len(json.loads(found[0]["tests"])["inputs"]) == 2


def test_a_problem_whose_tests_cannot_be_read_is_named():
    with pytest.raises(DataError, match=r"benchmark lcb: lcb.jsonl:1: public_test_cases or .*: its pickle holds more"):
        unify("lcb", SOURCE, [ITEM | {"private_test_cases": packed(Hostile())}])


def test_a_benchmark_needs_an_answer_or_tests():
    with pytest.raises(ConfigError, match=r"benchmarks.b: needs one of answer, tests and constraints"):
        unify("b", Source("b.jsonl", None, None, "q", None, None), [{"q": "x"}])
