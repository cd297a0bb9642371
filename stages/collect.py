"""collect: brings every query source into one table; nothing is judged here except whether a row can be read.

The table is cut and sorted by query id, equal ids in the order of their sources, so that every later stage can work on a
part at a time. Rows are first spread over buckets on disk: memory holds one bucket, not the corpus.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from stages import params, provenance
from stages.messages import UNWRITABLE, as_messages, asked_and_answered, dig, identify
from stages.params import ParamsError, Positive, Section
from stages.provenance import say
from stages.sources import Origin, pinned, scan
from stages.tables import (
    CATEGORIES,
    MALFORMED,
    QUERY,
    DataError,
    part_name,
    part_of,
    parts_for,
    whole_folder,
    write,
    write_part,
)

RAW, REJECTED = Path("data/raw"), Path("data/rejected/collect")
BUCKETS = 256
ROWS_AT_ONCE = 50_000
LONGEST_SHOWN, MOST_SHOWN = 100_000, 5
HOLE = re.compile(r"\{([^{}]+)\}")
FREE_FORM = ("difficulty", "ground_truth", "test_cases", "constraints")
Query = dict[str, Any]
Malformed = dict[str, str]


@dataclass(frozen=True)
class Source(Origin):
    """One source; ``columns`` maps our names to its own (`taken`). ``category`` is null where a column says it.

    Of its rows those belong to it whose columns match ``where`` (column to pattern), the first ``limit`` of them.
    """

    category: str | None
    columns: Mapping[str, str | dict[str, str]]
    where: dict[str, str] = field(default_factory=dict)
    limit: Positive | None = None


@dataclass(frozen=True)
class Collect(Section):
    """``malformed`` says whether a row that cannot be read stops the run or is skipped, kept aside and counted.

    A query of more than ``max_characters`` cannot be read either.
    """

    malformed: Literal["stop", "skip"]
    max_characters: Positive
    sources: dict[str, Source]


class UnreadableError(ValueError):
    """A row that is no query; ``kind`` is what such rows are counted by."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def as_text(value: Any) -> str | None:
    """Free-form fields as text: a string as it is, anything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def taken(row: dict[str, Any], column: str | dict[str, str]) -> Any:
    """What a column says: one at a dotted path, a text around columns, ``{Question}\\nA. {A}``, or an object of columns.

    None where a column of a text is missing, or all of an object.
    """
    if isinstance(column, dict):
        found = {name: taken(row, each) for name, each in column.items()}
        return None if set(map(type, found.values())) <= {type(None)} else found
    if not HOLE.search(column):
        return dig(row, column)
    values = {path: as_text(dig(row, path)) for path in HOLE.findall(column)}
    return None if None in values.values() else HOLE.sub(lambda hole: str(values[hole[1]]), column)


def as_query(row: dict[str, Any], name: str, source: Source, max_characters: int) -> Query:
    """One row in the QUERY schema, the answer that its dialogue ends with left out. Raises UnreadableError."""

    def get(name: str) -> Any:
        return taken(row, source.columns.get(name, name))

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


def rows_of(source: Source, key: str) -> Iterator[tuple[str, dict[str, Any] | DataError]]:
    """(where it stands, row) of the rows that belong to a source; one that cannot be read does. ``key`` names the source."""
    try:
        patterns = {column: re.compile(pattern) for column, pattern in source.where.items()}
    except re.error as error:
        raise ParamsError(f"params.yaml: {key}.where: {error.pattern!r} is no pattern: {error}") from None

    def belongs(row: dict[str, Any] | DataError) -> bool:
        return isinstance(row, DataError) or all(each.search(str(dig(row, column))) for column, each in patterns.items())

    return islice((found for found in scan(source, f"{key}.source") if belongs(found[1])), source.limit)


def read_sources(settings: Collect) -> Iterator[tuple[str, Query | Malformed]]:
    """Every row in the order of the sources, by source: a query, or under "" what cannot be read, with its reason.

    Raises DataError at such a row where the settings say to stop.
    """
    for name, source in settings.sources.items():
        for where, row in rows_of(source, f"collect.sources.{name}"):
            try:
                if isinstance(row, DataError):
                    raise UnreadableError("json", str(row).removeprefix(f"{where}: "))
                yield name, as_query(row, name, source, settings.max_characters)
            except UnreadableError as error:
                if settings.malformed == "stop":
                    raise DataError(f"{where}: {error}; mend it, or set collect.malformed to skip") from None
                shown = json.dumps(None if isinstance(row, DataError) else row, default=str)[:LONGEST_SHOWN]
                yield "", {"where": where, "reason": f"{error.kind}: {error}"[:1000], "row": shown}


class Buckets:
    """Spreads queries over files by the beginning of their ids, keeping their order within a file."""

    def __init__(self, folder: Path):
        self.folder, self.rows = folder, 0
        self.held: list[Query] = []
        self.writers: dict[int, pa.RecordBatchStreamWriter] = {}
        self.open = ExitStack()

    def add(self, query: Query) -> None:
        self.rows += 1
        self.held.append(query)
        if len(self.held) >= ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Writes what is held."""
        groups: dict[int, list[Query]] = {}
        for query in self.held:
            groups.setdefault(part_of(query["id"], BUCKETS), []).append(query)
        self.held = []
        for bucket, rows in groups.items():
            if bucket not in self.writers:
                stream = pa.ipc.new_stream(str(self.path(bucket)), QUERY)
                self.writers[bucket] = self.open.enter_context(stream)
            self.writers[bucket].write_table(pa.Table.from_pylist(rows, QUERY))

    def path(self, bucket: int) -> Path:
        return self.folder / f"bucket-{bucket}.arrow"

    def parts(self) -> Iterator[pa.Table]:
        """The parts of the whole, each sorted by id, equal ids in the order in which they came."""
        self.flush()
        self.open.close()
        parts = min(parts_for(self.rows), BUCKETS)
        for first in range(0, BUCKETS, BUCKETS // parts):
            names = [self.path(bucket) for bucket in range(first, first + BUCKETS // parts)]
            tables = [pa.ipc.open_stream(str(name)).read_all() for name in names if name.exists()]
            table = pa.concat_tables(tables) if tables else QUERY.empty_table()
            for name in names:
                name.unlink(missing_ok=True)
            order = sorted(range(len(table)), key=table["id"].to_pylist().__getitem__)
            yield table.take(pa.array(order, pa.int64())).combine_chunks()


def collect(settings: Collect, to: Buckets, counts: Counter[str]) -> Iterator[Malformed]:
    """Puts all queries into the buckets, counting them by source, and yields what could not be read."""
    begun = last = time.monotonic()
    for name, row in read_sources(settings):
        counts[name] += 1
        if name:
            to.add(row)
        else:
            yield row
        if (now := time.monotonic()) - last > 5:
            last = now
            say("collect", f"{to.rows} queries, {to.rows / (now - begun):.0f} a second, {counts['']} rows malformed")


def counted(rows: Iterator[Malformed], reasons: Counter[str]) -> Iterator[Malformed]:
    """The rows, counted by their kind; the first few are shown."""
    for row in rows:
        if reasons.total() < MOST_SHOWN:
            say("collect", f"skipped {row['where']}: {row['reason']}")
        reasons[row["reason"].partition(":")[0]] += 1
        yield row


def main() -> None:
    settings = params.load(Collect, "collect")
    settings = replace(settings, sources={name: pinned(source) for name, source in settings.sources.items()})
    counts, malformed = Counter[str](), Counter[str]()
    with provenance.record("metrics/collect.json", "datasets", "pyarrow") as metrics, whole_folder(RAW) as folder:
        spread = Buckets(folder)
        write(counted(collect(settings, spread, counts), malformed), REJECTED, MALFORMED)
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
    say("collect", f"{spread.rows} queries; could not read {metrics['malformed'] or 'none'}, see {REJECTED}")


if __name__ == "__main__":
    provenance.run(main)
