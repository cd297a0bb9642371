from collections import Counter
from functools import partial
from itertools import islice

import pytest

from stages import locks
from stages.distill import Distill, Distiller, asker
from stages.engines import Sampling
from stages.engines.scripted import ScriptedEngine
from stages.ledger import Ledger, LedgerEngine
from stages.verifiers import FAIL, PASS, UNKNOWN, Item, Verdict
from tests.conftest import make_query

SAMPLING = Sampling(0.6, 0.95, 64)
SETTINGS = Distill(max_attempts=3, max_unknown=1, max_in_flight=4)
LOCK = locks.Lock("teacher-t", "path", "revision", True, {})


class Equal:
    """Verifies at once: the answer is the ground truth, or nobody can tell where it says `shrug`."""

    def __init__(self):
        self.ready = []

    def submit(self, item: Item) -> None:
        verdict = UNKNOWN if item.answer == "shrug" else PASS if item.answer == item.ground_truth else FAIL
        self.ready.append((item.key, Verdict(float(verdict == PASS), verdict, "", "equal", item.ground_truth is None)))

    def poll(self, wait: float = 0.0):
        ready, self.ready = self.ready, []
        return ready

    def close(self) -> None: ...


def respond(answer: str) -> str:
    return f"<think> so </think> <answer> {answer} </answer>"


def distill(queries, script, ledger_root, settings=SETTINGS, sampling=SAMPLING):
    """Runs the loop over a ledger; returns (trace rows, the scripted engine)."""
    engine = ScriptedEngine(script, batch=3)
    ledger = Ledger("t", ledger_root)
    distiller = Distiller(settings, LedgerEngine(ledger, 4096, lambda: engine), Equal(), asker(LOCK, sampling, "be brief"))
    for _ in distiller.run(queries):
        assert len(distiller.generating) <= settings.max_in_flight
    ledger.close()
    return sorted(distiller.traces, key=lambda row: (row["query_id"], row["attempt"])), engine


def right_on(attempt: int):
    return lambda request: respond("5" if request.attempt >= attempt else "4")


@pytest.mark.parametrize(("right", "attempts", "last"), [(1, 1, PASS), (2, 2, PASS), (3, 3, PASS), (4, 3, FAIL)])
def test_a_query_is_asked_until_it_verifies_or_the_attempts_run_out(tmp_path, right, attempts, last):
    rows, engine = distill([make_query()], right_on(right), tmp_path)
    assert [row["verdict"] for row in rows] == [FAIL] * (attempts - 1) + [last]
    assert len({request.seed for request in engine.asked}) == attempts, "every attempt has a seed of its own"


def test_unknown_is_tried_again_apart_from_fails(tmp_path):
    answers = {1: "shrug", 2: "4", 3: "4", 4: "5"}
    rows, _ = distill([make_query()], lambda request: respond(answers[request.attempt]), tmp_path)
    assert [row["verdict"] for row in rows] == [UNKNOWN, FAIL, FAIL, PASS]
    rows, _ = distill([make_query("other")], lambda request: respond("shrug"), tmp_path)
    assert [row["verdict"] for row in rows] == [UNKNOWN, UNKNOWN]


def test_what_no_response_can_mend_is_asked_once(tmp_path):
    rows, engine = distill([make_query(answer=None)], lambda request: respond("shrug"), tmp_path)
    assert len(rows) == len(engine.asked) == 1


def test_many_queries_each_settle_once(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(50)]
    rows, _ = distill(queries, right_on(2), tmp_path)
    assert Counter(row["verdict"] for row in rows) == {PASS: 50, FAIL: 50}


def test_no_query_is_no_work(tmp_path):
    rows, engine = distill([], right_on(1), tmp_path)
    assert rows == [] and engine.asked == []


def test_a_second_run_asks_for_nothing_and_gives_the_same(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(20)]
    first, _ = distill(queries, right_on(2), tmp_path)
    second, engine = distill(queries, right_on(1), tmp_path)
    assert second == first and engine.asked == []


def test_new_queries_alone_are_asked(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(10)]
    distill(queries, right_on(1), tmp_path)
    _, engine = distill([*queries, make_query("new")], right_on(1), tmp_path)
    assert [request.messages[-1]["content"] for request in engine.asked] == ["new"]


def test_a_higher_limit_asks_only_what_was_cut(tmp_path):
    queries = [make_query("short"), make_query("long")]
    script = lambda request: respond("5") if request.messages[-1]["content"] == "short" else "<think> " + "la " * 80  # noqa: E731
    distill(queries, script, tmp_path, Distill(1, 0, 4))
    _, engine = distill(queries, script, tmp_path, Distill(1, 0, 4), Sampling(0.6, 0.95, 128))
    assert [request.messages[-1]["content"] for request in engine.asked] == ["long"]


def test_a_run_killed_at_any_moment_goes_on_without_asking_twice(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(12)]
    undisturbed, _ = distill(queries, right_on(2), tmp_path / "whole")
    for first_kill in range(1, 8):
        answered, rows = [], None
        for turns in (first_kill, 2 * first_kill, 1000):
            engine = ScriptedEngine(right_on(2), batch=3)
            ledgered = LedgerEngine(Ledger("t", tmp_path / str(first_kill)), 4096, partial(lambda started: started, engine))
            distiller = Distiller(SETTINGS, ledgered, Equal(), asker(LOCK, SAMPLING, "be brief"))
            list(islice(distiller.run(queries), turns))
            answered += [request.key for request in engine.asked if request not in engine.waiting]
            rows = sorted(distiller.traces, key=lambda row: (row["query_id"], row["attempt"]))
        assert rows == undisturbed
        assert len(answered) == len(set(answered)) == len(undisturbed)
