"""collect: loads all query sources into one partitioned table; only validates that rows parse.

It is partitioned and sorted by query id, equal ids in the order of their sources, so that every later stage can work on a
part at a time. Rows are first spread over buckets on disk: memory holds one bucket, not the corpus.

What a source on the hub gave is kept in the ledger's folder: a run that was stopped reads only the sources that it had not
finished, and a new source costs only its own download.
"""

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NamedTuple

import pyarrow.parquet as pq
from annotated_types import MinLen

from distillery.core import config
from distillery.core.chat import UNWRITABLE, as_messages, asked_and_answered, get_path, identify
from distillery.core.codehash import hash_code
from distillery.core.config import NonNegative, Positive, Section, suggestion
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import ScannedRow, atomic_dir
from distillery.core.progress import Progress, in_words, log
from distillery.core.schemas import CATEGORIES, MALFORMED, QUERY
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import part_name, write_part, write_rows, write_table
from distillery.corpus.column_mapping import as_text, check_columns, named_columns, resolve_column
from distillery.corpus.external_sort import Buckets
from distillery.corpus.sources import Columns, Origin, is_local, is_typed, pinned, scan
from distillery.generation.ledger import ROOT

RAW, REJECTED = Path("data/raw"), Path("data/rejected/collect")
LONGEST_SHOWN, MOST_SHOWN = 100_000, 5
ROWS_AT_ONCE = 1000
FREE_FORM = ("difficulty", "ground_truth", "test_cases", "constraints")
MAPPED = ("messages", "category", "source", *FREE_FORM)
READING = (
    *(f"stages.collect:{name}" for name in ("as_query", "belonging", "read", "sampled")),
    *("distillery.core.chat", "distillery.corpus.column_mapping", "distillery.corpus.sources"),
)
"""What the queries of a source depend on besides its settings."""
Query = dict[str, Any]


class Malformed(NamedTuple):
    """A row that cannot be read, in the MALFORMED schema."""

    where: str
    reason: str
    row: str


@dataclass(frozen=True)
class Source(Origin):
    """One source of queries."""

    category: str | None
    """The category of all its queries; null where a column says it."""
    columns: Mapping[str, str | dict[str, str]]
    """Our names to its own (`resolve_column`); names that are the same may be left out."""
    where: dict[str, str] = field(default_factory=dict)
    """Column to regular expression: only rows that match all of them are taken."""
    license: str | None = None
    """Its licence as the hub names licences (``apache-2.0``), for the cards of what is released; null: not stated."""
    limit: Positive | None = None
    """So many of these rows' queries, a seeded sample; null for all."""

    def __post_init__(self) -> None:
        if self.category is not None and self.category not in CATEGORIES:
            raise ValueError(f"category: {self.category!r} is none of {', '.join(CATEGORIES)}")
        if strange := sorted(set(self.columns) - set(MAPPED)):
            near = suggestion(strange[0], MAPPED)
            raise ValueError(f"columns.{strange[0]}: unknown name{near}; ours are {', '.join(MAPPED)}")


@dataclass(frozen=True)
class Collect(Section):
    """Where queries come from."""

    malformed: Literal["stop", "skip"]
    """Whether a row that cannot be read stops the run, or is counted and kept under data/rejected."""
    max_characters: Positive
    """The longest query, all its messages together; a longer one counts as malformed."""
    sources: Annotated[dict[str, Source], MinLen(1)]
    """Every source, by a name of our own."""
    seed: NonNegative = 0
    """Which queries a `limit` takes. A larger limit takes the same and more."""


class UnreadableError(ValueError):
    """A row that is not a query; ``kind`` is the name under which such rows are counted."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


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


def belonging(source: Source, key: str) -> Iterator[ScannedRow]:
    """The rows that belong to a source, those that cannot be read included; ``key`` names the source in params.yaml."""
    try:
        patterns = {column: re.compile(pattern) for column, pattern in source.where.items()}
    except re.error as error:
        raise ConfigError(f"params.yaml: {key}.where: {error.pattern!r} is not a regular expression: {error}") from None
    named = named_columns(source.columns, source.where)
    rows = scan(source, f"{key}.source", Columns(named, [name for name in MAPPED if name not in source.columns]))
    for scanned in check_columns(rows, named, key, typed=is_typed(source)):
        if scanned.problem or all(each.search(str(get_path(scanned.row, column))) for column, each in patterns.items()):
            yield scanned


def sampled(rows: Iterator[Query | Malformed], limit: int, seed: int) -> Iterator[Query | Malformed]:
    """A random sample of the queries, each once, in their order, after all malformed rows.

    Those whose ids hash lowest: which these are does not depend on the order of the rows, a larger limit takes them too, and
    more rows replace few of them.
    """
    held: list[tuple[int, int, Query]] = []
    ids: set[str] = set()
    for number, row in enumerate(rows):
        if isinstance(row, Malformed):
            yield row
        elif row["id"] not in ids:
            rank = int.from_bytes(blake2b(f"{seed} {row['id']}".encode(), digest_size=8).digest())
            ids.add(row["id"])
            heapq.heappush(held, (-rank, -number, row))
            if len(held) > limit:
                ids.remove(heapq.heappop(held)[2]["id"])
    yield from (row for _, _, row in sorted(held, key=lambda entry: -entry[1]))


def read(settings: Collect, name: str) -> Iterator[Query | Malformed]:
    """The queries of a source and its malformed rows. Raises DataError at the first of these where the settings say so."""
    source, progress = settings.sources[name], Progress(f"collect {name}", "rows read")
    for number, scanned in enumerate(belonging(source, f"collect.sources.{name}"), 1):
        try:
            yield as_query(scanned, name, source, settings.max_characters)
        except UnreadableError as error:
            if settings.malformed == "stop":
                raise DataError(f"{scanned.where}: {error}; fix it, or set collect.malformed to skip") from None
            shown = json.dumps(scanned.row or None, default=str)[:LONGEST_SHOWN]
            yield Malformed(scanned.where, f"{error.kind}: {error}"[:1000], shown)
        progress.update(number)


def rows_of(settings: Collect, name: str) -> Iterator[Query | Malformed]:
    """The rows that a source gives: `read` and sampled, or kept by an earlier run."""
    source = settings.sources[name]
    rows = read(settings, name)
    rows = sampled(rows, source.limit, settings.seed) if source.limit else rows
    return rows if is_local(source.source) else kept(rows, settings, name)


def kept(rows: Iterator[Query | Malformed], settings: Collect, name: str) -> Iterator[Query | Malformed]:
    """The rows by way of two files of the ledger, which has them from then on; where it has them, ``rows`` is not begun.

    Malformed rows come last. The file of the queries is written last, so that it stands for both; of two runs that read the
    same source, either's files are right.
    """
    about = [asdict(settings.sources[name]), name, settings.max_characters, settings.malformed, settings.seed]
    key = blake2b(json.dumps([*about, hash_code(READING)]).encode(), digest_size=16).hexdigest()
    queries, malformed = (Path(ROOT, "sources", f"{key}-{each}.parquet") for each in ("queries", "malformed"))
    if queries.exists() and malformed.exists():
        log("collect", f"{name}: read from the hub by an earlier run")
    else:
        queries.parent.mkdir(parents=True, exist_ok=True)
        bad: list[dict[str, str]] = []
        with TemporaryDirectory(dir=queries.parent, suffix=".tmp") as draft:
            write_rows(_without_malformed(rows, bad), Path(draft, "queries"), QUERY)
            write_rows(iter(bad), Path(draft, "malformed"), MALFORMED)
            Path(draft, "malformed").rename(malformed)
            Path(draft, "queries").rename(queries)
    for batch in pq.ParquetFile(queries).iter_batches(ROWS_AT_ONCE):
        yield from batch.to_pylist()
    for row in pq.read_table(malformed).to_pylist():
        yield Malformed(**row)


def _without_malformed(rows: Iterator[Query | Malformed], malformed: list[dict[str, str]]) -> Iterator[Query]:
    for row in rows:
        if isinstance(row, Malformed):
            malformed.append(row._asdict())
        else:
            yield row


def collect(settings: Collect, to: Buckets, counts: Counter[str]) -> Iterator[Malformed]:
    """Puts all queries into the buckets, in the order of the sources, and yields the rows that cannot be read.

    ``counts`` counts queries by source.
    """
    for name in settings.sources:
        for row in rows_of(settings, name):
            if isinstance(row, Malformed):
                yield row
            else:
                to.add(row)
                counts[name] += 1


def counted(rows: Iterator[Malformed], reasons: Counter[str]) -> Iterator[dict[str, str]]:
    """The rows, counted by their kind; the first few are shown."""
    for row in rows:
        if reasons.total() < MOST_SHOWN:
            log("collect", f"skipped {row.where}: {row.reason}")
        reasons[row.reason.partition(":")[0]] += 1
        yield row._asdict()


def main() -> None:
    settings = config.load(Collect, "collect")
    settings = replace(settings, sources={name: pinned(source) for name, source in settings.sources.items()})
    counts, malformed = Counter[str](), Counter[str]()
    with record_metrics("metrics/collect.json", "datasets", "pyarrow") as (metrics, _), atomic_dir(RAW) as folder:
        spread = Buckets(folder)
        write_table(counted(collect(settings, spread, counts), malformed), REJECTED, MALFORMED)
        if not spread.rows:
            raise DataError(f"no source gave a query; malformed rows: {in_words(malformed)}, see {REJECTED}")
        if empty := [name for name in settings.sources if not counts[name]]:
            why = f"see {REJECTED}, and its `columns` and `where`"
            raise DataError(f"params.yaml: collect.sources.{empty[0]}: gave no query; {why}")
        for part, table in enumerate(spread.parts()):
            write_part(table, folder / part_name(part))
        metrics["queries"] = spread.rows
        metrics["sources"] = {name: counts[name] for name in settings.sources}
        metrics["malformed"] = dict(sorted(malformed.items()))
        metrics["provenance"] = {"sources": {name: str(source) for name, source in settings.sources.items()}}
    log("collect", f"{spread.rows} queries; malformed rows: {in_words(malformed)}; see {REJECTED}")


if __name__ == "__main__":
    run_stage(main)
