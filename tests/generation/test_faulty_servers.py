"""Twenty servers that fail at random: nothing is lost, nothing comes twice, and every request's end is explained."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

import pytest

from distillery.generation import openai_engine
from distillery.generation.engine import REFUSED
from distillery.generation.openai_engine import ServerEngine
from tests.e2e.conftest import ROOT
from tests.generation.test_openai_engine import ask, settings


@contextmanager
def servers(count: int, share: float, seed: int = 0):
    """Urls of servers in a process of their own."""
    command = [sys.executable, "-m", "tests.support.faulty_servers", str(count), str(share), str(seed)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    try:
        yield [f"http://127.0.0.1:{process.stdout.readline().strip()}/v1" for _ in range(count)]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_no_fault_loses_doubles_or_hides_a_request(monkeypatch):
    monkeypatch.setattr(openai_engine, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(openai_engine, "TRIES", 20)
    texts = [f"{i}{' forbidden' if i % 50 == 0 else ''}" for i in range(2000)]
    requests = {ask(text).key: text for text in texts}
    found: Counter[str] = Counter()
    with servers(20, 0.3) as urls:
        engine = ServerEngine(settings(*urls, max_num_seqs=200, patience=20.0, timeout=5.0))
        for text in texts:
            engine.submit(ask(text))
        while sum(found.values()) < len(texts):
            for completion in engine.poll():
                found[completion.key] += 1
                text = requests[completion.key]
                if "forbidden" in text:
                    assert completion.finish_reason == REFUSED and "content policy" in completion.text
                else:
                    assert (completion.finish_reason, completion.text) == ("stop", f"re: {text}")
        assert not engine.poll() and sum(server.in_flight for server in engine.servers) == 0
        engine.close()
    assert found == Counter(dict.fromkeys(requests, 1))
