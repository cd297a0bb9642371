"""Benchmarks in one format, and the kinds that are evaluated, with a scripted model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from distillery.core.errors import ConfigError, DataError
from distillery.core.files import read_json, read_json_lines, write_json_lines
from distillery.core.tables import read_table
from distillery.evaluation.lm_eval_adapter import asked
from distillery.verification.choice_verifier import options_of
from distillery.verification.registry import VERIFIERS
from stages import benchmarks, evaluate
from stages.benchmarks import Source, choices_of, unify
from stages.evaluate import SAMPLES
from tests.support.evaluate_process import NAME, ROOT, prepare
from tests.support.scripted_engine import ScriptedEngine

CHOICE = Source("b.jsonl", None, "test", "Question", "Right", None, choices=("Wrong 1", "Wrong 2", "Wrong 3"))
ROW = {"Question": "Which?", "Right": "the\n moon", "Wrong 1": "the sun", "Wrong 2": "(C) Mars", "Wrong 3": "2"}
INSTRUCTED = replace(CHOICE, question="prompt", answer=None, choices=(), constraints=("instruction_id_list", "kwargs"))
TASK = {"prompt": "Say hello.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"keyword": None}]}


def test_options_are_listed_with_the_answer_among_them():
    (question,) = unify("b", CHOICE, [ROW])
    assert question["question"] == "Which?", "what queries are compared with"
    options = options_of(asked(question))
    assert sorted(options) == ["A", "B", "C", "D"] and options[question["answer"]] == "the moon"


def test_the_order_of_options_depends_on_the_question_alone():
    first, again, other = (choices_of(key, "a", ["b", "c", "d"], "") for key in ("q1", "q1", "q2"))
    assert first == again != other
    places = [choices_of(f"q{i}", "a", ["b", "c", "d"], "")[1] for i in range(400)]
    assert all(70 < places.count(letter) < 130 for letter in "ABCD"), "the right one stands anywhere"


def test_equal_options_are_an_error_that_names_the_row():
    with pytest.raises(DataError, match=r"benchmark b: b\.jsonl:1: two of its options are the same"):
        unify("b", CHOICE, [ROW | {"Wrong 1": "the moon "}])


@pytest.mark.parametrize("setting", ["cluster", "difficulty", "starter", "metadata", "question"])
def test_a_misspelt_column_is_named_with_those_that_are_there(setting):
    with pytest.raises(ConfigError, match=r"benchmarks.b: no column 'tmpl'; there are Question, Right, Wrong 1"):
        unify("b", replace(CHOICE, **{setting: "tmpl"}), [ROW])  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [["2"], {"v": 2}, float("nan"), True, b"x"])
def test_an_answer_that_is_no_text_or_number_is_named(answer):
    with pytest.raises(DataError, match=r"b.jsonl:1: Right: text or a number is needed"):
        unify("b", CHOICE, [ROW | {"Right": answer}])


@pytest.mark.parametrize("text", ["a \x00 b", "a \ud800 b"])
def test_a_question_that_cannot_be_stored_is_named(text):
    with pytest.raises(DataError, match=r"b.jsonl:1: null byte or lone surrogate"):
        unify("b", CHOICE, [ROW | {"Question": text}])


def test_constraints_and_tests_that_are_not_json_are_named():
    with pytest.raises(DataError, match=r"b.jsonl:1: instruction_id_list or kwargs: not JSON"):
        unify("b", INSTRUCTED, [TASK | {"kwargs": "{broken"}])
    tested = replace(CHOICE, answer=None, choices=(), tests=("Right",))
    with pytest.raises(DataError, match=r"b.jsonl:1: Right: "):
        unify("b", tested, [ROW | {"Right": "{broken"}])


@pytest.mark.parametrize("column", ["Wrong 2", "Right"])
def test_a_missing_option_is_an_error_that_names_it(column):
    with pytest.raises(DataError, match=f"no '{column}'; every question needs one to be scored"):
        unify("b", CHOICE, [ROW | {column: " "}])


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (("instruction_id_list", "kwargs"), TASK),
        (("instruction_id_list", "kwargs"), {name: json.dumps(each) for name, each in TASK.items()} | {"prompt": "p"}),
        (("constraints",), {"prompt": "p", "constraints": [{"id": "punctuation:no_comma", "kwargs": {}}]}),
        (("constraints",), {"prompt": "p", "constraints": '[{"id": "punctuation:no_comma", "kwargs": {}}]'}),
    ],
)
def test_constraints_are_kept_as_json(columns, row):
    from distillery.verification.ifeval_verifier import constraints_of

    (question,) = unify("b", replace(INSTRUCTED, constraints=columns), [row])
    assert constraints_of(question["constraints"]) and question["answer"] is question["tests"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": None, "constraints": ("c",)}, r"b\.choices: needs an answer"),
        ({"choices": tuple("0123456789")}, r"b\.choices: .*at most 9"),
        ({"answer": None, "choices": (), "constraints": ("a", "b", "c")}, r"b\.constraints: takes"),
    ],
)
def test_columns_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        unify("b", replace(CHOICE, **changes), [ROW])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["benchmarks"].pop("choice"), r"benchmarks\.choice: missing, but evaluate\.benchmarks names it"),
        (lambda p: [task.update(samples=0) for task in p["evaluate"]["benchmarks"].values()], "no benchmark has samples"),
    ],
)
def test_a_benchmark_in_one_section_alone_and_none_at_all_are_errors(kinds, change, message):
    settings = settings_of(kinds)
    change(settings)
    (kinds / "params.yaml").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=message):
        benchmarks.main()


@pytest.mark.parametrize("changes", [{"answer": None}, {"answer": "Right", "tests": ("t",)}, {"constraints": ("c",)}])
def test_one_thing_decides(changes):
    with pytest.raises(ConfigError, match=r"benchmarks\.b: needs one of answer, tests and constraints"):
        unify("b", replace(CHOICE, **changes), [ROW])


def settings_of(folder: Path) -> dict:
    return yaml.safe_load((folder / "params.yaml").read_text())


@pytest.fixture
def kinds(inside):
    """Settings with one benchmark of options and one of instructions, four samples per question, and one switched off."""
    write_json_lines([ROW], inside / "world/choice.jsonl")
    write_json_lines([TASK], inside / "world/instructions.jsonl")
    choice = {"question": "Question", "answer": "Right", "choices": list(CHOICE.choices)}
    instructed = {"question": "prompt", "answer": None, "constraints": list(INSTRUCTED.constraints)}
    sources: dict[str, dict[str, Any]] = {
        "choice": {"source": str(inside / "world/choice.jsonl"), **choice},
        "instructions": {"source": str(inside / "world/instructions.jsonl"), **instructed},
        "off": {"source": "no/such-data-set", **choice},
    }
    prepare(inside, sources, 4, 60)
    settings = settings_of(inside)
    for name, verifier in (("choice", "choice"), ("instructions", "if"), ("off", "choice")):
        task = {"task": str(ROOT / f"conf/lm_eval/{'choice' if name == 'off' else name}.yaml"), "verifier": verifier}
        settings["evaluate"]["benchmarks"][name] = task | {"samples": 0 if name == "off" else 4}
    (inside / "params.yaml").write_text(json.dumps(settings))
    benchmarks.main()
    return inside


@pytest.mark.slow
def test_options_and_instructions_are_evaluated_and_what_is_off_is_not_read(kinds, monkeypatch):
    assert [path.stem for path in sorted((kinds / "data/benchmarks").iterdir())] == ["choice", "instructions"]
    letter = read_json_lines("data/benchmarks/choice.jsonl")[0]["answer"]
    wrong = "A" if letter != "A" else "B"
    said = {"hello": ["hello", "hello, hello", "Hello.", "Hello, all"], "which": [letter, wrong, f"({letter})", "none of them"]}

    def script(request):
        asked = request.messages[-1]["content"]
        kind = "hello" if asked == "Say hello." else "which"
        assert kind == "hello" or asked.endswith("put the letter of your final answer within \\boxed{}.")
        return f"<think> hm </think> <answer> {said[kind][request.attempt - 1]} </answer>"

    monkeypatch.setattr(evaluate, "start", lambda lock, settings: ScriptedEngine(script))
    evaluate.main(NAME)
    rows = read_table(f"data/samples/{NAME}", SAMPLES).to_pylist()
    verdicts = {name: [row["verdict"] for row in rows if row["benchmark"] == name] for name in ("choice", "instructions")}
    assert {row["answer"] for row in rows if row["benchmark"] == "instructions"} == {None}, "no majority of such texts"
    assert verdicts["choice"] == ["pass", "fail", "pass", "unknown"]
    assert verdicts["instructions"] == ["pass", "fail", "pass", "fail"]
    assert read_json(f"metrics/evaluate/{NAME}.json")["lm_eval"] == {NAME: {"choice": 0.5, "instructions": 0.5}}


def test_a_verifier_whose_packages_are_missing_says_so(monkeypatch):
    def missing(package):
        raise PackageNotFoundError(package)

    from importlib.metadata import PackageNotFoundError

    monkeypatch.setattr("distillery.verification.registry.version", missing)
    with pytest.raises(
        ConfigError,
        match=r"a verifier needs lighteval, which is not installed: pip install",
    ):
        VERIFIERS["ifbench"].version(None)  # type: ignore[arg-type]
