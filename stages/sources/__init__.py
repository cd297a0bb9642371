"""Sources: rows out of local files (JSON lines or parquet), folders of them, or a data set on the hub, pinned by revision.

DVC must see a local file change. So every local file belongs to the ``world`` that params.yaml names and that DVC
watches: a manifest (JSON, path to hash) that lists it, the file itself, or a folder that holds it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import params
from stages.params import ParamsError, Section
from stages.tables import DataError, read_json, scan_json_lines

Row = dict[str, Any]
KINDS = (".jsonl", ".parquet")
ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Traces(Section):
    """Where they are: a path (JSON lines, parquet, a folder of them) or a hub id with its revision.

    ``files`` is a pattern for hub data sets whose types differ from file to file, null for all others.
    """

    source: str
    revision: str | None
    split: str
    files: str | None


def scan(
    source: str, split: str, revision: str | None, key: str, files: str | None = None
) -> Iterator[tuple[str, Row | DataError]]:
    """Yields (where it stands, row) for every row; ``key`` names the setting that ``source`` comes from.

    A hub id is read through `datasets`; with ``files``, a pattern, its files are fetched and read as they are, for data
    sets whose types differ from file to file. Raises DataError where a file is missing or no table, ParamsError where
    DVC would not see it change.
    """
    if is_local(source):
        check_watched(Path(source), key)
        yield from scan_files(Path(source))
    elif files:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source, repo_type="dataset", revision=revision, allow_patterns=files))
        for where, row in scan_files(folder):
            yield f"{source}@{revision}:{where.removeprefix(str(folder) + '/')}", row
    else:
        from datasets import load_dataset

        for number, row in enumerate(load_dataset(source, split=split, revision=revision, streaming=True), 1):
            yield f"{source}@{revision}:{number}", row


def is_local(source: str) -> bool:
    return Path(source).suffix in KINDS or Path(source).is_dir()


def files_of(path: Path) -> list[Path]:
    """The files of a source: itself, or all JSON lines and parquet in a folder, sorted."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix in KINDS)
    if not found:
        raise DataError(f"{path}: no .jsonl or .parquet file in this folder")
    return found


def scan_files(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    for file in files_of(path):
        if file.suffix == ".jsonl":
            yield from ((f"{file}:{number}", row) for number, row in scan_json_lines(file))
            continue
        try:
            batches = pq.ParquetFile(file).iter_batches(ROWS_AT_ONCE)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from ((f"{file}:{number}", row) for number, row in enumerate(rows, 1))
        except pa.ArrowInvalid as error:
            raise DataError(f"{file}: not parquet: {' '.join(str(error).split())}") from None


def check_watched(path: Path, key: str) -> None:
    """Raises where a local file is missing or is no part of the world."""
    if not path.exists():
        raise DataError(f"{path}: no such file; {key} in params.yaml names it")
    world = Path(params.load(str, "world"))
    listed = world.suffix == ".json" and str(path) in read_json(world)
    if not (listed or path == world or world in path.parents):
        raise ParamsError(
            f"params.yaml: {key}: {path} is no part of `world` ({world}), so DVC would not see it change; "
            "set `world` to the file or to a folder that holds it"
        )
