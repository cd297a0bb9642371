"""similarity: the benchmark question nearest to any user turn of a query, by the cosine of sentence embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages import locks, params, provenance
from stages.params import Section
from stages.provenance import device, say
from stages.tables import QUERY, SIMILARITY, part_name, part_paths, read_json_lines, read_part, whole_folder, write_part

Embed = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Similarity(Section):
    """``batch`` in texts; ``max_tokens`` cuts longer texts for the embedder."""

    batch: int
    max_tokens: int


def nearest(queries: np.ndarray, items: np.ndarray, block: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """For unit vectors (n, d) and (m, d): the index of each query's nearest item and the cosine, both (n,)."""
    best = [(queries[i : i + block] @ items.T).argmax(1) for i in range(0, len(queries), block)]
    index = np.concatenate(best) if best else np.empty(0, int)
    return index, np.einsum("nd,nd->n", queries, items[index]) if len(index) else np.empty(0, np.float32)


def nearest_of(queries: pa.Table, embed: Embed, items: list[dict[str, str]], vectors: np.ndarray) -> pa.Table:
    """SIMILARITY of queries, in their order: of a query's user turns the one nearest to an item counts."""
    rows = [(i, m["content"]) for i, ms in enumerate(queries["messages"].to_pylist()) for m in ms if m["role"] == "user"]
    index, cosine = nearest(embed([text for _, text in rows]), vectors)
    best = [(-1.0, "")] * len(queries)
    for (row, _), i, c in zip(rows, index, cosine, strict=True):
        best[row] = max(best[row], (round(float(c), 5), items[i]["id"]))
    found = {"id": queries["id"], "benchmark_item": [item for _, item in best], "cosine": [c for c, _ in best]}
    return pa.table(found, SIMILARITY)


def main() -> None:
    settings = params.load(Similarity, "similarity")
    lock = locks.read("embedder")
    with provenance.record("metrics/similarity.json", "sentence-transformers", "torch", device=device()) as metrics:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(lock.id, revision=lock.hub_revision)
        model.max_seq_length = settings.max_tokens
        embed = lambda texts: model.encode(texts, batch_size=settings.batch, normalize_embeddings=True)  # noqa: E731
        items = [row for path in sorted(Path("data/benchmarks").glob("*.jsonl")) for row in read_json_lines(path)]
        vectors = embed([item["question"] for item in items])
        sources, count, highest = part_paths("data/clean"), 0, -1.0
        with whole_folder("data/similarity") as folder:
            for part, path in enumerate(sources):
                found = nearest_of(read_part(path, QUERY), embed, items, vectors)
                write_part(found, folder / part_name(part))
                count, highest = count + len(found), max(highest, *found["cosine"].to_pylist(), -1.0)
                say("similarity", f"{part + 1}/{len(sources)} parts, {count} queries")
        metrics.update(queries=count, provenance={"models": locks.brief(lock)})
    say("similarity", f"{count} queries against {len(items)} benchmark questions; highest cosine {highest:.3f}")


if __name__ == "__main__":
    provenance.run(main)
