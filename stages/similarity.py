"""similarity: the benchmark question nearest to any user turn of a query, by the cosine of sentence embeddings.

Embeddings go into the ledger, some at a time: a killed run goes on where it was, another benchmark costs its own questions
only, and the embedder is loaded only where a text is new.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages import locks, params, provenance
from stages.batches import devices
from stages.ledger import ROOT
from stages.ledger.scores import key_of
from stages.ledger.vectors import Vectors
from stages.params import Positive, Section
from stages.provenance import device, say
from stages.tables import QUERY, SIMILARITY, part_name, part_paths, read_json_lines, read_part, whole_folder, write_part

AT_ONCE = 16_384
Embed = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Similarity(Section):
    """``batch`` in texts; ``max_tokens`` cuts longer texts for the embedder, which computes in ``dtype``."""

    batch: Positive
    max_tokens: Positive
    dtype: str


class Embedder:
    """Unit vectors of texts, by a copy of the model on every device; loaded at the first text."""

    def __init__(self, lock: locks.Lock, settings: Similarity):
        self.lock, self.settings = lock, settings
        self.pool: Any = None

    @cached_property
    def model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        chosen = {"dtype": self.settings.dtype}
        model = SentenceTransformer(self.lock.id, revision=self.lock.hub_revision, model_kwargs=chosen)
        model.max_seq_length = self.settings.max_tokens
        if len(where := devices()) > 1:
            self.pool = model.start_multi_process_pool(where)
        return model

    def __call__(self, texts: list[str]) -> np.ndarray:
        """(texts, size)"""
        model, size = self.model, self.settings.batch
        how = {"batch_size": size, "chunk_size": size, "pool": self.pool} if self.pool else {"batch_size": size}
        vectors: np.ndarray = model.encode(texts, normalize_embeddings=True, show_progress_bar=False, **how)
        return vectors

    def close(self) -> None:
        if self.pool:
            self.model.stop_multi_process_pool(self.pool)


class Remembering:
    """An embedder that embeds no text twice; ``embedded`` counts the texts that were new."""

    def __init__(self, embed: Embed, known: Vectors):
        self.embed, self.known, self.embedded = embed, known, 0

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Unit vectors of at least one text, (texts, size), as the ledger rounds them."""
        keys = list(map(key_of, texts))
        new = list({key: text for key, text in zip(keys, texts, strict=True) if key not in self.known}.items())
        for first in range(0, len(new), AT_ONCE):
            some = new[first : first + AT_ONCE]
            self.known.add([key for key, _ in some], self.embed([text for _, text in some]))
        self.embedded += len(new)
        found = self.known.of(keys)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def nearest(queries: np.ndarray, items: np.ndarray, block: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """For unit vectors (n, d) and (m, d): the index of each query's nearest item and the cosine, both (n,)."""
    best = [(queries[i : i + block] @ items.T).argmax(1) for i in range(0, len(queries), block)]
    index = np.concatenate(best) if best else np.empty(0, int)
    return index, np.einsum("nd,nd->n", queries, items[index]) if len(index) else np.empty(0, np.float32)


def nearest_of(queries: pa.Table, embed: Embed, items: list[dict[str, str]], vectors: np.ndarray) -> pa.Table:
    """SIMILARITY of queries, in their order: of a query's user turns the one nearest to an item counts."""
    rows = [(i, m["content"]) for i, ms in enumerate(queries["messages"].to_pylist()) for m in ms if m["role"] == "user"]
    index, cosine = nearest(embed([text for _, text in rows]), vectors) if rows else 2 * (np.empty(0),)
    best = [(-1.0, "")] * len(queries)
    for (row, _), i, c in zip(rows, index, cosine, strict=True):
        best[row] = max(best[row], (round(float(c), 5), items[i]["id"]))
    found = {"id": queries["id"], "benchmark_item": [item for _, item in best], "cosine": [c for c, _ in best]}
    return pa.table(found, SIMILARITY)


def main() -> None:
    settings, lock = params.load(Similarity, "similarity"), locks.read("embedder")
    known = Vectors(f"similarity-{key_of(lock.revision, settings.max_tokens, settings.dtype)[:16]}", ROOT)
    with (
        provenance.record("metrics/similarity.json", "sentence-transformers", "torch", device=device()) as metrics,
        closing(Embedder(lock, settings)) as embedder,
        whole_folder("data/similarity") as folder,
    ):
        items = [row for path in sorted(Path("data/benchmarks").glob("*.jsonl")) for row in read_json_lines(path)]
        sources, count, highest = part_paths("data/clean"), 0, -1.0
        total = sum(pq.read_metadata(path).num_rows for path in sources)
        embed = Remembering(embedder, known)
        vectors, begun = embed([item["question"] for item in items]), time.monotonic()
        for part, path in enumerate(sources):
            found = nearest_of(read_part(path, QUERY), embed, items, vectors)
            write_part(found, folder / part_name(part))
            count, highest = count + len(found), max(highest, *found["cosine"].to_pylist(), -1.0)
            left = (time.monotonic() - begun) / max(count, 1) * (total - count)
            say("similarity", f"{count}/{total} queries, {left:.0f} s left")
        metrics.update(queries=count, embedded=embed.embedded, provenance={"models": locks.brief(lock)})
    say(
        "similarity",
        f"{count} queries against {len(items)} benchmark questions, {embed.embedded} texts embedded now; "
        f"highest cosine {highest:.3f}",
    )


if __name__ == "__main__":
    provenance.run(main)
