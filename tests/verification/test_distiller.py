from collections import Counter, deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core import model_locks
from distillery.core.errors import DataError, EngineError
from distillery.core.formats import STUDY, TAGS
from distillery.core.response_parts import parts_of
from distillery.core.schemas import FAIL, PASS, QUERY, TRACE, UNKNOWN
from distillery.core.tables import part_paths, read_part, read_rows, write_part, write_table
from distillery.corpus.sources import Origin
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling, VllmSettings
from distillery.generation.engine import NO_TRACE, PROMPT_TOO_LONG, REFUSED, Completion
from distillery.generation.ledger import Ledger
from distillery.generation.released_traces import NullEngine
from distillery.verification.distiller import Distill, Distiller, Task, trace_rows
from distillery.verification.spending import Spending
from distillery.verification.verdict import Item, Verdict, hash_of, item_of
from distillery.verification.verdict_store import key_of
from stages.distill import PartWriter, ask_for, engine_of, summary, work
from tests.support.builders import make_query
from tests.support.scripted_engine import ScriptedEngine

SAMPLING = Sampling(0.6, 0.95, 64)
SETTINGS = Distill(max_attempts=3, max_unknown=1, max_in_flight=4)
LOCK = model_locks.Lock("teacher-t", "path", "revision", True, {})


class Equal:
    """Verifies at once: compares the answer with the ground truth; `shrug` is inconclusive."""

    def __init__(self):
        self.ready = []

    def submit(self, item: Item) -> None:
        verdict = UNKNOWN if item.answer == "shrug" else PASS if item.answer == item.ground_truth else FAIL
        self.ready.append((item.key, Verdict(float(verdict == PASS), verdict, "", "equal", item.ground_truth is None)))

    def poll(self, wait: float):
        ready, self.ready = self.ready, []
        return ready

    def close(self) -> None: ...


def respond(answer: str) -> str:
    return f"<think> so </think> <answer> {answer} </answer>"


def traces_of(distiller, engine):
    return list(trace_rows(distiller.take_settled(), "t"))


def distill(queries, script, ledger_root, settings=SETTINGS, sampling=SAMPLING, verifier=None):
    """Runs the loop over a ledger; returns (trace rows, the scripted engine)."""
    scripted = ScriptedEngine(script, batch=3)
    engine = LedgerEngine(Ledger("t", ledger_root), 4096, lambda: scripted)
    distiller = Distiller(settings, engine, verifier or Equal(), partial(ask_for, LOCK, sampling, "be brief"), STUDY)
    for _ in distiller.run([queries]):
        assert len(distiller.generating) <= settings.max_in_flight
    rows = traces_of(distiller, engine)
    engine.close()
    return rows, scripted


def right_on(attempt: int):
    return lambda request: respond("5" if request.attempt >= attempt else "4")


@pytest.mark.parametrize(("right", "attempts", "last"), [(1, 1, PASS), (2, 2, PASS), (3, 3, PASS), (4, 3, FAIL)])
def test_a_query_is_asked_until_it_verifies_or_the_attempts_run_out(tmp_path, right, attempts, last):
    rows, engine = distill([make_query()], right_on(right), tmp_path)
    assert [row["verdict"] for row in rows] == [FAIL] * (attempts - 1) + [last]
    assert len({request.seed for request in engine.asked}) == attempts, "every attempt has a seed of its own"


def test_inconclusive_attempts_have_their_own_limit(tmp_path):
    answers = {1: "shrug", 2: "4", 3: "4", 4: "5"}
    rows, _ = distill([make_query()], lambda request: respond(answers[request.attempt]), tmp_path)
    assert [row["verdict"] for row in rows] == [UNKNOWN, FAIL, FAIL, PASS]
    rows, _ = distill([make_query("other")], lambda request: respond("shrug"), tmp_path)
    assert [row["verdict"] for row in rows] == [UNKNOWN, UNKNOWN]


TWO = replace(SETTINGS, traces=2)


@pytest.mark.parametrize(
    ("answers", "verdicts"),
    [
        ("55", [PASS, PASS]),
        ("5445", [PASS, FAIL, FAIL, PASS]),
        ("4544", [FAIL, PASS, FAIL, FAIL]),
        ("444", [FAIL, FAIL, FAIL]),
        ("5s5", [PASS, UNKNOWN, PASS]),
        ("5ss", [PASS, UNKNOWN, UNKNOWN]),
    ],
)
def test_a_query_is_asked_until_it_has_as_many_traces_as_wanted(tmp_path, answers, verdicts):
    script = lambda request: respond({"s": "shrug"}.get(answers[request.attempt - 1], answers[request.attempt - 1]))  # noqa: E731
    rows, _ = distill([make_query()], script, tmp_path, TWO)
    assert [row["verdict"] for row in rows] == verdicts


def test_more_traces_generate_only_what_is_missing(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(10)]
    distill(queries, right_on(2), tmp_path)
    rows, engine = distill(queries, right_on(2), tmp_path, TWO)
    assert len(engine.asked) == 10 and {request.attempt for request in engine.asked} == {3}
    assert Counter(row["verdict"] for row in rows) == {FAIL: 10, PASS: 20}


def test_a_query_that_has_a_trace_counts_as_verified_when_no_more_come(tmp_path):
    scripted = ScriptedEngine(lambda request: respond("5") if request.attempt == 1 else respond("4"), batch=3)
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: scripted)
    distiller = Distiller(TWO, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    for _ in distiller.run([[make_query()]]):
        pass
    assert distiller.settled == {("math", PASS): 1} and distiller.verdicts[FAIL] == 3


def test_hopeless_queries_are_asked_once(tmp_path):
    rows, engine = distill([make_query(answer=None)], lambda request: respond("shrug"), tmp_path)
    assert len(rows) == len(engine.asked) == 1


def test_many_queries_each_settle_once(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(50)]
    rows, _ = distill(queries, right_on(2), tmp_path)
    assert Counter(row["verdict"] for row in rows) == {PASS: 50, FAIL: 50}


def test_without_queries_nothing_is_requested(tmp_path):
    rows, engine = distill([], right_on(1), tmp_path)
    assert rows == [] and engine.asked == []


def test_a_second_run_makes_no_requests_and_gives_the_same(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(20)]
    first, _ = distill(queries, right_on(2), tmp_path)
    second, engine = distill(queries, right_on(1), tmp_path)
    assert second == first and engine.asked == []


def test_only_new_queries_are_asked(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(10)]
    distill(queries, right_on(1), tmp_path)
    _, engine = distill([*queries, make_query("new")], right_on(1), tmp_path)
    assert [request.messages[-1]["content"] for request in engine.asked] == ["new"]


def test_a_higher_limit_repeats_only_truncated_requests(tmp_path):
    queries = [make_query("short"), make_query("long")]
    script = lambda request: respond("5") if request.messages[-1]["content"] == "short" else "<think> " + "la " * 80  # noqa: E731
    distill(queries, script, tmp_path, Distill(1, 0, 4))
    _, engine = distill(queries, script, tmp_path, Distill(1, 0, 4), Sampling(0.6, 0.95, 128))
    assert [request.messages[-1]["content"] for request in engine.asked] == ["long"]


def test_a_removed_query_makes_no_requests_and_leaves_no_row(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(10)]
    before, _ = distill(queries, right_on(2), tmp_path)
    after, engine = distill(queries[:-1], right_on(2), tmp_path)
    assert engine.asked == [] and after == [row for row in before if row["query_id"] != queries[-1]["id"]]


def test_a_changed_verifier_requests_only_what_now_fails(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(10)]
    distill(queries, right_on(1), tmp_path)

    class Stricter(Equal):
        def submit(self, item: Item) -> None:
            strict = item.messages[-1]["content"] == "what is 7 ?" and item.answer == "5"
            super().submit(replace(item, answer="4") if strict else item)

    rows, engine = distill(queries, right_on(1), tmp_path, verifier=Stricter())
    assert [(request.messages[-1]["content"], request.attempt) for request in engine.asked] == [
        ("what is 7 ?", 2),
        ("what is 7 ?", 3),
    ]
    assert sum(row["verdict"] == FAIL for row in rows) == 3


def test_generation_continues_with_a_bounded_backlog_while_a_slow_verifier_works(tmp_path):
    class Slow(Equal):
        """Gives one verdict every tenth poll."""

        turns = 0

        def poll(self, wait: float):
            self.turns += 1
            return [self.ready.pop(0)] if self.turns % 10 == 0 and self.ready else []

    scripted = ScriptedEngine(right_on(1), batch=3)
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: scripted)
    distiller = Distiller(SETTINGS, engine, Slow(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    most, idle = 0, 0
    for _ in distiller.run([[make_query(f"what is {i} ?") for i in range(60)]]):
        most = max(most, len(distiller.verifying))
        idle += bool(distiller.todo) and not distiller.generating and len(distiller.verifying) < 24
    assert (most >= 24, most <= 8 * SETTINGS.max_in_flight + 3, idle) == (True, True, 0)
    assert sum(distiller.verdicts.values()) == 60


def test_a_too_long_prompt_is_hopeless_and_has_a_row(tmp_path):
    class Refusing(ScriptedEngine):
        def poll(self):
            turn, self.waiting = list(self.waiting), deque()
            return [Completion(request.key, "", PROMPT_TOO_LONG, 99, 0, "refusing") for request in turn]

    engine = LedgerEngine(Ledger("t", tmp_path), 64, lambda: Refusing(right_on(1)))
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    list(distiller.run([[make_query()]]))
    (row,) = traces_of(distiller, engine)
    assert (row["verdict"], row["text"]) == (UNKNOWN, "") and "99 tokens" in row["reason"]


def test_a_dead_engine_is_one_error_and_the_ledger_keeps_completions(tmp_path):
    class Dying(ScriptedEngine):
        def poll(self):
            if len(self.asked) > 8:
                raise EngineError("no answer from http://gpu:8000/v1 for 5 s")
            return super().poll()

    queries = [make_query(f"what is {i} ?") for i in range(30)]
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: Dying(right_on(1), batch=2))
    with pytest.raises(EngineError, match="http://gpu:8000/v1"):
        list(Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, "be brief"), STUDY).run([queries]))
    engine.close()
    kept = len(list(Ledger("t", tmp_path).every()))
    assert kept >= 4
    rows, alive = distill(queries, right_on(1), tmp_path)
    assert len(rows) == 30 and len(alive.asked) == 30 - kept


@given(st.lists(st.sampled_from([PASS, FAIL, UNKNOWN]), min_size=8, max_size=8), st.integers(1, 4), st.integers(0, 3))
def test_how_often_a_query_is_asked(verdicts, max_attempts, max_unknown):
    """Until it passes, has failed max_attempts times, or was inconclusive once more than max_unknown times."""
    answers = {PASS: "5", FAIL: "4", UNKNOWN: "shrug"}
    with TemporaryDirectory() as folder:
        script = lambda request: respond(answers[verdicts[request.attempt - 1]])  # noqa: E731
        rows, _ = distill([make_query()], script, Path(folder), Distill(max_attempts, max_unknown, 4))
    expected = []
    for verdict in verdicts:
        expected.append(verdict)
        counts = Counter(expected)
        if verdict == PASS or counts[FAIL] >= max_attempts or counts[UNKNOWN] > max_unknown:
            break
    assert [row["verdict"] for row in rows] == expected


def test_rows_are_sorted_regardless_of_completion_order(tmp_path):
    queries = [make_query(f"what is {i} ?") for i in range(9)]
    rows, _ = distill(list(reversed(queries)), right_on(2), tmp_path / "a")
    assert rows == distill(queries, right_on(2), tmp_path / "b")[0]
    assert [(row["query_id"], row["attempt"]) for row in rows] == sorted((row["query_id"], row["attempt"]) for row in rows)


def test_the_summary_counts_and_names_what_is_inconclusive(tmp_path):
    answers = {"what is 1 ?": "5", "what is 2 ?": "4", "what is 3 ?": "shrug"}
    scripted = ScriptedEngine(lambda request: respond(answers[request.messages[-1]["content"]]), batch=3)
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: scripted)
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    list(distiller.run([[make_query(text) for text in answers]]))
    first, second, *inconclusive = summary(distiller, engine)
    engine.close()
    assert first.startswith("1 of 3 queries verified") and second.endswith("3 attempts failed")
    assert inconclusive == ["2 inconclusive: equal: "]


def test_the_system_prompt_comes_first_where_there_is_one():
    query = make_query("what ?")
    assert [turn["role"] for turn in ask_for(LOCK, SAMPLING, "be brief", query, 1).messages] == ["system", "user"]
    assert [turn["role"] for turn in ask_for(LOCK, SAMPLING, "", query, 1).messages] == ["user"]


class Backlog(Equal):
    """Keeps verdicts back; records how long it was waited for."""

    def __init__(self, turns):
        super().__init__()
        self.turns, self.waits = turns, []

    def poll(self, wait: float):
        self.waits.append(wait)
        self.turns -= 1
        return super().poll(wait) if self.turns <= 0 else []


def test_the_loop_waits_for_verdicts_only_where_nothing_else_is_to_do(tmp_path):
    """Four queries, three a poll: first the engine works on one more, then only verdicts are missing."""
    verifier = Backlog(5)
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ScriptedEngine(right_on(1), batch=3))
    distiller = Distiller(SETTINGS, engine, verifier, partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    for _ in distiller.run([[make_query(f"what is {i} ?") for i in range(4)]]):
        pass
    assert verifier.waits == [0.0, 0.1, 0.1, 0.1, 0.1]
    assert distiller.tokens == sum(row["completion_tokens"] for row in traces_of(distiller, engine)) > 0


def test_the_loop_does_not_wait_while_queries_remain(tmp_path):
    verifier = Backlog(3)
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ScriptedEngine(right_on(1), batch=8))
    distiller = Distiller(replace(SETTINGS, max_in_flight=2), engine, verifier, partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    turns = distiller.run([[make_query(f"what is {i} ?") for i in range(6)]])
    next(turns)
    assert verifier.waits == [0.0], "four queries could be asked at once"


def test_a_run_that_meets_another_goes_on_elsewhere(tmp_path, monkeypatch):
    """Not in step: it leaves the rest of the queries in another order, none lost."""
    asked: list[int] = []

    def second(most):
        asked.append(most)
        return 2

    monkeypatch.setattr("distillery.verification.distiller.randrange", second)
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: scripted)
    scripted = ScriptedEngine(right_on(1), batch=1)
    engine.met = True
    distiller = Distiller(replace(SETTINGS, max_in_flight=1), engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    for _ in distiller.run([[make_query(f"what is {i} ?") for i in range(5)]]):
        pass
    order = [request.messages[-1]["content"].split()[2] for request in scripted.asked]
    assert order == ["0", "3", "4", "1", "2"] and asked == [4], "it met the other once"
    engine.met = True
    list(distiller.run([[make_query("the only one")]]))
    assert asked == [4], "nothing is left to reorder"


class Late(ScriptedEngine):
    """Leaves no room for a second attempt, and never any where ``first``."""

    def __init__(self, reason, first):
        super().__init__(right_on(9), batch=3)
        self.reason, self.first = reason, first

    def _complete(self, request):
        if request.attempt > 1 or self.first:
            return Completion(request.key, "", self.reason, 99, 0, "late")
        return super()._complete(request)


@pytest.mark.parametrize(
    ("reason", "first", "settled", "why"),
    [
        (PROMPT_TOO_LONG, True, {("math", UNKNOWN): 1}, "the prompt has 99 tokens, which leaves no room"),
        (NO_TRACE, True, {("math", UNKNOWN): 1}, "the released traces do not hold this query"),
        (NO_TRACE, False, {("math", FAIL): 1}, None),
    ],
)
def test_a_query_that_cannot_be_generated_is_settled_once(tmp_path, reason, first, settled, why):
    engine = LedgerEngine(Ledger("t", tmp_path), 64, lambda: Late(reason, first))
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    list(distiller.run([[make_query()]]))
    ((trace,),) = [task.traces for task in distiller.take_settled()]
    assert dict(distiller.settled) == settled
    verdict = trace.verdict
    assert verdict.hopeless == first and (why is None or why in verdict.reason)


def test_the_summary_shows_the_five_most_frequent_reasons(tmp_path):
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ScriptedEngine(right_on(1)))
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    list(distiller.run([[make_query()]]))
    distiller.reasons.update({f"v: reason {n}": n for n in range(7)})
    shown = list(summary(distiller, engine))[2:]
    assert shown == [f"{n} inconclusive: v: reason {n}" for n in (6, 5, 4, 3, 2)]


def test_released_traces_need_no_engine(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.distill.Ledger", lambda name: Ledger(name, tmp_path))
    monkeypatch.setattr("stages.distill.start", lambda lock, settings: ScriptedEngine(right_on(1)))
    settings = VllmSettings("vllm", "float32", 64, 4, 1, 1, 1, 0.9, True)
    released = Origin("traces.jsonl", None, "train")
    assert isinstance(engine_of("a", LOCK, settings, released).start(), NullEngine)
    engine = engine_of("b", LOCK, settings, None)
    assert isinstance(engine.start(), ScriptedEngine) and engine.context == 64


@pytest.mark.parametrize(("readable", "finish"), [(None, "stop"), (10, "stop"), (None, "length")])
def test_a_teacher_whose_responses_cannot_be_read_is_not_paid_for(tmp_path, monkeypatch, readable, finish):
    monkeypatch.setattr("distillery.verification.distiller.UNREAD", 60)
    texts = {i: "the answer is 5" if i != readable else "<think>a</think><answer>5</answer>" for i in range(100)}
    queries = [make_query(f"{i} ?") for i in texts]
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: Numbered(texts, finish))
    distiller = Distiller(replace(SETTINGS, max_in_flight=1), engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    if readable is None and finish == "stop":
        with pytest.raises(DataError, match=r"none of the first 60 .* 'study'; the last begins 'the answer is 5'"):
            list(distiller.run([queries]))
        assert len(list(engine.ledger.every())) == 60, "what was generated is kept"
    else:
        list(distiller.run([queries]))


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_refused_query_is_inconclusive_with_the_servers_words_and_asked_again_in_the_next_run(tmp_path, attempt):
    class Refusing(ScriptedEngine):
        def poll(self):
            found = super().poll()
            return [replace(each, finish_reason=REFUSED, text="filtered") if each.text == "no" else each for each in found]

    def script(request):
        return "no" if request.attempt == attempt else "<think>a</think><answer>wrong</answer>"

    def attempts() -> tuple[list[dict], LedgerEngine]:
        engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: Refusing(script))
        distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
        list(distiller.run([[make_query("0 ?")]]))
        rows = list(trace_rows(distiller.take_settled(), "t"))
        engine.close()
        return rows, engine

    for kept in (0, attempt - 1):
        rows, engine = attempts()
        assert [row["verdict"] for row in rows] == [FAIL] * (attempt - 1) + [UNKNOWN]
        assert rows[-1]["reason"] == "the server refuses the query: filtered" and rows[-1]["text"] == ""
        assert (engine.reused, engine.asked) == (kept, attempt - kept)


def test_the_ends_of_an_unreadable_response_are_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr("distillery.verification.distiller.UNREAD", 1)
    text = "".join(chr(ord("A") + i % 26) for i in range(500))
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: Numbered({0: text}, "stop"))
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    with pytest.raises(DataError, match=f"begins '{text[:80]}' and ends '{text[-80:]}';"):
        list(distiller.run([[make_query("0 ?")]]))


@pytest.mark.parametrize(("finish", "answer"), [("stop", "5 apples"), ("length", None)])
def test_a_truncated_response_has_no_answer_in_its_row(tmp_path, finish, answer):
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: Numbered({0: "<think>so</think>5 apples"}, finish))
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), TAGS)
    list(distiller.run([[make_query("0 ?", "5 apples")]]))
    rows = list(trace_rows(distiller.take_settled(), "t"))
    assert {parts_of(row) for row in rows} == {("so", answer)}
    assert {row["verdict"] for row in rows} == {PASS if answer else FAIL}


class Numbered:
    """Answers the query ``i ?`` with the i-th text."""

    def __init__(self, texts, finish):
        self.texts, self.finish, self.asked = texts, finish, []

    def submit(self, request):
        self.asked.append(request)

    def poll(self):
        asked, self.asked = self.asked, []
        number = lambda request: int(request.messages[-1]["content"].split()[0])  # noqa: E731
        return [Completion(r.key, self.texts[number(r)], self.finish, 1, 5, "x") for r in asked]

    def close(self): ...


def noting(notes, function, which=0):
    """The function, with an argument of each call noted."""

    def noted(*arguments):
        notes.append(arguments[which])
        return function(*arguments)

    return noted


def by_parts(folder, count, parts):
    """Queries written as parts of the corpus; the paths."""
    queries = sorted((make_query(f"what is {i} ?") for i in range(count)), key=lambda query: query["id"])
    write_table(queries, folder, QUERY, parts)
    return part_paths(folder)


def test_parts_are_read_one_after_the_other_and_written_when_settled(tmp_path, monkeypatch):
    """The last part is empty; a query of the first is settled last, so that what follows it there is written last."""
    paths = by_parts(tmp_path / "queries", 40, 4)
    table = read_part(paths[3], QUERY)
    write_part(table.slice(0, 0), paths[3])
    sizes = [len(read_part(path, QUERY)) for path in paths]
    slowest = read_part(paths[0], QUERY)["messages"][0].as_py()[0]["content"]
    read: list[Path] = []
    monkeypatch.setattr("stages.distill.read_rows", noting(read, read_rows))
    monkeypatch.setattr("stages.distill.TRACES_PER_GROUP", 3)
    script = lambda request: respond("4" if request.messages[-1]["content"] == slowest and request.attempt < 3 else "5")  # noqa: E731
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ScriptedEngine(script, batch=2))
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    (tmp_path / "traces").mkdir()
    writer = PartWriter(tmp_path / "traces", sizes, partial(trace_rows, teacher="t"))
    work("t", distiller, paths, writer, Spending(engine, None, 1, None))
    assert read == paths and writer.written == sizes and not writer.files and not writer.settled
    groups = [pq.ParquetFile(path).metadata for path in part_paths(tmp_path / "traces")]
    assert all(about.row_group(i).num_rows == 3 for about in groups for i in range(about.num_row_groups - 1)), "of one size"
    traces = [read_part(path, TRACE).to_pylist() for path in part_paths(tmp_path / "traces")]
    for rows, path in zip(traces, paths, strict=True):
        assert [row["query_id"] for row in rows if row["attempt"] == 1] == read_part(path, QUERY)["id"].to_pylist()
    assert sum(map(len, traces)) == sum(sizes) + 2 and writer.engines == {"scripted"}
    seconds = engine.ledger.seconds_of(writer.requests)
    assert seconds == pytest.approx(sum(entry.seconds for _, entry in engine.ledger.every()))


def test_memory_holds_no_traces_but_those_that_an_unsettled_query_precedes(tmp_path, monkeypatch):
    monkeypatch.setattr("stages.distill.TRACES_PER_GROUP", 2)
    tasks = [Task(make_query(f"what is {i} ?"), row=i) for i in range(6)]
    monkeypatch.setattr("stages.distill.part_of", lambda key, parts: 0)
    writer = PartWriter(tmp_path, [6], lambda tasks: iter([{"query_id": tasks[0].query["id"]}]))
    for row, waiting, rows in ((0, [], 1), (1, [], 0), (3, [3], 0), (5, [3, 5], 0), (2, [5], 0), (4, [], 0)):
        file = writer.files.get(0)
        writer.add(tasks[row])
        file = file or writer.files[0]
        assert (sorted(writer.settled.get(0, {})), len(file.rows)) == (waiting, rows)
    assert pq.read_table(tmp_path / "part-00000.parquet")["query_id"].to_pylist() == [task.query["id"] for task in tasks]


def test_memory_holds_one_part_beyond_the_queries_in_flight(tmp_path):
    """The next part is read when all queries of the one before have been submitted."""
    loaded = []

    def parts():
        for part in range(5):
            loaded.append(part)
            yield [make_query(f"what is {part * 10 + i} ?") for i in range(10)]

    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ScriptedEngine(right_on(1), batch=2))
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    for _ in distiller.run(parts()):
        settled = sum(distiller.settled.values())
        assert len(loaded) <= 2 + (settled + SETTINGS.max_in_flight) // 10
    assert loaded == list(range(5)) and len(distiller.take_settled()) == 50 and distiller.take_settled() == []


@pytest.mark.parametrize("others", [0, 1])
def test_runs_that_share_a_ledger_take_the_parts_in_orders_of_their_own(tmp_path, monkeypatch, others):
    paths = by_parts(tmp_path / "queries", 20, 2)
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ScriptedEngine(right_on(1), batch=2))
    monkeypatch.setattr(engine.ledger.journal, "others", lambda: others)
    monkeypatch.setattr("stages.distill.sample", lambda parts, count: parts[::-1][:count])
    read: list[Path] = []
    monkeypatch.setattr("stages.distill.read_rows", noting(read, read_rows))
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, ""), STUDY)
    (tmp_path / "traces").mkdir()
    sizes = [len(read_part(path, QUERY)) for path in paths]
    writer = PartWriter(tmp_path / "traces", sizes, partial(trace_rows, teacher="t"))
    work("t", distiller, paths, writer, Spending(engine, None, 1, None))
    assert read == (paths[::-1] if others else paths)


def test_a_damaged_completion_is_generated_again_and_named(tmp_path):
    distill([make_query()], right_on(1), tmp_path)
    (path,) = (tmp_path / "t").glob("part-*.zst")
    content = path.read_bytes()
    path.write_bytes(content.replace(content[100:104], b"\0\1\2\3"))
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ScriptedEngine(right_on(1)))
    distiller = Distiller(SETTINGS, engine, Equal(), partial(ask_for, LOCK, SAMPLING, "be brief"), STUDY)
    list(distiller.run([[make_query()]]))
    (row,) = trace_rows(distiller.take_settled(), "t")
    assert row["verdict"] == PASS and (engine.asked, engine.reused) == (1, 0)
    shown = list(summary(distiller, engine))
    assert shown[-1].startswith("1 damaged records of the ledger were skipped and generated again; the first: ")
    assert shown[-1].endswith(f"{path.name.removeprefix('part-')}, byte 0")


def test_tests_are_hashed_once_per_query_and_version(monkeypatch):
    hashed: list[str] = []
    monkeypatch.setattr("distillery.verification.verdict.hash_of", noting(hashed, hash_of))
    item = item_of("0" * 32, make_query(), "5")
    keys = [key_of("v", each) for each in (item, item.again("1" * 32, "5"), item.again("2" * 32, "6"), item)]
    assert hashed == ["v"] and keys[0] == keys[1] == keys[3] != keys[2]
    assert key_of("w", item) != keys[0] and hashed == ["v", "w"]
    assert key_of("v", item_of("0" * 32, make_query(), "5")) == keys[0]
