"""similarity: the benchmark question nearest to any user turn of a query, by the cosine of sentence embeddings.

Embeddings go into the ledger in batches: a killed run resumes where it stopped, another benchmark costs its own questions
only, and the embedder is loaded only where a text is new.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core import config, model_locks
from distillery.core.config import ModelType, Positive, Section
from distillery.core.files import atomic_dir, read_json_lines
from distillery.core.progress import Progress, log
from distillery.core.schemas import QUERY, SIMILARITY
from distillery.core.stage import device, record_metrics, run_stage
from distillery.core.tables import part_name, part_paths, read_part, write_part
from distillery.generation.embedder import CachedEmbedder, Embed, Embedder
from distillery.generation.ledger import ROOT
from distillery.generation.score_store import key_of
from distillery.generation.vector_store import Vectors


@dataclass(frozen=True)
class Similarity(Section):
    """How texts are embedded."""

    batch: Positive
    """Texts per forward pass."""
    max_tokens: Positive
    """Longer texts are truncated to so many tokens."""
    dtype: ModelType
    """The embedder's data type."""


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


def vectors_of(lock: model_locks.Lock, settings: Similarity) -> Vectors:
    """The ledger's embeddings by this model, by its content; those of the first version, by its commit, are taken over."""
    name, before = (
        f"similarity-{key_of(model, settings.max_tokens, settings.dtype)[:16]}" for model in (lock.weights, lock.revision)
    )
    if (ROOT / before).is_dir() and not (ROOT / name).exists():
        (ROOT / before).rename(ROOT / name)
    return Vectors(name, ROOT)


def main() -> None:
    settings, lock = config.load(Similarity, "similarity"), model_locks.read("embedder")
    known = vectors_of(lock, settings)
    with (
        record_metrics("metrics/similarity.json", "sentence-transformers", "torch", device=device()) as (metrics, run),
        closing(Embedder(lock, settings.batch, settings.max_tokens, settings.dtype)) as embedder,
        atomic_dir("data/similarity") as folder,
    ):
        items = [row for path in sorted(Path("data/benchmarks").glob("*.jsonl")) for row in read_json_lines(path)]
        sources, count, highest = part_paths("data/clean"), 0, -1.0
        total = sum(pq.read_metadata(path).num_rows for path in sources)
        embed = CachedEmbedder(embedder, known)
        vectors, progress = embed([item["question"] for item in items]), Progress("similarity", "queries", total)
        for part, path in enumerate(sources):
            found = nearest_of(read_part(path, QUERY), embed, items, vectors)
            write_part(found, folder / part_name(part))
            count, highest = count + len(found), max(highest, *found["cosine"].to_pylist(), -1.0)
            progress.update(count)
        metrics.update(queries=count, highest_cosine=highest, provenance={"models": model_locks.brief(lock)})
        run["embedded"] = embed.embedded
    log(
        "similarity",
        f"{count} queries against {len(items)} benchmark questions, {embed.embedded} texts embedded now, the rest before; "
        f"highest cosine {highest:.3f}",
    )


if __name__ == "__main__":
    run_stage(main)
