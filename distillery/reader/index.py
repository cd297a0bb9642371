"""An index of every query and removed row, so that a page of a million is found at once: SQLite with full-text search.

It is kept under .reader, named by a hash of the tables' sizes and times, and built where there is none for these.
"""

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from distillery.core.progress import Progress
from distillery.core.schemas import PASS
from distillery.core.tables import matching_parts, part_paths
from distillery.reader import sources
from distillery.reader.records import brief

FOLDER = Path(".reader")
SCHEMA = """
CREATE TABLE queries (row INTEGER PRIMARY KEY, id TEXT, category TEXT, source TEXT, verified TEXT, only_one TEXT,
    attempts INTEGER, tokens INTEGER, reasons TEXT, text TEXT);
CREATE VIRTUAL TABLE words USING fts5(text, content='', detail='none', tokenize='unicode61');
CREATE VIRTUAL TABLE why USING fts5(reasons, content='', detail='none', tokenize='unicode61');
"""
INDICES = """
CREATE INDEX by_id ON queries (id);
CREATE INDEX by_category ON queries (category, source);
CREATE INDEX by_only ON queries (only_one) WHERE only_one <> '';
"""
SHOWN = 200
"""Characters of a query that a list shows."""


def path_of(teachers: list[str]) -> Path:
    """Where the index of the present tables is."""
    folders = [sources.QUERIES, *(f"{kind}/{teacher}" for kind in (sources.TRACES,) for teacher in teachers)]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for folder in folders for path in part_paths(folder)]
    return FOLDER / f"{hashlib.sha256(repr(stats).encode()).hexdigest()[:16]}.sqlite"


def opened(teachers: list[str]) -> sqlite3.Connection:
    """The index, built first where it is missing; that of other tables is deleted."""
    path = path_of(teachers)
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        for old in FOLDER.glob("*.sqlite*"):
            old.unlink()
        build(path.with_suffix(".tmp"), teachers)
        path.with_suffix(".tmp").rename(path)
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)


def build(path: Path, teachers: list[str]) -> None:
    """Writes the index of every query."""
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {SCHEMA}")
    queries, *traces = matching_parts(sources.QUERIES, *(f"{sources.TRACES}/{teacher}" for teacher in teachers))
    progress, done = Progress("index", "queries", sum(pq.read_metadata(each).num_rows for each in queries)), 0
    for part, source in enumerate(queries):
        rows = list(rows_of(source, {teacher: paths[part] for teacher, paths in zip(teachers, traces, strict=True)}))
        numbered = [(done + i, *row) for i, row in enumerate(rows, 1)]
        texts = ((row[0], " ".join([row[-1], mark("category", row[2]), mark("source", row[3])])) for row in numbered)
        database.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", texts)
        reasons = ((row[0], row[-2]) for row in numbered if row[-2])
        database.executemany("INSERT INTO why (rowid, reasons) VALUES (?, ?)", reasons)
        shown = ((*row[:-1], row[-1][:SHOWN]) for row in numbered)
        database.executemany("INSERT INTO queries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", shown)
        done += len(rows)
        progress.update(done)
    database.executescript(INDICES)
    database.commit()
    database.close()


def rows_of(queries: Path, traces: dict[str, Path]) -> Iterator[tuple[Any, ...]]:
    """One row per query of a part, the whole text last."""
    found = {teacher: summary(path) for teacher, path in traces.items()}
    asked = pq.read_table(queries, columns=["id", "category", "source", "messages"])
    for row in asked.to_pylist():
        of = {teacher: rows[row["id"]] for teacher, rows in found.items() if row["id"] in rows}
        verified = [teacher for teacher, each in of.items() if each["verified"]]
        attempts, tokens = sum(each["count"] for each in of.values()), max((each["tokens"] for each in of.values()), default=0)
        reasons = " ".join(sorted({reason for each in of.values() for reason in each["reasons"]}))
        only = verified[0] if len(verified) == 1 else ""
        yield (
            row["id"],
            row["category"],
            row["source"],
            " ".join(verified),
            only,
            attempts,
            tokens,
            reasons,
            brief(row["messages"]),
        )


def mark(name: str, value: str) -> str:
    """A word that stands in the index for a query's category or source, so that a search within one need not read rows."""
    return f"{name}{hashlib.sha256(value.encode()).hexdigest()[:16]}"


def summary(path: Path) -> dict[str, dict[str, Any]]:
    """Of each query that a teacher was asked: attempts, whether one verified, the longest, and the verdicts' reasons."""
    table = pq.read_table(path, columns=["query_id", "verdict", "completion_tokens", "reason"])
    table = table.append_column("verified", pc.equal(table["verdict"], PASS))
    grouped = table.group_by("query_id").aggregate(
        [("verified", "any"), ("verified", "count"), ("completion_tokens", "max"), ("reason", "distinct")]
    )
    names = ("query_id", "verified_any", "verified_count", "completion_tokens_max", "reason_distinct")
    columns = zip(*(grouped[name].to_pylist() for name in names), strict=True)
    return {
        key: {"verified": verified, "count": count, "tokens": tokens, "reasons": {reason[:100] for reason in reasons if reason}}
        for key, verified, count, tokens, reasons in columns
    }


def conditions(filters: dict[str, str]) -> tuple[str, list[Any]]:
    """The SQL condition of the page's filters, and its values."""
    parts, values = ["1"], list[Any]()
    words = re.findall(r"[^\W_]+", filters.get("search", ""))
    for name, column in (("category", "category"), ("source", "source"), ("only", "only_one")):
        if not filters.get(name):
            continue
        if words and name != "only":
            words.append(mark(name, filters[name]))
        else:
            parts.append(f"{column} = ?")
            values.append(filters[name])
    for name in ("attempts", "tokens"):
        with suppress(ValueError):
            values.append(int(filters.get(name, "")))
            parts.append(f"{name} >= ?")
    if why := re.findall(r"[^\W_]+", filters.get("reason", "")):
        parts.append("row IN (SELECT rowid FROM why WHERE why MATCH ?)")
        values.append(" ".join(f'"{word}"*' for word in why))
    if words:
        parts.append("row IN (SELECT rowid FROM words WHERE words MATCH ?)")
        values.append(" ".join(f'"{word}"' for word in words))
    return " AND ".join(parts), values


MOST_COUNTED = 100_000
"""Rows up to which a list is counted; beyond, it has at least so many."""


def listed(database: sqlite3.Connection, filters: dict[str, str], offset: int, count: int) -> dict[str, Any]:
    """A page of the queries that pass ``filters``, and how many do."""
    where, values = conditions(filters)
    rows = database.execute(
        f"SELECT id, category, source, verified, attempts, tokens, text FROM queries WHERE {where} LIMIT ? OFFSET ?",
        [*values, count, offset],
    ).fetchall()
    (total,) = database.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM queries WHERE {where} LIMIT {MOST_COUNTED})", values
    ).fetchone()
    names = ("id", "category", "source", "verified", "attempts", "tokens", "text")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return {"rows": [row | {"verified": row["verified"].split()} for row in found], "total": total}


def choices(database: sqlite3.Connection) -> dict[str, list[str]]:
    """What the filters of queries offer."""
    return {
        name: [value for (value,) in database.execute(f"SELECT DISTINCT {name} FROM queries ORDER BY 1")]
        for name in ("category", "source")
    }
