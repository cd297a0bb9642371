"""Answers without a reference: which of several have the majority, and how a query is settled by it."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core import model_locks
from distillery.core.formats import STUDY
from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling
from distillery.generation.engine import PROMPT_TOO_LONG, REFUSED, Completion
from distillery.generation.ledger import Ledger
from distillery.verification import majority
from distillery.verification.distiller import Distill, Distiller, trace_rows
from distillery.verification.verdict import Item
from stages.distill import ask_for
from tests.support.builders import make_query
from tests.support.scripted_engine import ScriptedEngine

LOCK = model_locks.Lock("teacher-t", "path", "revision", True, {})
SETTINGS = Distill(max_attempts=3, max_unknown=1, max_in_flight=4, votes=4)


@pytest.mark.parametrize(
    ("answers", "threshold", "expected"),
    [
        (["5", "$5$", "4"], 0.5, [PASS, PASS, FAIL]),
        ([r"\boxed{\frac{1}{2}}", "0.5", "1/2", "2"], 0.7, [PASS, PASS, PASS, FAIL]),
        (["5", "5", "4", "4"], 0.5, [UNKNOWN] * 4),
        (["5", "5", "4", "3"], 0.6, [UNKNOWN] * 4),
        (["5", "5", None, None], 0.5, [PASS, PASS, FAIL, FAIL]),
        ([None, None, None], 0.0, [UNKNOWN] * 3),
        (["5", "4", "3"], 0.0, [UNKNOWN] * 3),
        (["5"], 0.5, [UNKNOWN]),
    ],
)
def test_the_most_frequent_answer_passes_from_the_threshold_on(answers, threshold, expected):
    assert [verdict.verdict for verdict in majority.verdicts(answers, threshold)] == expected


def test_scores_and_reasons_say_how_many_agree():
    first, _, last = majority.verdicts(["5", "5", "4"], 0.5)
    assert (first.score, first.reason, first.verifier) == (0.666667, "2 of 3 answers agree", "majority")
    assert (last.score, last.reason) == (0.333333, "another answer has the majority; 1 of 3 have this one")
    (alone, _) = majority.verdicts(["5", "4"], 0.5)
    assert alone.reason == "no majority: at most 1 of 2 answers agree"


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=9), st.floats(0, 1), st.randoms())
def test_the_order_of_answers_does_not_matter_and_one_answer_at_most_passes(answers, threshold, random):
    found = dict(zip(answers, (v.verdict for v in majority.verdicts(answers, threshold)), strict=True))
    mixed = random.sample(answers, len(answers))
    assert dict(zip(mixed, (v.verdict for v in majority.verdicts(mixed, threshold)), strict=True)) == found
    assert list(found.values()).count(PASS) <= 1 and found.get(None) != PASS


def test_one_answer_alone_is_inconclusive():
    verdict = majority.LoneAnswer().verify(Item("k", "math", "5")).result()
    assert verdict.verdict == UNKNOWN and verdict.hopeless


class Nobody:
    """A verifier that nothing may be sent to."""

    def submit(self, item):
        raise AssertionError("a majority needs no verifier")

    def poll(self, wait):
        return []


class EndingEngine(ScriptedEngine):
    """Has no answer where the script gives a completion."""

    def _complete(self, request):
        said = self.script(request)
        return said if isinstance(said, Completion) else super()._complete(request)


def distill(script, folder):
    scripted = EndingEngine(script, batch=3)
    engine = LedgerEngine(Ledger("t", folder), 4096, lambda: scripted)
    ask = partial(ask_for, LOCK, Sampling(0.6, 0.95, 64), "")
    distiller = Distiller(SETTINGS, engine, Nobody(), ask, STUDY, {"math": 0.5})
    queries = [make_query("first", None), make_query("second", None)]
    list(distiller.run([queries]))
    rows = list(trace_rows(distiller.take_settled(), "t"))
    engine.close()
    return rows, distiller, scripted


def respond(answer):
    return f"<think> so </think> <answer> {answer} </answer>"


def test_a_query_is_answered_as_often_as_there_are_votes(tmp_path):
    rows, distiller, scripted = distill(lambda request: respond("5" if request.attempt < 4 else "4"), tmp_path)
    assert [row["verdict"] for row in rows] == [PASS, PASS, PASS, FAIL] * 2 and len(scripted.asked) == 8
    assert {row["verifier"] for row in rows} == {"majority"} and [row["attempt"] for row in rows] == [1, 2, 3, 4] * 2
    assert distiller.settled == {("math", PASS): 2} and distiller.verdicts == {PASS: 6, FAIL: 2}
    again, _, scripted = distill(lambda request: respond("5" if request.attempt < 4 else "4"), tmp_path)
    assert again == rows and not scripted.asked, "everything is in the ledger"


def test_without_a_majority_a_query_is_inconclusive(tmp_path):
    rows, distiller, _ = distill(lambda request: respond(str(request.attempt)), tmp_path)
    assert {row["verdict"] for row in rows} == {UNKNOWN} and distiller.settled == {("math", UNKNOWN): 2}
    assert distiller.reasons == {"majority: no majority: at most 1 of 4 answers agree": 8}


@pytest.mark.parametrize("reason", [REFUSED, PROMPT_TOO_LONG])
def test_a_query_that_ends_before_its_last_vote_is_inconclusive(tmp_path, reason):
    def script(request):
        return respond("5") if request.attempt < 3 else Completion(request.key, "no", reason, 1, 0, "scripted")

    rows, distiller, _ = distill(script, tmp_path)
    assert {row["verdict"] for row in rows} == {UNKNOWN} and distiller.settled == {("math", UNKNOWN): 2}
