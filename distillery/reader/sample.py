"""A bounded sample for a page that works without a server: the same rows for the same data and seed."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

from distillery.core.config import NonNegative, Section
from distillery.core.schemas import MALFORMED
from distillery.core.tables import read_table
from distillery.reader import sources
from distillery.reader.records import Record, question_record, removed_record, removed_trace
from distillery.reader.rendering import html_of


@dataclass(frozen=True)
class Bounds(Section):
    """How much of each kind the page without a server holds."""

    queries: NonNegative
    """Queries per category."""
    removed: NonNegative
    """Removed rows per rule."""
    questions: NonNegative
    """Questions per benchmark."""


def drawn(keys: Iterable[tuple[str, str]], count: int, seed: int) -> list[str]:
    """So many ids of each kind, in a seeded order; ``keys`` are (kind, id)."""
    by_kind = defaultdict(list)
    for kind, key in keys:
        by_kind[kind].append((hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest(), key))
    return [key for kind in sorted(by_kind) for _, key in nsmallest(count, by_kind[kind])]


def pairs(folder: str, kind: str, key: str) -> Iterator[tuple[str, str]]:
    for table in sources.columns_of(folder, kind, key):
        yield from zip(table[kind].to_pylist(), table[key].to_pylist(), strict=True)


def sampled_queries(teachers: list[str], count: int, seed: int) -> list[Record]:
    ids = drawn(pairs(sources.QUERIES, "category", "id"), count, seed)
    return sources.query_records(ids, teachers)


def sampled_removed(teachers: list[str], count: int, seed: int) -> list[Record]:
    """Rows that each rule removed, of every stage that removes any."""
    twins = {row["id"]: row["question"] for rows in sources.questions().values() for row in rows}
    found = [malformed_record(i, row) for i, row in enumerate(sampled_malformed(count, seed))]
    for stage in sources.REMOVING:
        folder = f"{sources.REMOVED}/{stage}"
        ids = drawn(pairs(folder, "reason", "id"), count, seed)
        found += [removed_record(row, stage, twins) for row in sources.rows_among(folder, "id", ids)]
    for teacher in teachers:
        found += removed_traces(teacher, count, seed)
    return found


def removed_traces(teacher: str, count: int, seed: int) -> list[Record]:
    folder = f"{sources.REMOVED}/curate/{teacher}"
    ids = drawn(pairs(folder, "rejected_for", "query_id"), count, seed)
    queries = {row["id"]: row for row in sources.rows_of(sources.QUERIES, "id", ids)}
    return [removed_trace(row, queries.get(row["query_id"])) for row in sources.rows_of(folder, "query_id", ids)]


def sampled_malformed(count: int, seed: int) -> list[dict[str, Any]]:
    rows = read_table(f"{sources.REMOVED}/collect", MALFORMED).to_pylist()
    chosen = set(drawn(((row["reason"], row["where"]) for row in rows), count, seed))
    return [row for row in rows if row["where"] in chosen]


def malformed_record(number: int, row: dict[str, Any]) -> Record:
    about = {"query": "", "category": "", "source": row["where"], "score": None, "twin": "", "twin_html": ""}
    return about | {
        "id": f"collect-{number}",
        "rule": f"collect: {row['reason']}",
        "text": row["row"],
        "html": html_of(row["row"]),
    }


def sampled_questions(models: list[str], benchmarks: list[str], count: int, seed: int) -> list[Record]:
    """Questions of each benchmark with every model's samples."""
    asked = sources.questions()
    keys = ((benchmark, f"{benchmark}/{row['id']}") for benchmark in benchmarks for row in asked[benchmark])
    chosen = set(drawn(keys, count, seed))
    samples = defaultdict(list)
    for model in models:
        for row in read_table(f"{sources.SAMPLES}/{model}").to_pylist():
            if (key := f"{row['benchmark']}/{row['question_id']}") in chosen:
                samples[key].append((model, row))
    return [
        question_record(benchmark, row, samples[f"{benchmark}/{row['id']}"])
        for benchmark in benchmarks
        for row in asked[benchmark]
        if f"{benchmark}/{row['id']}" in chosen
    ]
