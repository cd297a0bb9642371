"""decontaminate: drops queries that repeat a benchmark question. Every rejected row names the item, method and score."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages import params, provenance
from stages.params import Section
from stages.provenance import say
from stages.tables import QUERY, DataError, read, read_json_lines, write

EVIDENCE = QUERY.append(pa.field("reason", pa.string()))
for _field in (("benchmark_item", pa.string()), ("score", pa.float64())):
    EVIDENCE = EVIDENCE.append(pa.field(*_field))


SHORTEST = 4


@dataclass(frozen=True)
class Decontaminate(Section):
    """``ngram`` in words, ``short_ngram`` for questions shorter than that; ``max_cosine`` is still allowed."""

    ngram: int
    short_ngram: int
    max_cosine: float


def words(text: str) -> tuple[str, ...]:
    """The words and numbers of a text, without case, accents' spelling, punctuation and LaTeX signs."""
    plain = re.sub(r"\\[dt]frac", r"\\frac", unicodedata.normalize("NFKC", text).casefold())
    return tuple(re.findall(r"[^\W_]+", plain))


def grams(tokens: tuple[str, ...], n: int) -> set[tuple[str, ...]]:
    return {tokens[i : i + n] for i in range(len(tokens) - n + 1)}


class Benchmarks:
    """Every benchmark question, findable by its whole text and by its n-grams."""

    def __init__(self, items: list[dict[str, str]], settings: Decontaminate):
        self.settings = settings
        self.exact = {words(item["question"]): item["id"] for item in reversed(items)}
        self.by_gram: dict[int, dict[tuple[str, ...], str]] = {}
        for item in items:
            tokens = words(item["question"])
            n = self.size(len(tokens))
            for gram in grams(tokens, n) if n >= SHORTEST else ():
                self.by_gram.setdefault(n, {}).setdefault(gram, item["id"])

    def size(self, length: int) -> int:
        """How long an n-gram a question of so many words is looked for by; a very short one is looked for whole."""
        return self.settings.ngram if length >= self.settings.ngram else min(self.settings.short_ngram, length)

    def match(self, text: str) -> tuple[str, str, float] | None:
        """(method, item, score) of the first method that finds the text, or None."""
        tokens = words(text)
        if tokens and tokens in self.exact:
            return "exact", self.exact[tokens], 1.0
        for n, index in sorted(self.by_gram.items(), reverse=True):
            hits = Counter(index[gram] for gram in grams(tokens, n) if gram in index)
            if hits:
                item, count = min(hits.items(), key=lambda hit: (-hit[1], hit[0]))
                return "ngram", item, float(count)
        return None


def decontaminate(
    queries: list[dict[str, Any]], nearest: dict[str, tuple[str, float]], benchmarks: Benchmarks
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Splits queries into kept and rejected; ``nearest`` gives each id its nearest item and cosine."""
    kept, rejected = [], []
    for query in queries:
        found = benchmarks.match("\n".join(message["content"] for message in query["messages"]))
        item, cosine = nearest[query["id"]]
        if found is None and cosine > benchmarks.settings.max_cosine:
            found = ("embedding", item, cosine)
        if found is None:
            kept.append(query)
        else:
            method, item, score = found
            rejected.append(query | {"reason": method, "benchmark_item": item, "score": score})
    return kept, rejected


def report(rejected: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many queries each benchmark took away, by method."""
    counts: dict[str, Counter[str]] = {}
    for row in rejected:
        counts.setdefault(row["benchmark_item"].rsplit("-", 1)[0], Counter())[row["reason"]] += 1
    return {benchmark: dict(sorted(count.items())) for benchmark, count in sorted(counts.items())}


def main() -> None:
    settings = params.load(Decontaminate, "decontaminate")
    with provenance.record("metrics/decontaminate.json", "pyarrow") as metrics:
        queries = read("data/clean", QUERY).to_pylist()
        nearest = {row["id"]: (row["benchmark_item"], row["cosine"]) for row in read("data/similarity").to_pylist()}
        items = [row for path in sorted(Path("data/benchmarks").glob("*.jsonl")) for row in read_json_lines(path)]
        kept, rejected = decontaminate(queries, nearest, Benchmarks(items, settings))
        if not kept:
            raise DataError(f"data/clean: all {len(queries)} queries look like benchmark questions; see `decontaminate`")
        write(kept, "data/decontaminated", QUERY)
        write(rejected, "data/rejected/decontaminate", EVIDENCE)
        metrics.update(kept=len(kept), rejected=report(rejected))
    say("decontaminate", f"kept {len(kept)} of {len(queries)}; dropped {metrics['rejected']}")


if __name__ == "__main__":
    provenance.run(main)
