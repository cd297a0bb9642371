"""Twenty servers that fail at random: nothing is lost, nothing comes twice, and every request's end is explained."""

from collections import Counter

import pytest

from bench.servers import started
from distillery.generation import openai_engine
from distillery.generation.engine import REFUSED
from distillery.generation.openai_engine import ServerEngine
from tests.generation.test_openai_engine import ask, settings


@pytest.mark.slow
def test_no_fault_loses_doubles_or_hides_a_request(monkeypatch):
    monkeypatch.setattr(openai_engine, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(openai_engine, "TRIES", 20)
    texts = [f"{i}{' forbidden' if i % 50 == 0 else ''}" for i in range(2000)]
    requests = {ask(text).key: text for text in texts}
    found: Counter[str] = Counter()
    with started("tests.support.faulty_servers", "20", "0.3", "0", count=20) as urls:
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
        assert not engine.poll() and sum(server.in_flight for server in engine.servers.values()) == 0
        engine.close()
    assert found == Counter(dict.fromkeys(requests, 1))
