"""decontaminate: removes queries that repeat a benchmark question. Every removed row names the item, method and score.

``exact``: the same words (`corpus.word_ngrams` says what a word is) as a whole question. ``ngram``: a run of words in common
with a question, and enough other words of it or of the query, too; the score is their share (`corpus.benchmark_index`).
``embedding``: a cosine, found by `similarity`, above ``max_cosine``.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Gt, Le

from distillery.core import config
from distillery.core.config import Section
from distillery.core.errors import DataError
from distillery.core.files import atomic_dir, read_json_lines
from distillery.core.progress import in_words, log
from distillery.core.runner import map_parts
from distillery.core.schemas import QUERY, SIMILARITY
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import matching_parts, part_name, read_part, write_part
from distillery.corpus.arrow_text import combine_chunks, joined
from distillery.corpus.benchmark_index import SHORTEST, Benchmarks, Found
from distillery.corpus.word_ngrams import suspects

EVIDENCE = QUERY.append(pa.field("reason", pa.string()))
for _field in (("benchmark_item", pa.string()), ("score", pa.float64()), ("matched", pa.string())):
    EVIDENCE = EVIDENCE.append(pa.field(*_field))


@dataclass(frozen=True)
class Decontaminate(Section):
    """What counts as a repeated benchmark question."""

    ngram: Annotated[int, Ge(SHORTEST)]
    """Words in a row that a query must share with a question to be compared with it."""
    short_ngram: Annotated[int, Ge(SHORTEST)]
    """The same for questions that have fewer than ``ngram`` words; where they have fewer still, all of them."""
    min_overlap: Annotated[float, Gt(0), Le(1)]
    """The share of a question's words, or of the query's, that must then be in common for the query to be removed."""
    max_cosine: Annotated[float, Ge(-1), Le(1)]
    """The highest cosine of embeddings that is still allowed."""


def evidence(messages: pa.Array, nearest: pa.Table, benchmarks: Benchmarks, max_cosine: float) -> dict[int, Found]:
    """Why each row to remove is removed; ``nearest`` holds every row's nearest item and its cosine."""
    cosines = nearest["cosine"].to_numpy()
    close = cosines > max_cosine
    rows = np.flatnonzero(suspects(messages, benchmarks.index) | close)
    items, texts = nearest["benchmark_item"].take(rows).to_pylist(), joined(messages).take(pa.array(rows)).to_pylist()
    found = {}
    for row, item, text in zip(rows.tolist(), items, texts, strict=True):
        match = benchmarks.match(text) or (Found("embedding", item, float(cosines[row]), "") if close[row] else None)
        if match:
            found[row] = match
    return found


def decontaminate(queries: pa.Table, nearest: pa.Table, benchmarks: Benchmarks, max_cosine: float) -> tuple[pa.Table, pa.Table]:
    """Splits queries into kept and rejected; ``nearest`` (SIMILARITY) has one row per query, in the same order."""
    if not queries["id"].equals(nearest["id"]):
        raise DataError("data/similarity: not of the queries in data/clean; run `dvc repro similarity`")
    found = evidence(combine_chunks(queries["messages"]), nearest, benchmarks, max_cosine)
    goes = np.zeros(len(queries), bool)
    goes[list(found)] = True
    rejected = queries.filter(pa.array(goes))
    for i, name in enumerate(EVIDENCE.names[len(QUERY) :]):
        values = pa.array([match[i] for match in found.values()], EVIDENCE.field(name).type)
        rejected = rejected.append_column(name, values)
    return queries.filter(pa.array(~goes)), rejected.cast(EVIDENCE)


def report(rejected: pa.Table) -> Counter[tuple[str, str]]:
    """How many queries were removed for each benchmark, by method."""
    items = rejected["benchmark_item"].to_pylist()
    return Counter((item.rsplit("-", 1)[0], method) for item, method in zip(items, rejected["reason"].to_pylist(), strict=True))


def nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (benchmark, method), count in sorted(counts.items()):
        found.setdefault(benchmark, {})[method] = count
    return found


def decontaminate_part(
    benchmarks: Benchmarks,
    max_cosine: float,
    queries: list[Path],
    nearest: list[Path],
    kept_to: Path,
    rejected_to: Path,
    part: int,
) -> dict[str, Any]:
    """Decontaminates one part; the counts of its rows."""
    tables = read_part(queries[part], QUERY), read_part(nearest[part], SIMILARITY)
    kept, rejected = decontaminate(*tables, benchmarks, max_cosine)
    write_part(kept, kept_to / part_name(part))
    write_part(rejected, rejected_to / part_name(part))
    return {"kept": len(kept), "rejected": [[*key, count] for key, count in report(rejected).items()]}


def main() -> None:
    settings = config.load(Decontaminate, "decontaminate")
    with record_metrics("metrics/decontaminate.json", "numba", "pyarrow") as (metrics, _):
        items = [row for path in sorted(Path("data/benchmarks").glob("*.jsonl")) for row in read_json_lines(path)]
        queries, nearest = matching_parts("data/clean", "data/similarity")
        benchmarks = Benchmarks(items, settings.ngram, settings.short_ngram, settings.min_overlap)
        with atomic_dir("data/decontaminated") as kept_to, atomic_dir("data/rejected/decontaminate") as rejected_to:
            work = partial(decontaminate_part, benchmarks, settings.max_cosine, queries, nearest, kept_to, rejected_to)
            results = map_parts("decontaminate", work, len(queries))
            kept = sum(part["kept"] for part in results)
            counts: Counter[tuple[str, str]] = Counter()
            for benchmark, method, count in (row for part in results for row in part["rejected"]):
                counts[benchmark, method] += count
            if not kept:
                raise DataError(f"data/clean: all {counts.total()} queries look like benchmark questions; see `decontaminate`")
        metrics.update(kept=kept, rejected=nested(counts))
    log("decontaminate", f"kept {kept} of {kept + counts.total()}; removed {in_words(metrics['rejected'])}")


if __name__ == "__main__":
    run_stage(main)
