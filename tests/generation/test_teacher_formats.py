"""Every teacher's format through the loop: by vLLM, with markers that are special tokens, and by a server."""

from functools import partial

import pytest

from distillery.core.formats import FORMATS, STUDY, TAGS
from distillery.core.model_locks import Lock
from distillery.core.response_parts import parts_of
from distillery.generation.cached_engine import LedgerEngine
from distillery.generation.config import Sampling, VllmSettings
from distillery.generation.factory import start
from distillery.generation.ledger import Ledger
from distillery.generation.openai_engine import ServerEngine
from distillery.verification.distiller import Distill, Distiller, trace_rows
from stages.distill import ask_for
from tests.generation.test_openai_engine import Stub, said, settings
from tests.support.builders import make_query
from tests.support.response_texts import SAID, THOUGHT, WRITES
from tests.verification.test_distiller import Equal

SAMPLING = Sampling(0.6, 0.95, 300)


def distilled(engine: LedgerEngine, name: str, lock: Lock, question: str | None = None) -> dict:
    """The trace of one query, whose teacher writes in this format."""
    distiller = Distiller(Distill(1, 0, 4), engine, Equal(), partial(ask_for, lock, SAMPLING, ""), name)
    for _ in distiller.run([[make_query(question or f"format {name}", SAID)]]):
        pass
    (row,) = trace_rows(distiller.take_settled(), "t")
    return row


@pytest.fixture(scope="module")
def forced(tmp_path_factory):
    """vLLM with a tiny random model that writes what a logits processor makes it write."""
    pytest.importorskip("vllm")
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from tests.support.forced_outputs import TEMPLATE, TOKENIZER

    folder = tmp_path_factory.mktemp("forced")
    shape = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "max_position_embeddings": 1024,
        "head_dim": 32,
    }
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=len(TOKENIZER), **shape, **heads)).save_pretrained(folder)
    TOKENIZER.chat_template = TEMPLATE
    TOKENIZER.save_pretrained(folder)
    arguments = {"logits_processors": ["tests.support.forced_outputs:Forced"]}
    served = VllmSettings("vllm", "float32", 1024, 8, 1, 1, 1, 0.9, True, arguments=arguments)
    lock = Lock("teachers/t", str(folder), "0", True, {})
    engine = LedgerEngine(Ledger("t", folder / "ledger"), 1024, lambda: start(lock, served, in_subprocess=True))
    yield engine, lock
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_markers_that_are_special_tokens_reach_the_trace(forced, name):
    engine, lock = forced
    row = distilled(engine, name, lock)
    assert row["text"] == WRITES[name] and parts_of(row) == (THOUGHT, SAID) and row["verdict"] == "pass"


@pytest.fixture(scope="module")
def stub():
    made = Stub(lambda body: said(WRITES[body["messages"][-1]["content"].split("format ")[1]]))
    yield made
    made.stop()


@pytest.mark.parametrize("name", FORMATS)
def test_the_text_of_a_server_is_read(stub, tmp_path, name):
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ServerEngine(settings(stub.url, max_model_len=4096)))
    row = distilled(engine, name, Lock("teachers/t", "m", "0", True, {}))
    engine.close()
    assert parts_of(row) == (THOUGHT, SAID) and row["verdict"] == "pass"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("name", [TAGS, "harmony", "gemma"])
def test_a_server_that_parsed_the_thought_out_is_read_the_same(tmp_path, name, field):
    stub = Stub(lambda body: said(SAID, **{field: THOUGHT}))
    engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ServerEngine(settings(stub.url, max_model_len=4096)))
    row = distilled(engine, name, Lock("teachers/t", "m", "0", True, {}))
    engine.close()
    stub.stop()
    assert parts_of(row) == (THOUGHT, SAID) and row["verdict"] == "pass"


def test_another_format_reads_the_same_ledger_again(tmp_path):
    stub = Stub(lambda body: said(WRITES[TAGS]))
    lock, found = Lock("teachers/t", "m", "0", True, {}), []
    for name in (STUDY, TAGS, "granite"):
        engine = LedgerEngine(Ledger("t", tmp_path), 4096, lambda: ServerEngine(settings(stub.url, max_model_len=4096)))
        row = distilled(engine, name, lock, "how much ?")
        found.append((row["verdict"], parts_of(row), engine.asked))
        engine.close()
    stub.stop()
    read = ("pass", (THOUGHT, SAID), 0)
    assert found == [("fail", (THOUGHT, None), 1), read, read]
