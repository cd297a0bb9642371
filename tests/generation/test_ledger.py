import errno
import hashlib
import json
import os

import pytest

from distillery.core.errors import DataError
from distillery.generation.cached_engine import LedgerEngine, complete_all
from distillery.generation.config import Sampling
from distillery.generation.engine import PROMPT_TOO_LONG, Completion, Request
from distillery.generation.ledger import Ledger, valid
from tests.support.scripted_engine import ScriptedEngine

SAMPLING = Sampling(0.6, 0.95, 10)


def ask(text: str = "hi", attempt: int = 1, sampling: Sampling = SAMPLING, revision: str = "r") -> Request:
    return Request(({"role": "user", "content": text},), revision, sampling, attempt)


def completion(request: Request, text: str = "yes", finish: str = "stop", tokens: int = 3) -> Completion:
    return Completion(request.key, text, finish, 1, tokens, "test")


def found(ledger: Ledger, request: Request) -> Completion | None:
    entry = ledger.find(request.key, request.sampling, 100)
    return ledger.completion(request.key, entry) if entry else None


def test_key_and_seed_depend_on_the_request_except_max_tokens():
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
def test_when_a_stored_completion_is_still_valid(finish, tokens, limit, context, holds):
    """The prompt has one token, so a context of 8 leaves room for 7."""
    assert valid(Completion("k", "", finish, 1, tokens, "test"), Sampling(0.6, 0.95, limit), context) is holds


def test_the_valid_one_of_several_completions_is_found(tmp_path):
    cut, whole = completion(ask(), "cut", "length", 10), completion(ask(), "whole", "stop", 15)
    for first, second in ((cut, whole), (whole, cut)):
        ledger = Ledger(first.text, tmp_path)
        ledger.add(first)
        ledger.add(second)
        again = Ledger(first.text, tmp_path)
        assert found(again, ask(sampling=Sampling(0.6, 0.95, 10))) == cut
        assert found(again, ask(sampling=Sampling(0.6, 0.95, 20))) == whole


def test_a_too_long_prompt_is_not_stored(tmp_path):
    ledger = Ledger("t", tmp_path)
    engine = LedgerEngine(ledger, 100, lambda: Refusing())
    engine.submit(ask())
    assert [c.finish_reason for c in engine.poll()] == [PROMPT_TOO_LONG]
    assert not ledger.entries


class Refusing:
    def close(self) -> None: ...

    def submit(self, request: Request) -> None:
        self.request = request

    def poll(self) -> list[Completion]:
        return [completion(self.request, "", PROMPT_TOO_LONG, 0)]


def test_completions_are_found_by_the_next_run(tmp_path):
    first = Ledger("t", tmp_path)
    first.add(completion(ask()))
    first.close()
    assert found(Ledger("t", tmp_path), ask()) == completion(ask())
    assert [path.name.split("-")[0] for path in (tmp_path / "t").iterdir()] == ["part"]


def test_a_killed_run_loses_nothing_that_was_added(tmp_path):
    killed = Ledger("t", tmp_path)
    killed.add(completion(ask()))
    assert Ledger("t", tmp_path).find(ask().key, SAMPLING, 100)


def test_a_truncated_last_line_is_skipped(tmp_path):
    ledger = Ledger("t", tmp_path)
    ledger.add(completion(ask()))
    ledger.add(completion(ask("ho")))
    content = ledger.journal.path.read_bytes()
    for cut in range(len(content) // 2 + 2, len(content) - 1):
        ledger.journal.path.write_bytes(content[:cut])
        again = Ledger("t", tmp_path)
        assert again.find(ask().key, SAMPLING, 100) and not again.find(ask("ho").key, SAMPLING, 100)


def test_a_completion_of_another_version_is_not_silently_dropped(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/part-x.jsonl").write_text('{"key": "k", "text": "old"}\n')
    with pytest.raises(DataError, match=r"part-x.jsonl: not a completion of this version"):
        Ledger("t", tmp_path)


def test_two_writers_do_not_interfere(tmp_path):
    a, b = Ledger("t", tmp_path), Ledger("t", tmp_path)
    a.add(completion(ask("a")))
    b.add(completion(ask("b")))
    a.close()
    b.close()
    both = Ledger("t", tmp_path)
    assert both.find(ask("a").key, SAMPLING, 100) and both.find(ask("b").key, SAMPLING, 100)


def test_any_text_round_trips(tmp_path):
    text = 'line\nbreak \u2028 "quote" 漢 \ud83d\ude00 \x00'.encode("utf-16", "surrogatepass").decode("utf-16")
    ledger = Ledger("t", tmp_path)
    ledger.add(completion(ask(), text))
    assert found(Ledger("t", tmp_path), ask()) == completion(ask(), text)


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


def test_completions_of_a_concurrent_writer_are_found(tmp_path):
    a, b = Ledger("t", tmp_path), Ledger("t", tmp_path)
    a.add(completion(ask("a")))
    b.look()
    assert found(b, ask("a")) == completion(ask("a"))
    a.add(completion(ask("more")))
    a.close()
    b.look()
    assert found(b, ask("more")) == completion(ask("more")), "under its final name"
    assert found(b, ask("a")) == completion(ask("a"))
    assert b.fresh == b.entries.keys() and len(b.entries) == 2


def test_an_engine_detects_another_writers_completions(tmp_path):
    other, engine = Ledger("t", tmp_path), LedgerEngine(Ledger("t", tmp_path), 100, lambda: ScriptedEngine(lambda request: "x"))
    engine.submit(ask("mine"))
    assert not engine.met_another()
    other.add(completion(ask("theirs")))
    engine.ledger.looked = 0.0
    engine.submit(ask("theirs"))
    assert engine.met_another() and not engine.met_another()
    assert (engine.asked, engine.reused) == (1, 1)


def test_another_writers_partial_line_is_read_once_complete(tmp_path):
    a, b = Ledger("t", tmp_path), Ledger("t", tmp_path)
    a.add(completion(ask("a")))
    whole = a.journal.path.read_bytes()
    a.journal.path.write_bytes(whole[:-10])
    b.look()
    assert not b.entries
    a.journal.path.write_bytes(whole)
    b.look()
    assert found(b, ask("a")) == completion(ask("a"))


def test_engine_time_is_divided_by_tokens(tmp_path):
    engine = LedgerEngine(Ledger("t", tmp_path), 100, lambda: ScriptedEngine(lambda request: request.messages[-1]["content"]))
    short, long = ask("a"), ask("a b c")
    for request in (short, long):
        engine.submit(request)
    engine.poll()
    assert engine.seconds(long) == pytest.approx(3 * engine.seconds(short), abs=2e-4)
    assert engine.text(long) == "a b c"


def test_complete_all_limits_requests_in_flight_and_yields_each_once(tmp_path):
    scripted = ScriptedEngine(lambda request: "x", batch=2)
    engine = LedgerEngine(Ledger("t", tmp_path), 100, lambda: scripted)
    got = []
    for request, _ in complete_all(engine, [ask(str(i)) for i in range(20)], 5):
        got.append(request.messages[-1]["content"])
        assert len(scripted.waiting) <= 5
    assert sorted(got, key=int) == [str(i) for i in range(20)]
    assert list(complete_all(engine, [], 5)) == []


def test_a_full_disk_is_an_error_and_stored_completions_stay(tmp_path, monkeypatch):
    ledger = Ledger("t", tmp_path)
    ledger.add(completion(ask("a")))
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:20]) if len(data) > 40 else _full())
    with pytest.raises(OSError, match="No space left"):
        ledger.add(completion(ask("b"), "long " * 50))
    monkeypatch.undo()
    ledger.close()
    again = Ledger("t", tmp_path)
    assert found(again, ask("a")) and not found(again, ask("b"))


def _full():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_unset_options_do_not_change_the_key():
    """The key is the same as in the first version."""
    asked = [[{"role": "user", "content": "hi"}], "r", 0.6, 0.95, 1]
    assert ask().key == hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
    assert (
        len(
            {
                ask().key,
                ask(sampling=Sampling(0.6, 0.95, 10, top_k=20)).key,
                ask(sampling=Sampling(0.6, 0.95, 10, min_p=0.1)).key,
            }
        )
        == 3
    )


@pytest.mark.parametrize(
    "corrupt", [b'{"key": "k", "text": "half\n', b"{\n", b"\n", b'{"key": "k", "finish_reason": "stop", "text": "half\n']
)
def test_a_truncated_line_is_skipped_and_the_next_one_read(tmp_path, corrupt):
    ledger = Ledger("t", tmp_path)
    ledger.add(completion(ask()))
    ledger.close()
    (path,) = (tmp_path / "t").glob("part-*.jsonl")
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"text": "yes"}\n', b'"text": "yes\n') + corrupt + good)
    again = Ledger("t", tmp_path)
    assert len(again.entries[ask().key]) == 1 and found(again, ask()) == completion(ask())
