"""The judge over a scripted engine: its strict format, retry, failure, and what it may decide."""

import re
import threading
import time
from dataclasses import replace

import pytest

from distillery.core.errors import EngineError
from distillery.core.model_locks import Lock
from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling, VllmSettings
from distillery.generation.engine import REFUSED, Request
from distillery.generation.ledger import Ledger
from distillery.verification.config import Roles, Rule
from distillery.verification.judge import EngineThread, Judge, JudgeSettings, prompt, read
from distillery.verification.math_verifier import YES_OR_NO, MathVerifier
from distillery.verification.process_pool import Pool
from distillery.verification.router import Router
from distillery.verification.science_verifier import RATING, ScienceVerifier
from distillery.verification.verdict import Item
from tests.support.builders import verify_params
from tests.support.scripted_engine import ScriptedEngine

PROMPTS = {"math": "Q {question} R {reference} A {answer}", "science": "S {question} R {reference} A {answer}"}


class Dead(ScriptedEngine):
    def poll(self):
        raise EngineError("no answer from http://judge:8000/v1 for 5 s")


def judge_of(script, tmp_path, engine=None) -> Judge:
    engine = engine or ScriptedEngine(script)
    ledgered = LedgerEngine(Ledger("judge", tmp_path), 4096, lambda: engine)
    return Judge(EngineThread(ledgered), "revision", Sampling(0.3, 1.0, 64), PROMPTS)


@pytest.mark.parametrize(
    ("text", "form", "words"),
    [
        ("Rating: 5", RATING, "5"),
        ("They agree.\nRating: 4\n", RATING, "4"),
        ("**Rating: 3**", RATING, "3"),
        ("Rating: 4/5", RATING, "4"),
        ("Rating: 5\nor rather 3", RATING, None),
        ("I give it 5", RATING, None),
        ("Rating: 6", RATING, None),
        ("Rating: 45", RATING, None),
        ("", RATING, None),
        ("Verdict: yes", YES_OR_NO, "yes"),
        ("verdict: NO.", YES_OR_NO, "no"),
        ("INCORRECT", YES_OR_NO, None),
        ("Verdict: yes and no", YES_OR_NO, None),
        ("Verdict: not yes", YES_OR_NO, None),
    ],
)
def test_only_the_last_line_in_the_strict_format_counts(text, form, words):
    assert read(text, form).words == words


def test_a_malformed_answer_is_retried_once_with_another_seed(tmp_path):
    asked: list[Request] = []

    def script(request):
        asked.append(request)
        return "Rating: 4" if request.attempt == 2 else "hm"

    judge = judge_of(script, tmp_path)
    item = Item("x", "science", "oxygen", ground_truth="O2")
    assert judge.ask("science", RATING, item).result(5).words == "4"
    assert [request.attempt for request in asked] == [1, 2] and asked[0].seed != asked[1].seed
    judge.close()
    stubborn = judge_of(lambda request: "hm", tmp_path / "b")
    said = stubborn.ask("science", RATING, item).result(5)
    assert said.words is None and "not in the form" in said.why
    stubborn.close()


def test_answers_cannot_fill_other_placeholders(tmp_path):
    engine = ScriptedEngine(lambda request: "Rating: 0")
    judge = judge_of(None, tmp_path, engine)
    judge.ask("science", RATING, Item("x", "science", "{reference}", ground_truth="gold")).result(5)
    assert engine.asked[0].messages[-1]["content"] == "S  R gold A {reference}"
    judge.close()


def test_judge_replies_are_stored(tmp_path):
    item = Item("x", "science", "oxygen", ground_truth="O2")
    for engine in (ScriptedEngine(lambda request: "Rating: 5"), Dead(lambda request: "")):
        judge = judge_of(None, tmp_path, engine)
        assert judge.ask("science", RATING, item).result(5).words == "5"
        judge.close()


def test_with_the_judge_down_the_run_ends_with_the_reason(tmp_path):
    science = ScienceVerifier(judge_of(None, tmp_path, Dead(lambda request: "")))
    for i in range(3):
        future = science.verify(Item("x", "science", f"answer {i}", ground_truth="gold"))
        with pytest.raises(EngineError, match=r"the judge is down: no answer from http://judge:8000/v1 for 5 s"):
            future.result(5)


class Counting(ScriptedEngine):
    """Starts when told to, and counts how often it is polled."""

    def __init__(self, script, ready):
        super().__init__(script)
        self.ready, self.polls = ready, 0

    def submit(self, request):
        self.ready.wait(5)
        super().submit(request)

    def poll(self):
        self.polls += 1
        return super().poll()


def test_all_that_was_asked_is_submitted_before_the_judge_is_waited_for(tmp_path):
    ready = threading.Event()
    engine = Counting(lambda request: "Rating: 4", ready)
    science = ScienceVerifier(judge_of(None, tmp_path, engine))
    futures = [science.verify(Item("x", "science", f"answer {i}", ground_truth="gold")) for i in range(50)]
    ready.set()
    assert all(future.result(5).score == 0.8 for future in futures) and engine.polls < 10


def test_a_judge_that_refuses_one_item_is_inconclusive_on_it_alone(tmp_path):
    class Picky(ScriptedEngine):
        def poll(self):
            found = super().poll()
            return [replace(each, finish_reason=REFUSED, text="filtered") if each.text == "bad" else each for each in found]

    science = ScienceVerifier(
        judge_of(None, tmp_path, Picky(lambda request: "bad" if "bad" in request.messages[-1]["content"] else "Rating: 4"))
    )
    good, bad = (science.verify(Item("x", "science", answer, ground_truth="gold")).result(5) for answer in ("good", "bad"))
    assert good.score == 0.8 and bad.verdict == UNKNOWN and bad.reason == "the judge gives no answer: filtered"


@pytest.mark.parametrize(
    ("gold", "answer", "score", "by"),
    [
        ("12", r"\boxed{ 12 }", 1.0, "equal numbers"),
        ("12", r"\boxed{ 13 }", 0.0, "is not"),
        ("12 kg", "12", 1.0, "equal numbers"),
        ("12 kg", r"12\text{ kg}", 1.0, "equal numbers"),
        ("12 kg", "13 kg", 0.0, "is not"),
        ("12 kg", "12000 g", 0.8, "judge"),
        ("oxygen", "O2", 0.8, "judge"),
        ("12", "a dozen", 0.8, "judge"),
        ("a dozen", "12", 0.8, "judge"),
    ],
)
def test_science_asks_the_judge_only_where_numbers_do_not_decide(tmp_path, gold, answer, score, by):
    science = ScienceVerifier(judge_of(lambda request: "Rating: 4", tmp_path))
    verdict = science.verify(Item("x", "science", answer, ground_truth=gold)).result(5)
    assert verdict.score == score and by in verdict.reason


def test_science_without_a_judge_is_inconclusive():
    verdict = ScienceVerifier(None).verify(Item("x", "science", "O2", ground_truth="oxygen")).result(1)
    assert verdict.verdict == UNKNOWN and verdict.hopeless and "verify.judge" in verdict.reason


@pytest.fixture(scope="module")
def pool():
    made = Pool(1, 5.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("gold", "answer", "said", "verdict", "asked"),
    [
        ("2", r"\boxed{2}", "Verdict: no", PASS, 0),
        ("2", r"\boxed{3}", "Verdict: yes", FAIL, 0),
        (r"\sqrt{8}+x", r"\boxed{x+2\sqrt{2}}", "Verdict: no", PASS, 0),
        (r"x^2+y", r"\boxed{\text{the square of } x \text{ and } y}", "Verdict: yes", PASS, 1),
        (r"\sqrt{2}", r"\boxed{\sqrt{3}}", "Verdict: no", FAIL, 1),
        ("Paris", "the capital of France", "Verdict: yes", PASS, 1),
        (r"\sqrt{2}", r"\boxed{\sqrt{5}}", "perhaps", UNKNOWN, 2),
    ],
)
def test_the_judge_decides_only_uncertain_mathematics(tmp_path, pool, gold, answer, said, verdict, asked):
    engine = ScriptedEngine(lambda request: said)
    math = MathVerifier(pool, judge_of(None, tmp_path, engine))
    assert math.verify(Item("x", "math", answer, ground_truth=gold)).result(30).verdict == verdict
    assert len(engine.asked) == asked


def test_the_projects_prompts_ask_for_the_format_that_is_parsed():
    for folder in ("conf/prompts", "mini/prompts"):
        for name in ("math", "science"):
            text = prompt(folder, name)
            assert all(hole in text for hole in ("{question}", "{reference}", "{answer}"))
    assert all(
        RATING.fullmatch(line.replace("N", "3")) for line in re.findall(r'"(Rating: .)"', prompt("conf/prompts", "science"))
    )
    lines = re.findall(r'"(Verdict: \w+)"', prompt("conf/prompts", "math"))
    assert len(lines) == 2 and all(YES_OR_NO.fullmatch(line) for line in lines)


def test_any_failure_of_the_judge_ends_the_run_not_in_waiting(tmp_path):
    class Full(ScriptedEngine):
        def poll(self):
            raise OSError(28, "No space left on device")

    science = ScienceVerifier(judge_of(None, tmp_path, Full(lambda request: "")))
    for i in range(2):
        with pytest.raises(EngineError, match=r"the judge is down: .*No space left"):
            science.verify(Item("x", "science", f"answer {i}", ground_truth="gold")).result(5)


def test_science_without_a_reference_is_hopeless():
    verdict = ScienceVerifier(None).verify(Item("x", "science", "O2")).result(0)
    assert verdict.verdict == UNKNOWN and verdict.hopeless and verdict.reason == "the query has no ground truth"


OPTIONS = ({"role": "user", "content": "Which is a gas?\nA) iron\nB) oxygen\nC) 12"},)


@pytest.mark.parametrize(
    ("answer", "without", "judged", "asked"),
    [
        ("B", PASS, PASS, 0),
        ("oxygen", PASS, PASS, 0),
        ("A", FAIL, FAIL, 0),
        ("something that you breathe", UNKNOWN, PASS, 1),
        ("", UNKNOWN, PASS, 1),
    ],
)
def test_science_asks_the_judge_about_options_only_where_none_can_be_read(tmp_path, answer, without, judged, asked):
    item, prompts = Item("x", "science", answer, OPTIONS, "B"), []

    def script(request):
        prompts.append(request)
        return "Rating: 5"

    assert ScienceVerifier(None).verify(item).result(5).verdict == without
    assert ScienceVerifier(judge_of(script, tmp_path)).verify(item).result(5).verdict == judged and len(prompts) == asked


def test_a_reference_may_be_a_box_or_a_sentence(tmp_path):
    science = ScienceVerifier(judge_of(lambda request: "Rating: 2", tmp_path))
    for gold in (r"so it is \boxed{12}", "12"):
        assert science.verify(Item("x", "science", "12", ground_truth=gold)).result(5).score == 1.0
    assert science.verify(Item("x", "science", "twelve units", ground_truth="12 V")).result(5).score == 0.4, "the judge"


def test_a_verdict_of_the_judges_has_the_seconds_of_the_engine(tmp_path):
    def slow(request):
        time.sleep(0.01)
        return "Rating: 5"

    verdict = ScienceVerifier(judge_of(slow, tmp_path)).verify(Item("x", "science", "O2", ground_truth="oxygen")).result(5)
    ((_, entry),) = Ledger("judge", tmp_path).every()
    assert verdict.seconds == entry.seconds > 0


@pytest.mark.parametrize("second_opinion", [True, False])
def test_a_benchmark_asks_no_judge_to_confirm_a_fail(tmp_path, second_opinion):
    for name in ("math", "science"):
        (tmp_path / f"{name}.txt").write_text("{question} {reference} {answer}")
    lock = Lock("judge", "path", "r", True, {})
    settings = JudgeSettings(VllmSettings("vllm", "float32", 64, 4, 1, 1, 1, 0.9, True), Sampling(0.0, 1.0, 8))
    params = replace(verify_params(math=Rule("math", 0.9), science=Rule("science", 0.9)), judge=settings)
    made = Router(params, Roles(judge=lock), str(tmp_path), ledger=tmp_path, second_opinion=second_opinion)
    made.close()
    judges = {name: verifier.judge for name, verifier in made.verifiers.items()}  # type: ignore[attr-defined]
    assert judges == {"math": made.judge if second_opinion else None, "science": made.judge} and made.judge


def test_no_judge_is_opened_where_none_is_asked(tmp_path):
    lock, rules = Lock("judge", "path", "r", True, {}), {"math": Rule("math", 0.9)}
    settings = JudgeSettings(VllmSettings("vllm", "float32", 64, 4, 1, 1, 1, 0.9, True), Sampling(0.0, 1.0, 8))
    params = replace(verify_params(), judge=settings)
    made = Router(params, Roles(judge=lock), str(tmp_path / "no prompts"), rules=rules, second_opinion=False)
    made.close()
    assert made.judge is None
