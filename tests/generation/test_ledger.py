import errno
import hashlib
import json
import os
from contextlib import closing

import pytest

from distillery.core import journal_index
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
    return ledger.find(request.key, request.sampling, 100)


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
        ("stop", 10, 10, 100, True),
        ("stop", 5, 10, 6, True),
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
    assert not list(ledger.every())


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
    assert [path.name.split("-")[0] for path in (tmp_path / "t").glob("*.zst")] == ["part"]


def test_a_killed_run_loses_nothing_that_was_added(tmp_path):
    killed = Ledger("t", tmp_path)
    killed.add(completion(ask()))
    assert Ledger("t", tmp_path).find(ask().key, SAMPLING, 100)


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
    assert b.fresh == {key for key, _ in b.every()} and len(b.fresh) == 2


def test_many_completions_of_a_concurrent_writer_are_found(tmp_path, monkeypatch):
    """So many that the index puts them in order on the way."""
    monkeypatch.setattr(journal_index, "ADDED", 3)
    a, b = Ledger("t", tmp_path), Ledger("t", tmp_path)
    for number in range(8):
        a.add(completion(ask(str(number)), tokens=number))
    b.look()
    assert b.fresh == {ask(str(number)).key for number in range(8)} and b.tokens == sum(range(8))
    a.close()
    b.close()


def test_an_engine_detects_another_writers_completions(tmp_path):
    other, engine = Ledger("t", tmp_path), LedgerEngine(Ledger("t", tmp_path), 100, lambda: ScriptedEngine(lambda request: "x"))
    engine.submit(ask("mine"))
    assert not engine.met_another()
    other.add(completion(ask("theirs")))
    engine.ledger.looked = 0.0
    engine.submit(ask("theirs"))
    assert engine.met_another() and not engine.met_another()
    assert (engine.asked, engine.reused) == (1, 1)


def test_engine_time_is_divided_by_tokens(tmp_path):
    engine = LedgerEngine(Ledger("t", tmp_path), 100, lambda: ScriptedEngine(lambda request: request.messages[-1]["content"]))
    short, long = ask("a"), ask("a b c")
    for request in (short, long):
        engine.submit(request)
    engine.poll()
    assert engine.seconds(long) == pytest.approx(3 * engine.seconds(short), abs=2e-4)
    assert found(engine.ledger, long).text == "a b c"  # type: ignore[union-attr]


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


def test_of_several_valid_completions_the_shortest_is_found_then_the_first_by_text(tmp_path):
    """Whatever their order: two runs that both generated must go on with the same one."""
    given = [completion(ask(), text, "stop", tokens) for text, tokens in (("c", 3), ("b", 2), ("a", 2), ("d", 9))]
    for order in (given, given[::-1], given[:2], given[1::-1]):
        ledger = Ledger("-".join(each.text for each in order), tmp_path)
        for each in order:
            ledger.add(each)
        held = found(ledger, ask())
        assert held and held.text == ("a" if len(order) == 4 else "b")


class Clock:
    def __init__(self, monkeypatch, module):
        self.now = 100.0
        monkeypatch.setattr(f"distillery.generation.{module}.time", self)

    def monotonic(self):
        return self.now


def test_what_others_wrote_is_looked_for_at_most_every_quarter_of_a_second(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, "ledger")
    ledger, other = Ledger("t", tmp_path), Ledger("t", tmp_path)
    other.add(completion(ask()))
    clock.now += 0.25
    assert ledger.find_again(ask().key, SAMPLING, 100) is None
    clock.now += 0.01
    assert ledger.find_again(ask().key, SAMPLING, 100)
    looked = ledger.looked
    clock.now += 9
    assert ledger.find_again(ask().key, SAMPLING, 100) and ledger.looked == looked, "it is known already"


def test_a_ledger_is_not_read_again_just_after_it_was_opened(tmp_path, monkeypatch):
    Clock(monkeypatch, "ledger").now = 0.1
    ledger, other = Ledger("t", tmp_path), Ledger("t", tmp_path)
    other.add(completion(ask()))
    assert ledger.find_again(ask().key, SAMPLING, 100) is None


def test_attempt_and_seconds_are_stored(tmp_path):
    ledger = Ledger("t", tmp_path)
    added = [ledger.add(completion(ask())), ledger.add(completion(ask("b")), 3, 1.23456)]
    again = Ledger("t", tmp_path)
    assert [(entry.attempt, entry.seconds) for entry in added] == [(1, 0.0), (3, 1.2346)]
    assert [again.entries(key)[0] for key in (ask().key, ask("b").key)] == added


class Slow(ScriptedEngine):
    """Takes a second per token and a second per poll."""

    def __init__(self, clock, script):
        super().__init__(script, 1)
        self.clock = clock

    def poll(self):
        done = super().poll()
        self.clock.now += 1 + sum(each.completion_tokens for each in done)
        return done


def test_engine_time_starts_with_a_request_and_covers_waiting(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, "cached_engine")
    engine = LedgerEngine(Ledger("t", tmp_path), 100, lambda: Slow(clock, lambda request: request.messages[-1]["content"]))
    clock.now += 50
    engine.submit(ask("a b"))
    clock.now += 2
    engine.submit(ask("c"))
    engine.poll()
    clock.now += 0.5
    engine.poll()
    assert (engine.seconds(ask("a b")), engine.seconds(ask("c"))) == (5.0, 2.5)
    clock.now += 1000
    assert engine.poll() == []
    engine.submit(ask("d"))
    engine.poll()
    assert engine.seconds(ask("d")) == 2.0, "time without requests is nobody's"


def test_completions_of_one_poll_share_its_time_by_tokens(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, "cached_engine")
    slow = Slow(clock, lambda request: request.messages[-1]["content"])
    slow.batch = 8
    engine = LedgerEngine(Ledger("t", tmp_path), 100, lambda: slow)
    for text in ("a", "b c d"):
        engine.submit(ask(text))
    engine.poll()
    assert (engine.seconds(ask("a")), engine.seconds(ask("b c d"))) == (1.25, 3.75)


class Silent(ScriptedEngine):
    def _complete(self, request):
        return completion(request, "", "stop", 0)


def test_a_completion_without_tokens_costs_nothing(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, "cached_engine")
    engine = LedgerEngine(Ledger("t", tmp_path), 100, lambda: Silent(lambda request: ""))
    engine.submit(ask())
    clock.now += 3
    assert len(engine.poll()) == 1 and engine.seconds(ask()) == 0


class Idle(ScriptedEngine):
    def poll(self):
        raise AssertionError("asked without need")


def test_an_engine_is_not_polled_without_requests(tmp_path):
    ledger = Ledger("t", tmp_path)
    ledger.add(completion(ask()))
    engine = LedgerEngine(ledger, 100, lambda: Idle(lambda request: ""))
    engine.engine = Idle(lambda request: "")
    engine.submit(ask())
    assert len(engine.poll()) == 1 and engine.poll() == [] and (engine.asked, engine.reused) == (0, 1)


def test_a_run_beside_another_writer_knows_of_it(tmp_path):
    ledger = Ledger("t", tmp_path)
    engine = LedgerEngine(ledger, 100, lambda: ScriptedEngine(lambda request: "x"))
    assert not engine.met_another()
    with closing(Ledger("t", tmp_path)) as other:
        other.add(completion(ask()))
        assert LedgerEngine(ledger, 100, engine.start).met_another()
    assert not LedgerEngine(ledger, 100, engine.start).met_another()


def test_a_ledger_needs_no_folder_above_it(tmp_path):
    Ledger("t", tmp_path / "a" / "b").add(completion(ask()))
    assert found(Ledger("t", tmp_path / "a" / "b"), ask())


def test_half_a_surrogate_pair_is_stored_like_any_other_text(tmp_path):
    """A tokenizer may cut one in two; UTF-8 has no bytes for it."""
    ledger = Ledger("t", tmp_path)
    ledger.add(completion(ask(), "half \ud83d"))
    assert found(Ledger("t", tmp_path), ask()) == completion(ask(), "half \ud83d")


def test_completions_of_before_a_model_was_known_by_its_content_are_found(tmp_path):
    old, new = ask(revision="commit"), ask(revision="content")
    ledger = Ledger("t", tmp_path)
    ledger.add(completion(old))
    engine = LedgerEngine(ledger, 100, lambda: ScriptedEngine(lambda request: "new"), {"content": "commit"})
    engine.submit(new)
    assert engine.poll() == [completion(new)] and (engine.asked, engine.reused) == (0, 1)
    for request in (ask("other", revision="content"), ask(revision="third")):
        engine.submit(request)
    assert [each.text for each in engine.poll()] == ["new", "new"] and engine.asked == 2
