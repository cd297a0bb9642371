"""Real lm-eval over a scripted engine: references score 1, wrong numbers 0, and no request is repeated."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from distillery.core.errors import ConfigError
from distillery.core.files import write_json, write_json_lines
from distillery.evaluation.config import Evaluate, Task
from distillery.evaluation.lm_eval_adapter import EngineLM, evaluated, task_config
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling, ServerSettings, VllmSettings
from distillery.generation.engine import Completion, Request
from distillery.generation.ledger import Ledger
from distillery.verification.config import Rule
from distillery.verification.judge import JudgeSettings
from distillery.verification.router import Router
from distillery.verification.verdict_store import Verdicts
from stages import evaluate
from stages.evaluate import rows_of, verify_settings
from tests.support.builders import verify_params
from tests.support.scripted_engine import ScriptedEngine

pytestmark = pytest.mark.slow

CODE = str(Path(__file__).resolve().parents[2] / "conf/lm_eval/code.yaml")
TASK = str(Path(__file__).resolve().parents[2] / "conf/lm_eval/math.yaml")
ENGINE = VllmSettings("vllm", "float32", 64, 4, 1, 1, 1, 0.9, True)
SETTINGS = Evaluate(ENGINE, Sampling(0.6, 0.95, 16), {"easy": Task(TASK, 3, "math")}, " think .", None)
TESTS = json.dumps({"fn_name": "f", "inputs": [[i] for i in range(11)], "outputs": [i + 1 for i in range(11)]})
STDIN = json.dumps({"inputs": [str(i) for i in range(11)], "outputs": [str(i + 1) for i in range(11)], "fn_name": None})
ABOUT = {"difficulty": "1", "cluster": ""}
QUESTIONS = [ABOUT | {"id": f"easy-{i}", "question": f"what is {i} + 1 ?", "answer": str(i + 1)} for i in range(5)]


def run(route, script, root):
    Path("data/benchmarks").mkdir(parents=True, exist_ok=True)
    Path("data/benchmarks/easy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    scripted = ScriptedEngine(script)
    engine = LedgerEngine(Ledger("m", root), 4096, lambda: scripted)
    lm = EngineLM(engine, route, {"easy": SETTINGS.benchmarks["easy"].verifier}, "revision", SETTINGS.sampling, 4, "m")
    results = evaluated(lm, [task_config("easy", SETTINGS, QUESTIONS, lm)], "be brief")
    return results["results"]["easy"]["pass@1,all"], rows_of(results, lm, 0), scripted


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
def test_the_score_is_the_share_of_correct_samples(inside, route, script, score):
    found, rows, scripted = run(route, script, inside / "ledger")
    assert found == score == sum(row["verdict"] == "pass" for row in rows) / len(rows)
    assert len(rows) == 15 and len({request.seed for request in scripted.asked}) == 15
    first = scripted.asked[0]
    assert first.messages[0] == {"role": "system", "content": "be brief"} and first.messages[-1]["content"].endswith(
        "? think ."
    )
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.max_tokens) == (0.6, 0.95, 16)


@pytest.mark.parametrize("more", ["", "num_fewshot: 2\nfewshot_split: test\n"], ids=["no examples named", "two examples"])
def test_what_is_asked_and_scored_is_as_by_simple_evaluate(inside, route, more):
    lines = [line for line in Path(TASK).read_text().splitlines() if not line.startswith("num_fewshot")]
    Path("task.yaml").write_text("\n".join([*lines, more]))
    settings = replace(SETTINGS, benchmarks={"easy": Task("task.yaml", 2, "math")})
    script = lambda request: "<answer> 2 </answer>"  # noqa: E731
    found = []
    for way in (evaluated, by_simple_evaluate):
        engine = LedgerEngine(Ledger("m", Path(way.__name__)), 4096, lambda: ScriptedEngine(script))
        lm = EngineLM(engine, route, {"easy": "math"}, "revision", SETTINGS.sampling, 4, "m")
        results = way(lm, [task_config("easy", settings, QUESTIONS, lm)], "be brief")
        asked = {place: request.messages for place, request in lm.requests.items()}
        found.append((asked, results["results"], rows_of(results, lm, 0)))
    assert found[0] == found[1] and found[0][1]["easy"]["pass@1,all"] == pytest.approx(0.2)
    assert {len(messages) for messages in found[0][0].values()} == {6 if more else 2}, "the examples are turns of their own"


def by_simple_evaluate(lm, tasks, system_prompt):
    arguments = {"task_manager": TaskManager(include_defaults=False), "bootstrap_iters": 0}
    return simple_evaluate(lm, tasks=tasks, system_instruction=system_prompt, apply_chat_template=True, **arguments)


def test_every_sample_counts_separately(inside, route):
    script = lambda request: f"<answer> {number(request) + request.attempt} </answer>"  # noqa: E731
    found, rows, _ = run(route, script, inside / "ledger")
    assert found == pytest.approx(1 / 3)
    assert [row["sample"] for row in rows if row["verdict"] == "pass"] == [1] * 5


def test_two_questions_with_equal_text_keep_their_own_samples(inside, route, monkeypatch):
    monkeypatch.setitem(QUESTIONS[1], "question", QUESTIONS[0]["question"])
    monkeypatch.setitem(QUESTIONS[1], "answer", QUESTIONS[0]["answer"])
    _, rows, _ = run(route, lambda request: f"<answer> {request.attempt} </answer>", inside / "ledger")
    mine = [row for row in rows if row["question_id"] in ("easy-0", "easy-1")]
    assert [row["text"].split()[1] for row in mine] == ["1", "2", "3", "4", "5", "6"]
    assert [row["verdict"] for row in mine] == ["pass"] + ["fail"] * 5


def test_samples_are_verified_while_others_are_generated(inside, route, monkeypatch):
    happened: list[str] = []
    noted = lambda what, call: lambda *given: happened.append(what) or call(*given)  # type: ignore[func-returns-value]  # noqa: E731
    monkeypatch.setattr(route, "submit", noted("verify", route.submit))
    monkeypatch.setattr(ScriptedEngine, "poll", noted("generate", ScriptedEngine.poll))
    run(route, lambda request: f"<answer> {number(request) + 1} </answer>", inside / "ledger")
    assert happened.count("verify") == 15
    assert happened.index("verify") < len(happened) - happened[::-1].index("generate") - 1


def test_verdicts_are_filed_under_the_completions_that_they_are_about(inside, monkeypatch):
    root = inside / "ledger"
    with closing(Router(verify_params(), verdicts=Verdicts("m", root), rules={"math": Rule("math", 1.0)})) as route:
        _, _, scripted = run(route, lambda request: f"<answer> {number(request) + 1} </answer>", root)
    asked = {request.key for request in scripted.asked}
    assert dict(Verdicts("m", root).last()).keys() == asked == {key for key, _ in Ledger("m", root).every()}


def test_a_second_evaluation_makes_no_requests(inside, route):
    script = lambda request: f"<answer> {number(request) + 1} </answer>"  # noqa: E731
    _, first, _ = run(route, script, inside / "ledger")
    _, second, scripted = run(route, script, inside / "ledger")
    assert second == first and scripted.asked == []


def test_a_missing_student_is_named(inside):
    with pytest.raises(evaluate.DataError, match=r"models/students/nobody/0: no student there; run `dvc repro train@nobody`"):
        evaluate.student_lock("nobody", 0)


def test_servers_must_serve_every_student_under_its_own_name():
    server = ServerSettings("server", ["http://x/v1"], "student-{name}", 64, 4, 1.0, 1.0, None, 1)
    assert evaluate.engine_of("plain", replace(SETTINGS, engine=server)) == replace(server, model="student-plain")
    with pytest.raises(ConfigError, match=r"evaluate.engine.model: 'teacher' is one model for all; put \{name\} where"):
        evaluate.engine_of("plain", replace(SETTINGS, engine=replace(server, model="teacher")))
    assert evaluate.engine_of("plain", SETTINGS) is ENGINE


PROGRAMS = [
    ABOUT | {"id": "code-0", "question": "add one .", "answer": None, "starter": "def f ( x ) :", "tests": TESTS},
    ABOUT | {"id": "code-1", "question": "read and add one .", "answer": None, "starter": "", "tests": STDIN},
]


@pytest.mark.parametrize(
    ("right", "score"),
    [({"add one .": "def f(x): return x + 1", "read and add one .": "print(int(input()) + 1)"}, 1.0), ({}, 0.0)],
)
def test_programs_are_scored_by_all_their_tests_in_the_sandbox(inside, monkeypatch, right, score):
    """The eleventh test counts too; a program that passes ten is wrong."""
    monkeypatch.setattr("tests.evaluation.test_lm_eval_adapter.QUESTIONS", PROGRAMS)
    lazy = "def f(x): return x + 1 if x < 10 else 0"
    script = lambda request: f"```python\n{right.get(request.messages[-1]['content'].split(chr(10))[0], lazy)}\n```"  # noqa: E731
    Path("data/benchmarks").mkdir(parents=True)
    Path("data/benchmarks/easy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROGRAMS))
    monkeypatch.setattr(
        "tests.evaluation.test_lm_eval_adapter.SETTINGS", replace(SETTINGS, benchmarks={"easy": Task(CODE, 3, "code")})
    )
    verify, rules = verify_settings(verify_params(), SETTINGS)
    with closing(Router(verify, rules=rules)) as route:
        found, rows, scripted = run(route, script, inside / "ledger")
    assert found == score and len(rows) == 6 and all(row["answer"] is None for row in rows)
    prompts = [request.messages[-1]["content"] for request in scripted.asked]
    assert "Complete this Python code" in prompts[0] and "reads from standard input" in prompts[-1]


def test_a_teacher_itself_can_be_evaluated(inside):
    lock = {"role": "teachers/a", "id": "path", "revision": "r", "local": True, "files": {}}
    write_json(lock, "models/locks/teachers/a.json")
    (model,) = evaluate.models_of("teacher-a")
    assert (model.name, model.lock.revision, model.seed) == ("teacher-a", "r", None)


def test_conditions_record_sampling_and_verification(inside, route):
    found = []
    write_json_lines(QUESTIONS, "data/benchmarks/easy.jsonl")
    for suffix in (" think .", " hurry ."):
        settings = replace(SETTINGS, suffix=suffix)
        request = Request(({"role": "user", "content": f"what ?{suffix}"},), "r", SETTINGS.sampling, 1)
        lm = EngineLM(None, route, {}, "r", SETTINGS.sampling, 4, "m")  # type: ignore[arg-type]
        lm.requests = {("easy", 0, 1): request}
        lm.completions = {("easy", 0, 1): Completion(request.key, "x", "stop", 1, 1, "scripted")}
        found.append(evaluate.conditions(settings, [lm], route))
    one, two = found
    assert one["prompts"] != two["prompts"] and one["tasks"] == two["tasks"] and one["engines"] == ["scripted"]
    assert one["sampling"] == {"temperature": 0.6, "top_p": 0.95, "max_tokens": 16} and one["judge"] is None
    assert one["verifiers"] == {"easy": f"math {route.versions['math']}"}


def test_a_benchmarks_verifier_must_exist_and_have_its_judge():
    unknown = replace(SETTINGS, benchmarks={"easy": Task(TASK, 3, "maths")})
    with pytest.raises(
        ConfigError, match=r"evaluate.benchmarks.easy.verifier: 'maths' is none of choice, code, if, ifbench, majority, math"
    ):
        verify_settings(verify_params(), unknown)
    with pytest.raises(ConfigError, match=r"easy.verifier: science needs a judge; give evaluate.judge its settings"):
        verify_settings(verify_params(), replace(SETTINGS, benchmarks={"easy": Task(TASK, 3, "science")}))
    judge = JudgeSettings(ENGINE, SETTINGS.sampling)
    science = replace(SETTINGS, benchmarks={"easy": Task(TASK, 3, "science")}, judge=judge)
    verify, rules = verify_settings(verify_params(), science)
    assert verify.judge == judge and rules == {"science": Rule("science", 1.0)}
