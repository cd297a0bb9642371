"""The server engine against stub servers on loopback that fail in all the usual ways."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from distillery.core.errors import EngineError
from distillery.core.model_locks import Lock
from distillery.generation import openai_engine
from distillery.generation.config import Sampling, ServerSettings
from distillery.generation.engine import PROMPT_TOO_LONG, REFUSED, Completion, Request
from distillery.generation.openai_engine import Server, ServerEngine
from tests.support.template_tokenizer import tokenizer_for

KEY = "sk-very-secret"
Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Stub:
    """An OpenAI-compatible server that answers with ``behave(request)``; None closes the connection instead."""

    def __init__(self, behave: Callable[[dict], Answer | None], port: int = 0):
        self.seen: list[dict] = []
        self.headers: list[dict] = []
        self.asked_version = 0
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub.asked_version += 1
                self.reply(200, {"version": "9.9"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.seen.append(body)
                stub.headers.append(dict(self.headers))
                answer = behave(body)
                if answer is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                else:
                    self.reply(*answer)

            def reply(self, status: int, content: Any, more: dict[str, str] | None = None) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in (more or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def said(text: str, finish: str | None = "stop", **more: Any) -> Answer:
    choice = {"message": {"role": "assistant", "content": text} | more, "finish_reason": finish}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": len(text.split())}}


def echo(body: dict) -> Answer:
    return said("re: " + body["messages"][-1]["content"])


def settings(*urls: str, **more: Any) -> ServerSettings:
    known = {
        "model": "m",
        "max_model_len": 64,
        "max_num_seqs": 8,
        "timeout": 5.0,
        "patience": 3.0,
        "api_key": None,
        "devices": 1,
    }
    return ServerSettings("server", list(urls), **(known | more))  # type: ignore[arg-type]


def ask(text: str) -> Request:
    return Request(({"role": "user", "content": text},), "r", Sampling(0.6, 0.95, 10), 1)


def run(engine: ServerEngine, requests: list[Request], seconds: float = 20.0) -> dict[str, Any]:
    for request in requests:
        engine.submit(request)
    found: dict[str, Any] = {}
    deadline = time.monotonic() + seconds
    while len(found) < len(requests) and time.monotonic() < deadline:
        found.update({completion.key: completion for completion in engine.poll()})
    return found


@pytest.fixture
def stubs():
    made: list[Stub] = []

    def make(behave: Callable[[dict], Answer | None], port: int = 0) -> Stub:
        made.append(Stub(behave, port))
        return made[-1]

    yield make
    for stub in made:
        stub.stop()


def test_requests_are_complete_and_completions_return(stubs):
    stub = stubs(echo)
    engine = ServerEngine(settings(stub.url))
    requests = [ask(f"number {i}") for i in range(30)]
    found = run(engine, requests)
    assert [found[request.key].text for request in requests] == [f"re: number {i}" for i in range(30)]
    assert found[requests[0].key].engine == "server vllm 9.9" and found[requests[0].key].completion_tokens == 3
    body = next(body for body in stub.seen if body["messages"][0]["content"] == "number 7")
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "number 7"}], "temperature": 0.6, "top_p": 0.95,
        "max_tokens": 10, "seed": requests[7].seed,
    }  # fmt: skip
    engine.close()


def test_a_request_says_how_to_prompt_and_what_the_settings_add(stubs, tmp_path):
    stub, template = stubs(echo), tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    lock = Lock("teachers/t", "m", "0", True, {}, template=str(template), template_arguments={"thinking": True})
    engine = ServerEngine(settings(stub.url, extra_body={"reasoning_effort": "high"}, system_role=False), lock)
    system = {"role": "system", "content": "be brief"}
    request = Request((system, {"role": "user", "content": "why"}), "r", Sampling(0.6, 0.95, 10, top_k=5, stop=["END"]), 1)
    run(engine, [request])
    (body,) = stub.seen
    assert body["messages"] == [{"role": "user", "content": "be brief\n\nwhy"}]
    assert body["chat_template_kwargs"] == {"thinking": True} and body["chat_template"] == "{{ messages }}"
    assert (body["reasoning_effort"], body["top_k"], body["stop"]) == ("high", 5, ["END"])
    engine.close()


def test_several_servers_share_the_work(stubs):
    def slow(body: dict) -> Answer:
        time.sleep(0.02)
        return echo(body)

    a, b = stubs(slow), stubs(slow)
    engine = ServerEngine(settings(a.url, b.url))
    assert len(run(engine, [ask(str(i)) for i in range(40)])) == 40
    assert min(len(a.seen), len(b.seen)) >= 10
    engine.close()


@pytest.mark.parametrize(
    "failure",
    [
        *((status, {"error": "boom"}) for status in (408, 429, 500, 503)),
        (503, b"busy"),
        (200, b"<html>"),
        None,
    ],
)
def test_transient_failures_are_retried_and_nothing_is_lost(stubs, failure):
    count = iter(range(10**6))
    stub = stubs(lambda body: failure if next(count) % 5 == 0 else echo(body))
    engine = ServerEngine(settings(stub.url))
    found = run(engine, [ask(str(i)) for i in range(12)])
    assert len(found) == 12
    engine.close()


def test_a_server_that_is_down_does_not_stop_the_others(stubs):
    alive = stubs(echo)
    engine = ServerEngine(settings("http://127.0.0.1:9/v1", alive.url))
    assert len(run(engine, [ask(str(i)) for i in range(20)])) == 20
    engine.close()


def test_a_server_that_comes_back_within_patience_finishes_the_run(stubs):
    first = stubs(echo)
    engine = ServerEngine(settings(first.url, patience=15.0))
    assert len(run(engine, [ask("before")])) == 1
    first.stop()
    threading.Timer(2.0, lambda: stubs(echo, first.port)).start()
    assert len(run(engine, [ask(str(i)) for i in range(10)])) == 10
    engine.close()


def test_servers_that_never_answer_are_named_in_one_error():
    urls = ("http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1")
    engine = ServerEngine(settings(*urls, patience=1.0))
    with pytest.raises(
        EngineError, match=r"no answer from http://127.0.0.1:9/v1, http://127.0.0.1:10/v1 for 1 s .*start the server"
    ):
        run(engine, [ask(str(i)) for i in range(5)])
    with pytest.raises(EngineError):
        engine.poll()
    engine.close()


def test_patience_starts_at_the_first_failure_not_while_idle(stubs):
    count = iter(range(100))
    stub = stubs(lambda body: (503, b"busy") if next(count) == 1 else echo(body))
    engine = ServerEngine(settings(stub.url, patience=1.0))
    assert len(run(engine, [ask("one")])) == 1
    time.sleep(1.5)
    assert len(run(engine, [ask("two")])) == 1
    engine.close()


def test_a_server_with_only_invalid_answers_is_given_up(stubs):
    stub = stubs(lambda body: (200, {"choices": [{"message": {"content": "x"}}]}))
    engine = ServerEngine(settings(stub.url, patience=1.0))
    with pytest.raises(EngineError, match=r"no answer from .* for 1 s \(last: .*an answer of an unknown form"):
        run(engine, [ask("x")])
    assert len(stub.seen) < 10
    engine.close()


def test_a_hanging_request_times_out_and_is_retried(stubs):
    count = iter(range(100))
    stub = stubs(lambda body: time.sleep(30) if next(count) == 0 else echo(body))
    engine = ServerEngine(settings(stub.url, timeout=0.5))
    assert len(run(engine, [ask("x")])) == 1
    engine.close()


@pytest.mark.parametrize(("status", "text"), [(401, "bad key"), (404, "model m does not exist"), (410, "gone"), (501, "no")])
def test_what_holds_for_all_requests_ends_the_run_at_once(stubs, status, text):
    stub = stubs(lambda body: (status, {"error": text}))
    engine = ServerEngine(settings(stub.url))
    with pytest.raises(EngineError, match=f"{stub.url} refuses: status {status}: .*{text}"):
        run(engine, [ask("x")], 5.0)
    assert len(stub.seen) == 1
    engine.close()


FILTERED = (400, {"error": "filtered by the content policy"})


@pytest.mark.parametrize(
    ("answer", "words", "asked"),
    [
        (FILTERED, r"status 400: .*filtered by the content policy", 1),
        ((500, {"error": "boom"}), r"status 500: .*boom.*, 5 times", 5),
        ((200, {"choices": []}), r"an answer of an unknown form: .*, 5 times", 5),
        (said("x", "content_filter"), r"finish_reason content_filter, 5 times", 5),
        (said(""), r"an empty answer, 5 times", 5),
    ],
)
def test_a_problem_of_one_request_stays_its_own(stubs, monkeypatch, answer, words, asked):
    monkeypatch.setattr(openai_engine, "FIRST_PAUSE", 0.05)
    stub = stubs(lambda body: answer if body["messages"][0]["content"] == "3" else echo(body))
    engine = ServerEngine(settings(stub.url))
    requests = [ask(str(i)) for i in range(30)]
    found = run(engine, requests)
    bad = found[requests[3].key]
    assert len(found) == 30 and bad.finish_reason == REFUSED and re.match(words, bad.text)
    assert all(found[request.key].finish_reason == "stop" for request in requests if request is not requests[3])
    assert sum(body["messages"][0]["content"] == "3" for body in stub.seen) == asked
    engine.close()


def test_too_many_refusals_end_the_run_with_the_last_words(stubs):
    stub = stubs(lambda body: FILTERED)
    engine = ServerEngine(settings(stub.url, max_refused=0.5))
    with pytest.raises(EngineError, match=r"21 of 21 requests were refused, more than max_refused allows; .*filtered"):
        run(engine, [ask(str(i)) for i in range(60)])
    engine.close()


def test_refusals_within_their_share_end_nothing(stubs):
    stub = stubs(lambda body: FILTERED if int(body["messages"][0]["content"]) % 4 == 0 else echo(body))
    engine = ServerEngine(settings(stub.url, max_refused=0.5))
    found = run(engine, [ask(str(i)) for i in range(200)])
    assert sum(completion.finish_reason == REFUSED for completion in found.values()) == 50
    engine.close()


def overflow(most: int):
    """A server that gives at most so many tokens."""

    def behave(body: dict) -> Answer:
        words = "This model's maximum context length is 64 tokens. However, you requested more."
        return (400, {"error": words}) if body["max_tokens"] > most else said("short", "length")

    return behave


def test_a_prompt_without_room_is_not_an_error(stubs):
    stub = stubs(overflow(0))
    engine = ServerEngine(settings(stub.url))
    (completion,) = run(engine, [ask("x")]).values()
    assert (completion.finish_reason, completion.completion_tokens) == (PROMPT_TOO_LONG, 0)
    assert "maximum context length" in completion.text
    assert [body["max_tokens"] for body in stub.seen] == [10, 5, 2, 1]
    engine.close()


def test_fewer_tokens_are_asked_for_until_they_fit(stubs):
    stub = stubs(overflow(2))
    engine = ServerEngine(settings(stub.url))
    (completion,) = run(engine, [ask("x")]).values()
    assert (completion.text, [body["max_tokens"] for body in stub.seen]) == ("short", [10, 5, 2])
    engine.close()


@pytest.mark.parametrize(("prompt", "asked"), [(58, [10, 6]), (64, [10]), (20, [10, 5])])
def test_the_models_own_tokenizer_counts_what_is_left(stubs, monkeypatch, prompt, asked):
    monkeypatch.setattr(openai_engine, "counter_of", lambda lock: lambda messages: prompt)
    stub = stubs(overflow(6))
    engine = ServerEngine(settings(stub.url), Lock("teachers/t", "m", "0", True, {}))
    (completion,) = run(engine, [ask("x")]).values()
    assert [body["max_tokens"] for body in stub.seen] == asked
    assert completion.finish_reason == (PROMPT_TOO_LONG if prompt == 64 else "length")
    engine.close()


def test_prompts_are_counted_with_the_models_template(tmp_path):
    tokenizer = tokenizer_for("{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<|assistant|>")
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    count = openai_engine.counter_of(Lock("teachers/t", str(tmp_path), "0", True, {}))
    assert count is not None and count([{"role": "user", "content": "abc"}]) == 5
    assert openai_engine.counter_of(Lock("teachers/t", "nobody/nothing", "main", False, {})) is None
    assert openai_engine.counter_of(None) is None


def test_a_server_is_left_alone_as_long_as_it_asks(stubs):
    begun, count = time.monotonic(), iter(range(1000))
    stub = stubs(lambda body: (429, {"error": "slow down"}, {"Retry-After": "1.5"}) if next(count) < 4 else echo(body))
    engine = ServerEngine(settings(stub.url, patience=0.5))
    found = run(engine, [ask(str(i)) for i in range(8)])
    assert len(found) == 8, "it is there, and says when: patience is for servers that are not"
    assert time.monotonic() - begun >= 1.5
    engine.close()


def test_one_failing_request_does_not_rest_its_server(stubs):
    stub = stubs(lambda body: (500, b"boom") if body["messages"][0]["content"] == "0" else echo(body))
    engine = ServerEngine(settings(stub.url))
    engine.submit(ask("0"))
    found = run(engine, [ask(str(i)) for i in range(1, 20)])
    assert len(found) >= 19 and next(iter(engine.servers.values())).rests_until == 0.0
    engine.close()


def test_the_version_is_asked_once_per_server(stubs):
    a, b = stubs(echo), stubs(echo)
    engine = ServerEngine(settings(a.url, b.url))
    run(engine, [ask(str(i)) for i in range(40)])
    assert (a.asked_version, b.asked_version) == (1, 1)
    engine.close()


def test_a_fault_of_our_own_ends_the_run_instead_of_hanging(stubs, monkeypatch):
    engine = ServerEngine(settings(stubs(echo).url))
    monkeypatch.setattr(engine, "_pick", lambda: 1 / 0)
    with pytest.raises(EngineError, match="unexpected ZeroDivisionError"):
        run(engine, [ask("x")], 5.0)
    engine.close()


def test_reasoning_content_is_put_back_into_the_text(stubs):
    stub = stubs(lambda body: said("<answer> 5 </answer>", reasoning_content="2 + 3"))
    engine = ServerEngine(settings(stub.url))
    (completion,) = run(engine, [ask("x")]).values()
    assert completion.text == "<think>2 + 3</think><answer> 5 </answer>"
    engine.close()


def test_the_api_key_comes_from_the_environment_and_never_leaks(stubs, monkeypatch, capfd):
    monkeypatch.setenv("TEST_KEY", KEY)
    stub = stubs(lambda body: (401, {"error": f"{KEY} is no key"}))
    engine = ServerEngine(settings(stub.url, api_key="TEST_KEY"))
    with pytest.raises(EngineError) as caught:
        run(engine, [ask("x")], 5.0)
    assert stub.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value) and "***" in str(caught.value)
    out, err = capfd.readouterr()
    assert KEY not in out + err and KEY not in repr(engine.settings)
    engine.close()
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(EngineError, match="TEST_KEY is empty"):
        ServerEngine(settings(stub.url, api_key="TEST_KEY"))


def test_requests_in_flight_stay_within_the_limit(stubs):
    now, most, lock = 0, 0, threading.Lock()

    def busy(body):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.03)
        with lock:
            now -= 1
        return echo(body)

    stub = stubs(busy)
    engine = ServerEngine(settings(stub.url, max_num_seqs=4))
    assert len(run(engine, [ask(str(i)) for i in range(30)])) == 30
    assert 2 <= most <= 4
    engine.close()


def test_pauses_double_up_to_a_limit_and_one_failure_counts_once(monkeypatch):
    clock: Any = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(openai_engine, "time", clock)
    monkeypatch.setattr(openai_engine, "random", SimpleNamespace(uniform=lambda low, high: 1.0))
    server, pauses = Server("http://x/v1/"), []
    for _ in range(12):
        server.rest(None)
        server.rest(None)
        pauses.append(server.rests_until - clock.now)
        clock.now = server.rests_until
    first, longest = openai_engine.FIRST_PAUSE, openai_engine.LONGEST_PAUSE
    assert server.url == "http://x/v1" and pauses == pytest.approx([min(first * 2**i, longest) for i in range(12)])
    server.answered()
    assert server.pause == first


def test_requests_go_to_the_server_with_the_fewest_in_flight_that_does_not_rest():
    engine = ServerEngine(settings("http://a/v1", "http://b/v1", "http://c/v1"))
    a, b, c = engine.servers.values()
    a.in_flight, b.in_flight, c.in_flight = 3, 1, 0
    c.rests_until = time.monotonic() + 1000
    assert engine._pick() is b
    b.rests_until = a.rests_until = c.rests_until
    assert engine._pick() is None
    engine.close()


def test_nothing_is_in_flight_once_all_is_answered(stubs):
    engine = ServerEngine(settings(stubs(echo).url))
    run(engine, [ask(f"number {i}") for i in range(5)])
    assert [server.in_flight for server in engine.servers.values()] == [0]
    engine.close()


def test_what_came_before_an_error_is_handed_out_first():
    engine = ServerEngine(settings("http://a/v1"))
    before = Completion("k", "x", "stop", 1, 1, "server")
    engine.done.put(before)
    engine.done.put(EngineError("gone"))
    assert engine.poll() == [before]
    for _ in range(2):
        with pytest.raises(EngineError, match="gone"):
            engine.poll()
    engine.close()


def test_servers_listed_in_a_folder_come_and_go(stubs, tmp_path, monkeypatch):
    monkeypatch.setattr(openai_engine, "LOOK_AGAIN", 0.0)
    first, second = stubs(echo), stubs(echo)
    engine = ServerEngine(settings(f"file:{tmp_path}"))
    engine.submit(ask("early"))
    (tmp_path / "1").write_text(f"{first.url}\n")
    found: list[Completion] = []
    while not found:
        found = engine.poll()
    assert found[0].text == "re: early" and not second.seen
    for name, content in (("2.tmp", b"not yet"), (".nfs1", b"http://x/v1"), ("empty", b""), ("odd", b"\xff")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "2").write_text(f"{second.url}\n")
    (tmp_path / "1").unlink()
    before = len(first.seen)
    assert len(run(engine, [ask(f"number {i}") for i in range(5)])) == 5
    assert len(first.seen) == before and len(second.seen) == 5
    engine.close()


def test_where_no_server_is_listed_patience_runs_out(tmp_path):
    engine = ServerEngine(settings(f"file:{tmp_path}", patience=0.3))
    with pytest.raises(EngineError, match=rf"no answer from file:{tmp_path} for 0.3 s \(last: .*no server is listed there"):
        run(engine, [ask("anybody")])
    engine.close()
