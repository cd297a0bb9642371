"""The real benchmarks through `benchmarks` and `evaluate`. Skipped if the data sets are missing.

LiveCodeBench's prompts lack their hidden tests: each gets one of ours, which expects the prompt's number as output.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from distillery.core.files import read_json_lines
from distillery.core.tables import read_table
from stages import benchmarks, evaluate
from stages.evaluate import SAMPLES
from tests.support.evaluate_process import NAME, ROOT, prepare
from tests.support.scripted_engine import ScriptedEngine

SHARED = ROOT.parent / "shared/data"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SHARED.exists(), reason="the data sets are missing")]

MATHS = {"aime2024": 30, "aime2025": 30, "math500": 500}
SINCE = "2024-10-01"
TOKENS = 60


def sources(folder: Path) -> dict[str, dict]:
    """Paths and column mappings of the four benchmarks, copied to a folder."""
    folder.mkdir()
    for name in ("aime24", "aime25", "math500"):
        (folder / f"{name}.jsonl").write_bytes((SHARED / f"{name}.jsonl").read_bytes())
    with (folder / "livecodebench.jsonl").open("w") as file:
        for number, row in enumerate(read_json_lines(SHARED / "livecodebench_v5.jsonl")):
            tests = json.dumps({"fn_name": None, "inputs": [""], "outputs": [f"{number}"]})
            file.write(json.dumps(row | {"tests": tests}) + "\n")
    aime = {"question": "prompt", "answer": "answer"}
    return {
        "aime2024": {"source": str(folder / "aime24.jsonl"), **aime},
        "aime2025": {"source": str(folder / "aime25.jsonl"), **aime},
        "math500": {"source": str(folder / "math500.jsonl"), "question": "problem", "answer": "answer", "difficulty": "level"},
        "livecodebench": {
            "source": str(folder / "livecodebench.jsonl"),
            "question": "prompt",
            "tests": ["tests"],
            "date": "contest_date",
            "since": SINCE,
        },
    }


@pytest.fixture
def asked(inside) -> dict[str, dict]:
    """Prepares the benchmarks; returns their items by question."""
    prepare(inside, sources(inside / "world"), 1, TOKENS)
    benchmarks.main()
    names = (*MATHS, "livecodebench")
    return {row["question"]: row for name in names for row in read_json_lines(f"data/benchmarks/{name}.jsonl")}


def answered(question: dict, off: bool) -> str:
    """A response with the reference or a wrong answer."""
    if question["tests"]:
        number = json.loads(question["tests"])["outputs"][0]
        return f"<think> hm </think> <answer>\n```python\nprint({number}{' + 1' if off else ''})\n```\n</answer>"
    return f"<think> hm </think> <answer> \\boxed{{{'-31415' if off else question['answer']}}} </answer>"


SCRIPTS = {
    "the reference": (lambda question: answered(question, False), 1.0),
    "a wrong one": (lambda question: answered(question, True), 0.0),
    "nothing": (lambda question: "", 0.0),
    "truncated thinking": (lambda question: f"<think> {'la ' * TOKENS} </think> {answered(question, False)}", 0.0),
    "outside the tags": (lambda question: answered(question, False).split("<answer>")[1].split("</answer>")[0], 1.0),
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_scripted_model_gets_the_expected_score(asked, monkeypatch, kind):
    script, score = SCRIPTS[kind]
    question = lambda request: request.messages[-1]["content"].split("\n\nWrite a Python program that")[0]  # noqa: E731
    scripted = ScriptedEngine(lambda request: script(asked[question(request)]))
    monkeypatch.setattr(evaluate, "start", lambda lock, settings: scripted)
    evaluate.main(NAME)
    rows = read_table(f"data/samples/{NAME}", SAMPLES).to_pylist()
    count = {name: sum(row["benchmark"] == name for row in rows) for name in (*MATHS, "livecodebench")}
    assert MATHS.items() <= count.items() and 100 < count["livecodebench"] < 279
    wrong = [(row["question_id"], row["reason"]) for row in rows if (row["verdict"] == "pass") != (score == 1)]
    assert wrong == []
    assert json.loads(Path(f"metrics/evaluate/{NAME}.json").read_text())["lm_eval"] == {NAME: dict.fromkeys(count, score)}
    assert {row["finish_reason"] for row in rows} == {"length" if kind == "truncated thinking" else "stop"}


def test_vllm_evaluates_a_tiny_student_on_all_questions(inside, asked):
    from bench.train import save_model

    save_model(inside / "models/students/t/0", "small", 4096)
    settings = json.loads((inside / "params.yaml").read_text())
    settings["evaluate"]["engine"]["max_model_len"] = 4096
    settings["train"]["seeds"] = [0]
    settings["evaluate"]["sampling"]["max_tokens"] = 16
    (inside / "params.yaml").write_text(json.dumps(settings))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "stages.evaluate", "t"], env=environment, check=True)
    rows = read_table("data/samples/t", SAMPLES).to_pylist()
    assert len(rows) == len(asked) and all(row["finish_reason"] in ("stop", "length") for row in rows)
    assert sum(row["completion_tokens"] for row in rows) > 8 * len(rows)
    assert sum(row["verdict"] == "pass" for row in rows) <= 3
