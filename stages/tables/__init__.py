"""Tables on disk: parquet with fixed schemas and our own part names, and JSON lines.

The same rows give the same bytes: rows are sorted by the caller, parts and row groups have a fixed size, and nothing
carries a clock. A folder appears whole, by a rename, or not at all.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_A_PART = 200_000
ROWS_A_GROUP = 20_000
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
CURATED = TRACE.append(pa.field("perplexity", pa.float64())).append(pa.field("response_tokens", pa.int32()))
CURATED = CURATED.append(pa.field("dialogue_tokens", pa.int32()))


class DataError(ValueError):
    """A file or row that is not what it must be; the message names it and says what to do."""


def read(folder: str | Path, schema: pa.Schema | None = None) -> pa.Table:
    """Reads every part of a folder, in order. Raises DataError where the folder or a column is missing."""
    parts = sorted(Path(folder).glob("part-*.parquet"))
    if not parts:
        raise DataError(f"{folder}: no table there; run `dvc repro` so that the stage that makes it runs first")
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    missing = [] if schema is None else [name for name in schema.names if name not in table.column_names]
    if missing:
        raise DataError(f"{folder}: missing column {missing[0]!r}; it has {', '.join(table.column_names)}")
    return table if schema is None else table.select(schema.names)


def write(rows: Iterable[dict[str, Any]] | pa.Table, folder: str | Path, schema: pa.Schema) -> None:
    """Writes rows in the order given as part-00000.parquet and so on; an empty table is one part without rows.

    Rows that come one by one are held a row group at a time.
    """
    size = min(ROWS_A_GROUP, ROWS_A_PART)
    groups = _groups(rows, schema, size)
    with whole_folder(folder) as target:
        for part in count():
            first = next(groups, None if part else schema.empty_table())
            if first is None:
                break
            with pq.ParquetWriter(target / f"part-{part:05}.parquet", schema, compression="zstd") as writer:
                for group in chain([first], islice(groups, ROWS_A_PART // size - 1)):
                    writer.write_table(group)


def _groups(rows: Iterable[dict[str, Any]] | pa.Table, schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    """Tables of ``size`` rows, the last one smaller."""
    if isinstance(rows, pa.Table):
        table = rows.select(schema.names).cast(schema)
        for start in range(0, len(table), size):
            yield table.slice(start, size)
        return
    one_by_one = iter(rows)
    while group := list(islice(one_by_one, size)):
        yield pa.Table.from_pylist(group, schema)


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder to write into that takes its place, and the old one's, only when the block ends well."""
    folder = Path(folder)
    draft = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
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
