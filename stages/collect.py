"""collect: loads all query sources into one partitioned table; only validates that rows parse.

It is partitioned and sorted by query id, equal ids in the order of their sources, so that every later stage can work on a
part at a time. Rows are first spread over buckets on disk: memory holds one bucket, not the corpus.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from distillery.core import config
from distillery.core.chat import UNWRITABLE, as_messages, asked_and_answered, get_path, identify
from distillery.core.config import Positive, Section
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import ScannedRow, atomic_dir
from distillery.core.progress import Progress, log
from distillery.core.schemas import CATEGORIES, MALFORMED
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import part_name, write_part, write_table
from distillery.corpus.external_sort import Buckets
from distillery.corpus.sources import Origin, pinned, scan

RAW, REJECTED = Path("data/raw"), Path("data/rejected/collect")
LONGEST_SHOWN, MOST_SHOWN = 100_000, 5
HOLE = re.compile(r"\{([^{}]+)\}")
FREE_FORM = ("difficulty", "ground_truth", "test_cases", "constraints")
Query = dict[str, Any]
Malformed = dict[str, str]


@dataclass(frozen=True)
class Source(Origin):
    """One source of queries."""

    category: str | None
    """The category of all its queries; null where a column says it."""
    columns: Mapping[str, str | dict[str, str]]
    """Our names to its own (`resolve_column`); names that are the same may be left out."""
    where: dict[str, str] = field(default_factory=dict)
    """Column to regular expression: only rows that match all of them are taken."""
    limit: Positive | None = None
    """The first so many of these rows; null for all."""


@dataclass(frozen=True)
class Collect(Section):
    """Where queries come from."""

    malformed: Literal["stop", "skip"]
    """Whether a row that cannot be read stops the run, or is counted and kept under data/rejected."""
    max_characters: Positive
    """The longest query, all its messages together; a longer one counts as malformed."""
    sources: dict[str, Source]
    """Every source, by a name of our own."""


class UnreadableError(ValueError):
    """A row that is not a query; ``kind`` is the name under which such rows are counted."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def as_text(value: Any) -> str | None:
    """Free-form fields as text: a string as it is, anything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def resolve_column(row: dict[str, Any], column: str | dict[str, str]) -> Any:
    """The value of a column: at a dotted path, as a text with columns in it, ``{Question}\\nA. {A}``, or an object of columns.

    None where a column of a text is missing, or all of an object.
    """
    if isinstance(column, dict):
        found = {name: resolve_column(row, each) for name, each in column.items()}
        return None if set(map(type, found.values())) <= {type(None)} else found
    if not HOLE.search(column):
        return get_path(row, column)
    values = {path: as_text(get_path(row, path)) for path in HOLE.findall(column)}
    return None if None in values.values() else HOLE.sub(lambda hole: str(values[hole[1]]), column)


def as_query(scanned: ScannedRow, name: str, source: Source, max_characters: int) -> Query:
    """One row in the QUERY schema, the answer that its dialogue ends with left out. Raises UnreadableError."""
    if scanned.problem:
        raise UnreadableError("json", scanned.problem)

    def get(name: str) -> Any:
        return resolve_column(scanned.row, source.columns.get(name, name))

    try:
        messages, _ = asked_and_answered(as_messages(get("messages")))
    except ValueError as error:
        raise UnreadableError("messages", str(error)) from None
    category = source.category or get("category")
    if category not in CATEGORIES:
        raise UnreadableError("category", f"category {category!r} is none of {', '.join(CATEGORIES)}")
    fields = {each: as_text(get(each)) for each in FREE_FORM}
    fields["source"] = as_text(get("source")) or name
    texts = [text for text in (*(turn["content"] for turn in messages), *fields.values()) if text]
    roles = [turn["role"] for turn in messages]
    if any(UNWRITABLE.search(text) for text in (*texts, *roles)):
        raise UnreadableError("text", "null byte or lone surrogate in the text")
    length = sum(len(turn["content"]) for turn in messages)
    if length > max_characters:
        raise UnreadableError("too_long", f"{length} characters, more than collect.max_characters ({max_characters})")
    return {"id": identify(messages), "messages": messages, "category": category} | fields


def rows_of(source: Source, key: str) -> Iterator[ScannedRow]:
    """The rows that belong to a source, those that cannot be read included; ``key`` names the source in params.yaml."""
    try:
        patterns = {column: re.compile(pattern) for column, pattern in source.where.items()}
    except re.error as error:
        raise ConfigError(f"params.yaml: {key}.where: {error.pattern!r} is not a regular expression: {error}") from None
    belonging = (
        scanned
        for scanned in scan(source, f"{key}.source")
        if scanned.problem or all(each.search(str(get_path(scanned.row, column))) for column, each in patterns.items())
    )
    return islice(belonging, source.limit)


def collect(settings: Collect, to: Buckets, counts: Counter[str]) -> Iterator[Malformed]:
    """Puts all queries into the buckets, in the order of the sources, and yields the rows that cannot be read.

    ``counts`` counts queries by source. Raises DataError at the first row that cannot be read where the settings say so.
    """
    progress = Progress("collect", "queries")
    for name, source in settings.sources.items():
        for scanned in rows_of(source, f"collect.sources.{name}"):
            try:
                to.add(as_query(scanned, name, source, settings.max_characters))
                counts[name] += 1
            except UnreadableError as error:
                if settings.malformed == "stop":
                    raise DataError(f"{scanned.where}: {error}; fix it, or set collect.malformed to skip") from None
                shown = json.dumps(scanned.row or None, default=str)[:LONGEST_SHOWN]
                yield {"where": scanned.where, "reason": f"{error.kind}: {error}"[:1000], "row": shown}
            progress.update(to.rows)


def counted(rows: Iterator[Malformed], reasons: Counter[str]) -> Iterator[Malformed]:
    """The rows, counted by their kind; the first few are shown."""
    for row in rows:
        if reasons.total() < MOST_SHOWN:
            log("collect", f"skipped {row['where']}: {row['reason']}")
        reasons[row["reason"].partition(":")[0]] += 1
        yield row


def main() -> None:
    settings = config.load(Collect, "collect")
    settings = replace(settings, sources={name: pinned(source) for name, source in settings.sources.items()})
    counts, malformed = Counter[str](), Counter[str]()
    with record_metrics("metrics/collect.json", "datasets", "pyarrow") as (metrics, _), atomic_dir(RAW) as folder:
        spread = Buckets(folder)
        write_table(counted(collect(settings, spread, counts), malformed), REJECTED, MALFORMED)
        if not spread.rows:
            raise DataError(f"no source gave a query; could not read {dict(malformed)}, see {REJECTED}")
        if empty := [name for name in settings.sources if not counts[name]]:
            why = f"see {REJECTED}, and its `columns` and `where`"
            raise DataError(f"params.yaml: collect.sources.{empty[0]}: gave no query; {why}")
        for part, table in enumerate(spread.parts()):
            write_part(table, folder / part_name(part))
        metrics["queries"] = spread.rows
        metrics["sources"] = {name: counts[name] for name in settings.sources}
        metrics["malformed"] = dict(sorted(malformed.items()))
        metrics["provenance"] = {"sources": {name: str(source) for name, source in settings.sources.items()}}
    log("collect", f"{spread.rows} queries; {malformed.total()} rows malformed {dict(malformed) or ''}; see {REJECTED}")


if __name__ == "__main__":
    run_stage(main)
