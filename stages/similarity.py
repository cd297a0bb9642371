"""similarity: the benchmark question nearest to any user turn of a query, by the cosine of sentence embeddings."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages import locks, params, provenance
from stages.params import Section
from stages.provenance import device, say
from stages.tables import QUERY, read, read_json_lines, write

SIMILARITY = pa.schema([("id", pa.string()), ("benchmark_item", pa.string()), ("cosine", pa.float32())])


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


def main() -> None:
    settings = params.load(Similarity, "similarity")
    lock = locks.read("embedder")
    with provenance.record("metrics/similarity.json", "sentence-transformers", "torch", device=device()) as metrics:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(lock.id, revision=lock.hub_revision)
        model.max_seq_length = settings.max_tokens
        embed = lambda texts: model.encode(texts, batch_size=settings.batch, normalize_embeddings=True)  # noqa: E731
        queries = read("data/clean", QUERY).to_pylist()
        items = [row for path in sorted(Path("data/benchmarks").glob("*.jsonl")) for row in read_json_lines(path)]
        turns = [(q["id"], m["content"]) for q in queries for m in q["messages"] if m["role"] == "user"]
        index, cosine = nearest(embed([text for _, text in turns]), embed([item["question"] for item in items]))
        best: dict[str, tuple[float, str]] = {}
        for (key, _), i, c in zip(turns, index, cosine, strict=True):
            best[key] = max(best.get(key, (-1.0, "")), (round(float(c), 5), items[i]["id"]))
        rows = [{"id": key, "benchmark_item": item, "cosine": c} for key, (c, item) in sorted(best.items())]
        write(rows, "data/similarity", SIMILARITY)
        metrics.update(queries=len(rows), provenance={"models": locks.brief(lock)})
    say("similarity", f"{len(rows)} queries against {len(items)} benchmark questions; highest cosine {cosine.max():.3f}")


if __name__ == "__main__":
    provenance.run(main)
