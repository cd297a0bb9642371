"""Tables on disk: parquet with fixed schemas and our own part names.

The corpus and everything derived from it is partitioned by query id: part i of N holds the ids whose first 32 bits lie in the
i-th of N equal ranges, sorted. So part i of the traces belongs to part i of the queries, a part is processed alone in
little memory, and duplicates are in the same part.

The same rows give the same bytes: rows are sorted by the caller, row groups have a fixed size, and nothing contains
a timestamp. A folder appears complete, by a rename, or not at all.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core.errors import DataError
from distillery.core.files import atomic_dir

ROWS_PER_PART = 20_000
BYTES_PER_PART = 1 << 30  # half of what Arrow can sort: a column of text ends at 2 GiB
ROWS_PER_GROUP = 10_000
ROWS_AT_ONCE = 500


def part_paths(folder: str | Path) -> list[Path]:
    """Every part of a folder, in order. Raises DataError where there is none."""
    parts = sorted(Path(folder).glob("part-*.parquet"))
    if not parts:
        raise DataError(f"{folder}: no table there; run `dvc repro` so that the stage that makes it runs first")
    return parts


def matching_parts(*folders: str | Path) -> list[list[Path]]:
    """The parts of each folder. Raises DataError where their partitions differ; tables of one corpus have the same."""
    found = [part_paths(folder) for folder in folders]
    for folder, paths in zip(folders, found, strict=True):
        if len(paths) != len(found[0]):
            raise DataError(f"{folder}: {len(paths)} parts, {folders[0]} has {len(found[0])}; run `dvc repro` to make it again")
    return found


def part_name(part: int) -> str:
    return f"part-{part:05}.parquet"


def parts_for(rows: int, size: int = 0) -> int:
    """How many parts a corpus of so many rows and bytes is split into: a power of two, so that boundaries stay fixed."""
    return 1 << max(-(-rows // ROWS_PER_PART) - 1, -(-size // BYTES_PER_PART) - 1, 0).bit_length()


def part_of(key: str, parts: int) -> int:
    """The part that an id (hexadecimal) belongs to."""
    return (int(key[:8], 16) * parts) >> 32 if parts > 1 else 0


def read_part(path: str | Path, schema: pa.Schema) -> pa.Table:
    """The columns of ``schema`` out of one file. Raises DataError where one is missing or of another type."""
    with _opened(path, schema) as file:
        return file.read(columns=schema.names).select(schema.names).cast(schema)


def read_rows(path: str | Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """The same as rows, a few read at a time: a whole part's test cases would be memory that is used only once."""
    with _opened(path, schema) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=schema.names, use_threads=False):
            yield from batch.select(schema.names).cast(schema).to_pylist()


@contextmanager
def _opened(path: str | Path, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """A file that has the columns of ``schema``; what fails within is an error of the file."""
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not parquet: {' '.join(str(error).split())}; remove it and run `dvc checkout`") from None
    missing = [name for name in schema.names if name not in file.schema_arrow.names]
    if missing:
        raise DataError(f"{path}: missing column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}")
    try:
        yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as it should be: {' '.join(str(error).split())}") from None


def read_table(folder: str | Path, schema: pa.Schema | None = None) -> pa.Table:
    """All parts of a folder as one table, in order. Raises DataError where the folder or a column is missing."""
    paths = part_paths(folder)
    return pa.concat_tables([read_part(path, schema or pq.read_schema(path)) for path in paths])


def write_part(table: pa.Table, path: str | Path) -> None:
    """Writes one file in row groups of a fixed size."""
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table, ROWS_PER_GROUP)


def write_table(rows: Iterable[dict[str, Any]], folder: str | Path, schema: pa.Schema, parts: int = 1) -> None:
    """Writes rows, sorted by their first field where there are ``parts``, each into the part of its id.

    Rows from an iterator are buffered, one row group at a time.
    """
    key = schema.names[0]
    with atomic_dir(folder) as target:
        sorted_rows = groupby(rows, lambda row: part_of(row[key], parts))
        part, group = next(sorted_rows, (parts, iter(())))
        for number in range(parts):
            here: Iterator[dict[str, Any]] = group if part == number else iter(())
            write_rows(here, target / part_name(number), schema)
            if part == number:
                part, group = next(sorted_rows, (parts, iter(())))


class RowWriter:
    """Writes one file of rows as they come, in row groups of a fixed size; close it, or use it as a context."""

    def __init__(self, path: Path, schema: pa.Schema, per_group: int):
        self.writer, self.schema, self.per_group = pq.ParquetWriter(path, schema, compression="zstd"), schema, per_group
        self.rows: list[dict[str, Any]] = []

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.writer.close()

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) == self.per_group:
            self._write()

    def close(self) -> None:
        if self.rows:
            self._write()
        self.writer.close()

    def _write(self) -> None:
        self.writer.write_table(pa.Table.from_pylist(self.rows, self.schema))
        self.rows = []


def write_rows(rows: Iterator[dict[str, Any]], path: Path, schema: pa.Schema, per_group: int = ROWS_PER_GROUP) -> None:
    """Writes one file of rows in row groups of a fixed size, which memory holds one at a time."""
    with RowWriter(path, schema, per_group) as file:
        for row in rows:
            file.add(row)
