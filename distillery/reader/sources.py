"""Rows of single queries out of the pipeline's tables. Ids are sorted in a part, so a filter reads one row group of each."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distillery.core.files import read_json_lines
from distillery.core.tables import part_of, part_paths
from distillery.reader.records import Record, query_record

QUERIES, TRACES, REMOVED, PERPLEXITY = "data/queries", "data/traces", "data/rejected", "data/perplexity"
SAMPLES, BENCHMARKS = "data/samples", "data/benchmarks"
REMOVING = ("clean", "decontaminate", "constrain")
"""Stages that remove queries; `curate` removes traces, `collect` what is no query."""


def rows_of(folder: str | Path, column: str, keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The rows whose ``column``, a query's id, is among ``keys``."""
    paths, wanted = part_paths(folder), defaultdict(list)
    for key in keys:
        wanted[part_of(key, len(paths))].append(key)
    for part, some in sorted(wanted.items()):
        yield from pq.read_table(paths[part], filters=[(column, "in", some)]).to_pylist()


def rows_among(folder: str | Path, column: str, keys: list[str]) -> Iterator[dict[str, Any]]:
    """The rows whose ``column`` is among ``keys``, of tables that need not be cut by it."""
    wanted = pa.array(keys, pa.string())
    for path in part_paths(folder):
        yield from pq.read_table(path, filters=pc.field(column).isin(wanted)).to_pylist()


def columns_of(folder: str | Path, *columns: str) -> Iterator[pa.Table]:
    """These columns of each part, or all where none is named."""
    for path in part_paths(folder):
        yield pq.read_table(path, columns=list(columns) or None)


def by_attempt(folder: str, column: str, teachers: Iterable[str], ids: list[str]) -> dict[tuple[str, str, int], Any]:
    """A column of the tables that ``folder`` has of each teacher, by teacher, query and attempt."""
    return {
        (teacher, row["query_id"], row["attempt"]): row[column]
        for teacher in teachers
        for row in rows_of(f"{folder}/{teacher}", "query_id", ids)
    }


def query_records(ids: list[str], teachers: list[str]) -> list[Record]:
    """What the page shows of these queries, in the order of ``ids``."""
    queries = {row["id"]: row for row in rows_of(QUERIES, "id", ids)}
    traces = defaultdict(list)
    for teacher in teachers:
        for row in rows_of(f"{TRACES}/{teacher}", "query_id", ids):
            traces[row["query_id"]].append(row)
    removed = by_attempt(f"{REMOVED}/curate", "rejected_for", teachers, ids)
    perplexities = by_attempt(PERPLEXITY, "perplexity", teachers, ids)
    return [query_record(queries[each], traces[each], removed, perplexities) for each in ids if each in queries]


def questions() -> dict[str, list[dict[str, Any]]]:
    """The questions of every benchmark."""
    return {path.stem: read_json_lines(path) for path in sorted(Path(BENCHMARKS).glob("*.jsonl"))}
