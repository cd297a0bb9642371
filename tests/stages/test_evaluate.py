"""lm-eval for real, over a scripted engine: the reference scores 1, a wrong number 0, and nothing is asked twice."""

import json
from pathlib import Path

import pytest

from stages import evaluate
from stages.engines import Sampling, VllmSettings
from stages.engines.scripted import ScriptedEngine
from stages.evaluate import Evaluate, Task, language_model, rows_of, scorer, task_config, verify_with
from stages.ledger import Ledger, LedgerEngine
from stages.verifiers import Verdict

TASK = str(Path(__file__).resolve().parents[2] / "conf/tasks/math.yaml")
ENGINE = VllmSettings("vllm", "float32", 64, 4, 1, 1, 1, 0.9, True)
SETTINGS = Evaluate(ENGINE, Sampling(0.6, 0.95, 16), {"easy": Task(TASK, 3)}, " think .")
QUESTIONS = [{"id": f"easy-{i}", "question": f"what is {i} + 1 ?", "answer": str(i + 1), "difficulty": "1"} for i in range(5)]


def run(route, script, root):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    Path("data/benchmarks").mkdir(parents=True, exist_ok=True)
    Path("data/benchmarks/easy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    scripted = ScriptedEngine(script)
    engine = LedgerEngine(Ledger("m", root), 4096, lambda: scripted)
    lm = language_model(engine, "revision", 4, "m")
    verdicts: dict[str, list[Verdict]] = {}
    config = task_config("easy", SETTINGS.benchmarks["easy"], SETTINGS, scorer(verify_with(route), verdicts))
    results = simple_evaluate(
        lm,
        tasks=[config],
        task_manager=TaskManager(include_defaults=False),
        system_instruction="be brief",
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    return results["results"]["easy"]["pass@1,all"], rows_of(results, lm, verdicts), scripted


def number(request) -> int:
    return int(request.messages[-1]["content"].split()[2])


@pytest.mark.parametrize(
    ("script", "score"),
    [
        (lambda request: f"<think> so </think> <answer> \\boxed{{ {number(request) + 1} }} </answer>", 1.0),
        (lambda request: f"<answer> {number(request) + 2} </answer>", 0.0),
        (lambda request: "", 0.0),
        (lambda request: f"<think> {'la ' * 40} </think> <answer> {number(request) + 1} </answer>", 0.0),
        (lambda request: f"so it is ${number(request) + 1}$", 1.0),
    ],
)
def test_the_score_is_the_share_of_right_samples(inside, route, script, score):
    found, rows, scripted = run(route, script, inside / "ledger")
    assert found == score == sum(row["verdict"] == "pass" for row in rows) / len(rows)
    assert len(rows) == 15 and len({request.seed for request in scripted.asked}) == 15
    first = scripted.asked[0]
    assert first.messages[0] == {"role": "system", "content": "be brief"} and first.messages[-1]["content"].endswith(
        "? think ."
    )
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.max_tokens) == (0.6, 0.95, 16)


def test_every_sample_counts_on_its_own(inside, route):
    script = lambda request: f"<answer> {number(request) + request.attempt} </answer>"  # noqa: E731
    found, rows, _ = run(route, script, inside / "ledger")
    assert found == pytest.approx(1 / 3)
    assert [row["sample"] for row in rows if row["verdict"] == "pass"] == [1] * 5


def test_two_questions_of_the_same_text_keep_their_own_samples(inside, route, monkeypatch):
    monkeypatch.setitem(QUESTIONS[1], "question", QUESTIONS[0]["question"])
    monkeypatch.setitem(QUESTIONS[1], "answer", QUESTIONS[0]["answer"])
    _, rows, _ = run(route, lambda request: f"<answer> {request.attempt} </answer>", inside / "ledger")
    mine = [row for row in rows if row["question_id"] in ("easy-0", "easy-1")]
    assert [row["text"].split()[1] for row in mine] == ["1", "2", "3", "4", "5", "6"]
    assert [row["verdict"] for row in mine] == ["pass"] + ["fail"] * 5


def test_a_second_evaluation_asks_for_nothing(inside, route):
    script = lambda request: f"<answer> {number(request) + 1} </answer>"  # noqa: E731
    _, first, _ = run(route, script, inside / "ledger")
    _, second, scripted = run(route, script, inside / "ledger")
    assert second == first and scripted.asked == []


def test_a_student_that_is_not_there_is_named(inside):
    with pytest.raises(evaluate.DataError, match=r"models/students/nobody: no student there; run `dvc repro train@nobody`"):
        evaluate.model_of("nobody")
