"""Tables on disk: parquet with fixed schemas and our own part names, and JSON lines.

The corpus and all that is made of it is cut by query id: part i of N holds the ids whose first 32 bits lie in the i-th of
N equal ranges, sorted. So part i of the traces belongs to part i of the queries, a part is worked on alone in little
memory, and duplicates meet in one part.

The same rows give the same bytes: rows are sorted by the caller, row groups have a fixed size, and nothing carries a
clock. A folder appears whole, by a rename, or not at all.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_A_PART = 20_000
ROWS_A_GROUP = 10_000
MALFORMED = pa.schema([("where", pa.string()), ("reason", pa.string()), ("row", pa.string())])
CATEGORIES = ("math", "code", "science", "if", "multiturn", "other")

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
QUERY = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("category", pa.string()),
        ("source", pa.string()),
        ("difficulty", pa.string()),
        ("ground_truth", pa.string()),
        ("test_cases", pa.string()),
        ("constraints", pa.string()),
    ]
)
SIMILARITY = pa.schema([("id", pa.string()), ("benchmark_item", pa.string()), ("cosine", pa.float32())])
REJECTED_QUERY = QUERY.append(pa.field("reason", pa.string()))
TRACE = pa.schema(
    [
        ("query_id", pa.string()),
        ("teacher", pa.string()),
        ("attempt", pa.int32()),
        ("seed", pa.int64()),
        ("text", pa.string()),
        ("think", pa.string()),
        ("answer", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("verify_score", pa.float64()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("verifier", pa.string()),
        ("model_revision", pa.string()),
        ("engine", pa.string()),
    ]
)
PERPLEXITY = pa.schema([("query_id", pa.string()), ("attempt", pa.int32()), ("perplexity", pa.float64())])
SHARED = pa.schema([("query_id", pa.string()), ("trains", pa.bool_())])
CURATED = TRACE.append(pa.field("perplexity", pa.float64())).append(pa.field("response_tokens", pa.int32()))
CURATED = CURATED.append(pa.field("dialogue_tokens", pa.int32()))


class DataError(ValueError):
    """A file or row that is not what it must be; the message names it and says what to do."""


def part_paths(folder: str | Path) -> list[Path]:
    """Every part of a folder, in order. Raises DataError where there is none."""
    parts = sorted(Path(folder).glob("part-*.parquet"))
    if not parts:
        raise DataError(f"{folder}: no table there; run `dvc repro` so that the stage that makes it runs first")
    return parts


def aligned(*folders: str | Path) -> list[list[Path]]:
    """The parts of each folder. Raises DataError where they are not cut alike, as tables of one corpus are."""
    found = [part_paths(folder) for folder in folders]
    for folder, paths in zip(folders, found, strict=True):
        if len(paths) != len(found[0]):
            raise DataError(f"{folder}: {len(paths)} parts, {folders[0]} has {len(found[0])}; run `dvc repro` to make it anew")
    return found


def part_name(part: int) -> str:
    return f"part-{part:05}.parquet"


def parts_for(rows: int) -> int:
    """How many parts a corpus of so many rows is cut into: a power of two, so that borders stay where they are."""
    return 1 << max(-(-rows // ROWS_A_PART) - 1, 0).bit_length()


def part_of(key: str, parts: int) -> int:
    """The part that an id (hexadecimal) belongs to."""
    return (int(key[:8], 16) * parts) >> 32 if parts > 1 else 0


def read_part(path: str | Path, schema: pa.Schema) -> pa.Table:
    """The columns of ``schema`` out of one file. Raises DataError where one is missing or of another type."""
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not parquet: {' '.join(str(error).split())}; remove it and run `dvc checkout`") from None
    missing = [name for name in schema.names if name not in file.schema_arrow.names]
    if missing:
        raise DataError(f"{path}: missing column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}")
    try:
        return file.read(columns=schema.names).select(schema.names).cast(schema)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as it should be: {' '.join(str(error).split())}") from None


def read(folder: str | Path, schema: pa.Schema | None = None) -> pa.Table:
    """All parts of a folder as one table, in order. Raises DataError where the folder or a column is missing."""
    paths = part_paths(folder)
    return pa.concat_tables([read_part(path, schema or pq.read_schema(path)) for path in paths])


def write_part(table: pa.Table, path: str | Path) -> None:
    """Writes one file in row groups of a fixed size."""
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table, ROWS_A_GROUP)


def write(rows: Iterable[dict[str, Any]], folder: str | Path, schema: pa.Schema, parts: int = 1) -> None:
    """Writes rows, sorted by their first field where there are ``parts``, each into the part of its id.

    Rows that come one by one are held a row group at a time.
    """
    key = schema.names[0]
    with whole_folder(folder) as target:
        sorted_rows = groupby(rows, lambda row: part_of(row[key], parts))
        part, group = next(sorted_rows, (parts, iter(())))
        for number in range(parts):
            here: Iterator[dict[str, Any]] = group if part == number else iter(())
            _write_rows(here, target / part_name(number), schema)
            if part == number:
                part, group = next(sorted_rows, (parts, iter(())))


def _write_rows(rows: Iterator[dict[str, Any]], path: Path, schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, ROWS_A_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder to write into that takes its place, and the old one's, only when the block ends well."""
    folder = Path(folder)
    draft = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def write_text(text: str, path: str | Path) -> None:
    """Writes a file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def write_json(value: Any, path: str | Path) -> None:
    write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", path)


def read_json(path: str | Path) -> Any:
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file; run `dvc repro` so that the stage that makes it runs first")
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def write_json_lines(rows: Iterable[dict[str, Any]], path: str | Path) -> None:
    write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """All rows of a file. Raises DataError, naming file and line, at the first that is no JSON object."""
    rows = []
    for _, row in scan_json_lines(path):
        if isinstance(row, DataError):
            raise row
        rows.append(row)
    return rows


def scan_json_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    """Yields (line number, row), the row being a DataError that names file and line where it is no JSON object."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _parse(line, path, number)


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any] | DataError:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return DataError(f"{path}:{number}: malformed JSON: {error}")
    return row if isinstance(row, dict) else DataError(f"{path}:{number}: expected an object, got {type(row).__name__}")
