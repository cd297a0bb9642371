"""perplexity: what is known is neither scored nor tokenised again."""

import json
import math
from pathlib import Path

import pytest

from distillery.core.files import write_json
from distillery.core.formats import STUDY
from distillery.core.response_parts import columns_of
from distillery.core.schemas import FAIL, PASS, PERPLEXITY, QUERY, TRACE
from distillery.core.stage import read_run
from distillery.core.tables import read_table, write_table
from stages import perplexity
from tests.support.builders import make_query
from tests.support.template_tokenizer import tokenizer_for

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
SETTINGS = {"batch_tokens": 4096, "max_tokens": 256, "dtype": "float32"}


@pytest.fixture
def scorer(inside):
    """A tiny model with a chat template, and its lock."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    tokenizer = tokenizer_for(CHATML)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 32}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(inside / "scorer")
    tokenizer.save_pretrained(inside / "scorer")
    lock = {"role": "scorer", "id": str(inside / "scorer"), "revision": "r", "local": True, "files": {}}
    write_json(lock, "models/locks/roles/scorer.json")


@pytest.fixture
def ledger(inside, monkeypatch):
    monkeypatch.setattr(perplexity, "ROOT", inside / "ledger")
    return inside / "ledger"


def write(answers, parts=2, unverified=False):
    """Queries with one trace each, passed or failed."""
    queries = sorted((make_query(f"what is {name} ?") for name in answers), key=lambda query: query["id"])
    names = {make_query(f"what is {name} ?")["id"]: name for name in answers}
    traces = [
        dict.fromkeys(TRACE.names)
        | {"query_id": query["id"], "teacher": "t", "attempt": 1, "seed": 1, "verdict": answers[names[query["id"]]]}
        | columns_of(f"<think> {names[query['id']]} </think> <answer> 5 </answer>", STUDY)
        for query in queries
    ]
    write_table(queries, "data/queries", QUERY, parts)
    write_table(traces, "data/traces/t", TRACE, parts)
    Path("params.yaml").write_text(json.dumps({"perplexity": SETTINGS, "student_format": STUDY, "unverified": unverified}))


def run(monkeypatch):
    """(perplexities by query, rows scored now, dialogues tokenised now)."""

    def counted(template, dialogues):
        tokenised.append(len(dialogues))
        return real(template, dialogues)

    tokenised: list[int] = []
    real = perplexity.tokenize
    monkeypatch.setattr(perplexity, "tokenize", counted)
    perplexity.main("t")
    monkeypatch.setattr(perplexity, "tokenize", real)
    found = read_table("data/perplexity/t", PERPLEXITY).to_pylist()
    about = read_run("metrics/perplexity/t.json")
    assert about is not None
    return {row["query_id"]: row["perplexity"] for row in found}, about["scored"], sum(tokenised)


def test_a_second_run_tokenises_nothing_and_new_traces_only_cost_themselves(scorer, ledger, monkeypatch):
    answers = {"one": PASS, "two": PASS, "three": FAIL}
    write(answers)
    first, scored, tokenised = run(monkeypatch)
    assert len(first) == 2 and all(value > 1 for value in first.values()) and (scored, tokenised) == (2, 2)
    assert run(monkeypatch) == (first, 0, 0)
    write(answers | {"four": PASS})
    more, scored, tokenised = run(monkeypatch)
    assert first.items() < more.items() and (scored, tokenised) == (1, 1)


def test_scores_that_are_known_by_their_tokens_alone_are_taken_over(scorer, ledger, monkeypatch):
    """As the ledger had them before, and where only the code that tokenises has changed."""
    write({"one": PASS, "two": PASS})
    first, _, _ = run(monkeypatch)
    monkeypatch.setattr(perplexity, "hash_code", lambda names: "changed")
    assert run(monkeypatch) == (first, 0, 2)
    assert run(monkeypatch) == (first, 0, 0)


def test_first_attempts_are_scored_whatever_their_verdict_where_they_are_wanted(scorer, ledger, monkeypatch):
    write({"one": PASS, "two": FAIL}, unverified=True)
    found, scored, _ = run(monkeypatch)
    assert len(found) == scored == 2


def test_a_text_that_the_template_rejects_has_none(scorer, ledger, monkeypatch, inside):
    tokenizer_for(CHATML + "{% if 'two' in messages[0].content %}{{ raise_exception('no') }}{% endif %}").save_pretrained(
        inside / "scorer"
    )
    write({"one": PASS, "two": PASS})
    found, scored, _ = run(monkeypatch)
    assert scored == 1 and sorted(map(math.isnan, found.values())) == [False, True]
