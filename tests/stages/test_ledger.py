import pytest

from stages.engines import PROMPT_TOO_LONG, Completion, Request, Sampling
from stages.engines.scripted import ScriptedEngine
from stages.ledger import Ledger, LedgerEngine, valid
from stages.tables import DataError

SAMPLING = Sampling(0.6, 0.95, 10)


def ask(text: str = "hi", attempt: int = 1, sampling: Sampling = SAMPLING, revision: str = "r") -> Request:
    return Request(({"role": "user", "content": text},), revision, sampling, attempt)


def completion(request: Request, text: str = "yes", finish: str = "stop", tokens: int = 3) -> Completion:
    return Completion(request.key, text, finish, 1, tokens, "test")


def test_the_key_and_seed_depend_on_all_that_was_asked_but_max_tokens():
    requests = [ask(), ask("ho"), ask(attempt=2), ask(sampling=Sampling(0.7, 0.95, 10)), ask(revision="s")]
    assert len({request.key for request in requests}) == len({request.seed for request in requests}) == 5
    assert ask(sampling=Sampling(0.6, 0.95, 99)).key == ask().key


@pytest.mark.parametrize(
    ("finish", "tokens", "limit", "context", "holds"),
    [
        ("stop", 5, 10, 100, True),
        ("stop", 5, 100, 100, True),
        ("stop", 5, 4, 100, False),
        ("stop", 5, 10, 5, False),
        ("length", 10, 10, 100, True),
        ("length", 10, 100, 200, False),
        ("length", 10, 5, 100, False),
        ("length", 7, 10, 8, True),
        ("length", 7, 10, 100, False),
    ],
)
def test_when_a_stored_completion_still_holds(finish, tokens, limit, context, holds):
    """The prompt has one token, so a context of 8 leaves room for 7."""
    assert valid(Completion("k", "", finish, 1, tokens, "test"), Sampling(0.6, 0.95, limit), context) is holds


def test_of_several_completions_of_one_request_the_one_that_holds_is_found(tmp_path):
    cut, whole = completion(ask(), "cut", "length", 10), completion(ask(), "whole", "stop", 15)
    for first, second in ((cut, whole), (whole, cut)):
        ledger = Ledger(first.text, tmp_path)
        ledger.add(first)
        ledger.add(second)
        again = Ledger(first.text, tmp_path)
        assert again.find(ask().key, Sampling(0.6, 0.95, 10), 100) == cut
        assert again.find(ask().key, Sampling(0.6, 0.95, 20), 100) == whole


def test_a_prompt_that_leaves_no_room_is_not_kept(tmp_path):
    ledger = Ledger("t", tmp_path)
    engine = LedgerEngine(ledger, 100, lambda: Refusing())
    engine.submit(ask())
    assert [c.finish_reason for c in engine.poll()] == [PROMPT_TOO_LONG]
    assert not ledger.kept


class Refusing:
    def submit(self, request: Request) -> None:
        self.request = request

    def poll(self) -> list[Completion]:
        return [completion(self.request, "", PROMPT_TOO_LONG, 0)]


def test_what_one_run_adds_the_next_one_finds(tmp_path):
    first = Ledger("t", tmp_path)
    first.add(completion(ask()))
    first.close()
    assert Ledger("t", tmp_path).find(ask().key, SAMPLING, 100) == completion(ask())
    assert [path.name.split("-")[0] for path in (tmp_path / "t").iterdir()] == ["part"]


def test_a_killed_run_loses_nothing_that_was_added(tmp_path):
    killed = Ledger("t", tmp_path)
    killed.add(completion(ask()))
    assert Ledger("t", tmp_path).find(ask().key, SAMPLING, 100)


def test_a_torn_last_line_is_passed_over(tmp_path):
    ledger = Ledger("t", tmp_path)
    ledger.add(completion(ask()))
    ledger.add(completion(ask("ho")))
    content = ledger.journal.read_bytes()
    for cut in range(len(content) // 2 + 2, len(content) - 1):
        ledger.journal.write_bytes(content[:cut])
        again = Ledger("t", tmp_path)
        assert again.find(ask().key, SAMPLING, 100) and not again.find(ask("ho").key, SAMPLING, 100)


def test_a_completion_of_another_version_is_not_dropped_in_silence(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/part-x.jsonl").write_text('{"key": "k", "text": "old"}\n')
    with pytest.raises(DataError, match=r"part-x.jsonl: not a completion of this version"):
        Ledger("t", tmp_path)


def test_two_writers_do_not_disturb_each_other(tmp_path):
    a, b = Ledger("t", tmp_path), Ledger("t", tmp_path)
    a.add(completion(ask("a")))
    b.add(completion(ask("b")))
    a.close()
    b.close()
    both = Ledger("t", tmp_path)
    assert both.find(ask("a").key, SAMPLING, 100) and both.find(ask("b").key, SAMPLING, 100)


def test_any_text_survives(tmp_path):
    text = 'line\nbreak \u2028 "quote" 漢 \ud83d\ude00 \x00'.encode("utf-16", "surrogatepass").decode("utf-16")
    ledger = Ledger("t", tmp_path)
    ledger.add(completion(ask(), text))
    assert Ledger("t", tmp_path).find(ask().key, SAMPLING, 100) == completion(ask(), text)


def test_the_engine_starts_only_when_something_is_missing(tmp_path):
    real = ScriptedEngine(lambda request: "four")
    ledger = Ledger("t", tmp_path)
    first = LedgerEngine(ledger, 100, lambda: real)
    first.submit(ask())
    assert [c.text for c in first.poll()] == ["four"]

    def never():
        raise AssertionError("started")

    second = LedgerEngine(Ledger("t", tmp_path), 100, never)
    second.submit(ask())
    assert [c.text for c in second.poll()] == ["four"]
    assert (second.asked, second.reused, second.poll()) == (0, 1, [])
