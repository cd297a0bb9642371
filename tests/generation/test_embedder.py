"""Embeddings are computed once, cached, and split over devices."""

import hashlib
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from distillery.core.model_locks import Lock
from distillery.core.schemas import QUERY
from distillery.generation import embedder
from distillery.generation.embedder import CachedEmbedder, Embedder
from distillery.generation.vector_store import Vectors
from stages.similarity import nearest_of
from tests.support.builders import make_query

TEXTS = ["one", "two", "three", "two"]


class Counting:
    """One vector per text, derived from its hash; records the texts, and raises at the text ``fatal``."""

    def __init__(self, fatal=None):
        self.asked, self.fatal = [], fatal

    def __call__(self, texts):
        if self.fatal in texts:
            raise KeyboardInterrupt
        self.asked += texts
        found = np.array([list(hashlib.sha256(text.encode()).digest()) for text in texts], np.float32) - 127.5
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_an_interrupted_run_embeds_only_missing_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(embedder, "AT_ONCE", 1)
    first = Counting(fatal="three")
    with pytest.raises(KeyboardInterrupt):
        CachedEmbedder(first, Vectors("v", tmp_path))(TEXTS)
    assert first.asked == ["one", "two"]
    second, third = Counting(), Counting()
    embed = CachedEmbedder(second, Vectors("v", tmp_path))
    found = embed(TEXTS)
    assert second.asked == ["three"] and embed.embedded == 1
    assert np.array_equal(CachedEmbedder(third, Vectors("v", tmp_path))(TEXTS), found) and third.asked == []
    assert np.array_equal(found[1], found[3]) and found == pytest.approx(Counting()(TEXTS), abs=1e-3)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr': '<f2'"])
def test_partially_written_files_are_skipped(tmp_path, content):
    Vectors("v", tmp_path).add(["a" * 32], np.ones((1, 4)))
    for name in ("part-0.tmp", "part-0.npy"):
        (tmp_path / "v" / name).write_bytes(content)
    known = Vectors("v", tmp_path)
    assert "a" * 32 in known and "b" * 32 not in known and known.of(["a" * 32]).tolist() == [[1.0] * 4]


def test_more_files_than_may_be_open_at_once(tmp_path):
    known = Vectors("v", tmp_path)
    keys = [f"{i:032}" for i in range(60)]
    opened = len(list(Path("/proc/self/fd").iterdir()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, hard))
    try:
        for i, key in enumerate(keys):
            known.add([key], np.full((1, 4), i))
        assert Vectors("v", tmp_path).of(keys)[:, 0].tolist() == list(range(60))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_fresh_and_cached_vectors_give_the_same_cosines(tmp_path):
    queries = [make_query("one"), make_query("two"), make_query("four")]
    queries[2]["messages"] = [{"role": "user", "content": "three"}, {"role": "assistant", "content": "."}, *TWO]
    table, items = pa.Table.from_pylist(queries, QUERY), [{"id": "b-1"}, {"id": "b-2"}]
    found = []
    for _ in range(2):
        embed = CachedEmbedder(Counting(), Vectors("v", tmp_path))
        found.append(nearest_of(table, embed, items, embed(["two", "five"])))
    assert found[0].equals(found[1])
    assert found[0]["benchmark_item"].to_pylist()[1:] == ["b-1", "b-1"], "the nearest of a dialogue's user turns counts"
    assert found[0]["cosine"].to_pylist()[1:] == [1.0, 1.0]


TWO = [{"role": "user", "content": "two"}]


def test_a_query_without_a_user_turn_is_near_nothing(tmp_path):
    row = make_query() | {"messages": [{"role": "system", "content": "s"}]}
    embed = CachedEmbedder(Counting(), Vectors("v", tmp_path))
    found = nearest_of(pa.Table.from_pylist([row], QUERY), embed, [{"id": "b-1"}], embed(["x"]))
    assert found.to_pylist() == [{"id": row["id"], "benchmark_item": "", "cosine": -1.0}]


@pytest.fixture(scope="module")
def lock(tmp_path_factory) -> Lock:
    """A tiny embedder with random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel

    from mini.judge_data import prompts
    from mini.tokenizer import build

    folder: Path = tmp_path_factory.mktemp("embedder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = build("", prompts())
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    words = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[words, Pooling(16)], device="cpu").save(str(folder / "whole"))
    return Lock("embedder", str(folder / "whole"), "r", True, {})


@pytest.mark.exhaustive
@pytest.mark.slow
def test_copies_on_several_devices_share_the_work(lock, monkeypatch):
    texts = [f"how many apples and {number} now ?" for number in range(40)]
    alone = Embedder(lock, 4, 32, "float32")
    one = alone(texts)
    assert np.linalg.norm(one, axis=1) == pytest.approx(1.0, abs=1e-5) and alone.pool is None
    monkeypatch.setattr(embedder, "devices", lambda: ["cpu", "cpu"])
    two = Embedder(lock, 4, 32, "float32")
    try:
        assert two(texts) == pytest.approx(one, abs=1e-5) and two.pool is not None
    finally:
        two.close()
