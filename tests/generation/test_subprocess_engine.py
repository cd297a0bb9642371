import time
from functools import partial

import pytest

from distillery.core.errors import EngineError
from distillery.generation.config import Sampling
from distillery.generation.engine import Request
from distillery.generation.subprocess_engine import SubprocessEngine
from tests.support.scripted_engine import ScriptedEngine


def ask(text: str) -> Request:
    return Request(({"role": "user", "content": text},), "r", Sampling(0.6, 0.95, 10), 1)


def reverse(request: Request) -> str:
    return request.messages[-1]["content"][::-1]


def die(request: Request) -> str:
    import os

    os._exit(9)


def fail(request: Request) -> str:
    raise EngineError("vLLM died while it ran m: OutOfMemoryError")


def run(engine, requests):
    for request in requests:
        engine.submit(request)
    found: dict[str, str] = {}
    deadline = time.monotonic() + 60
    while len(found) < len(requests) and time.monotonic() < deadline:
        found.update({completion.key: completion.text for completion in engine.poll()})
    return found


@pytest.mark.slow
def test_copies_share_the_work_and_every_request_is_answered_once():
    engine = SubprocessEngine(partial(ScriptedEngine, reverse), copies=2)
    requests = [ask(f"text {i}") for i in range(20)]
    assert run(engine, requests) == {request.key: reverse(request) for request in requests}
    assert set(engine.in_flight.values()) == {0}
    engine.close()
    assert not any(process.is_alive() for process in engine.processes)


@pytest.mark.slow
def test_much_waiting_in_both_directions_blocks_neither_process():
    engine = SubprocessEngine(partial(ScriptedEngine, reverse))
    requests = [ask(f"{i} " + "x" * 500_000) for i in range(20)]
    assert run(engine, requests) == {request.key: reverse(request) for request in requests}
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize(("script", "why"), [(die, "died without a word"), (fail, "OutOfMemoryError")])
def test_a_process_that_dies_is_one_error(script, why):
    engine = SubprocessEngine(partial(ScriptedEngine, script))
    with pytest.raises(EngineError, match=why):
        run(engine, [ask("x")])
    engine.close()
