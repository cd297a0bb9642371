"""Sources: rows out of local files (JSON lines or parquet), folders of them, or a data set on the hub, pinned by revision.

DVC must see a local file change. So every local file belongs to the ``world`` that params.yaml names and that DVC
watches: a manifest (JSON, path to hash) that lists it, the file itself, or a folder that holds it.
"""

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from stages import params
from stages.params import ParamsError, Section
from stages.tables import DataError, read_json, scan_json_lines

Row = dict[str, Any]
KINDS = (".jsonl", ".parquet")
OTHER_KINDS = (".json", ".gz", ".zst", ".zip", ".csv", ".tsv", ".txt")
ROWS_AT_ONCE = 1000
COMMIT = re.compile("[0-9a-f]{40}")
T = TypeVar("T", bound="Origin")


@dataclass(frozen=True)
class Origin(Section):
    """Where rows come from: a path (JSON lines, parquet, a folder of them) or a hub id with its revision.

    ``config`` names one of a hub data set's configurations, ``files`` is a pattern for hub data sets that `datasets` cannot
    read or whose types differ from file to file; null for all others.
    """

    source: str
    revision: str | None
    split: str
    _: KW_ONLY
    config: str | None = None
    files: str | None = None

    def __str__(self) -> str:
        return f"{self.source}@{self.revision}" if self.revision else self.source


def pinned(origin: T) -> T:
    """The origin at the commit that its revision names on the hub now; a path or a commit as it is.

    Raises DataError where the hub does not say.
    """
    if is_local(origin.source) or COMMIT.fullmatch(origin.revision or ""):
        return origin
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(origin.source, revision=origin.revision).sha
    except Exception as error:
        raise DataError(f"{origin.source}: neither a file or folder here nor to be had from the hub: {_brief(error)}") from None
    return replace(origin, revision=commit)


def scan(origin: Origin, key: str) -> Iterator[tuple[str, Row | DataError]]:
    """Yields (where it stands, row) for every row; ``key`` names the setting that the origin comes from.

    A hub id is read through `datasets`; with ``files`` those are fetched and read as they are. Raises DataError where a
    file is missing or no table, ParamsError where DVC would not see it change.
    """
    if is_local(origin.source):
        check_watched(Path(origin.source), key)
        yield from scan_files(Path(origin.source))
    elif origin.files:
        from huggingface_hub import snapshot_download

        at, files = origin.revision, origin.files
        folder = Path(snapshot_download(origin.source, repo_type="dataset", revision=at, allow_patterns=files))
        for where, row in scan_files(folder):
            yield f"{origin}:{where.removeprefix(str(folder) + '/')}", row
    else:
        for number, row in enumerate(_streamed(origin), 1):
            yield f"{origin}:{number}", row


def _streamed(origin: Origin) -> Iterator[Row]:
    from datasets import load_dataset

    try:
        yield from load_dataset(origin.source, origin.config, split=origin.split, revision=origin.revision, streaming=True)
    except Exception as error:
        raise DataError(f"{origin}: cannot be read from the hub: {_brief(error)}") from None


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())


def is_local(source: str) -> bool:
    """Raises DataError at a file of another kind."""
    path = Path(source)
    if path.suffix in OTHER_KINDS or (path.is_file() and path.suffix not in KINDS):
        raise DataError(f"{source}: only {' and '.join(KINDS)} are read, and folders of them")
    return path.suffix in KINDS or path.is_dir()


def files_of(path: Path) -> list[Path]:
    """The files of a source: itself, or all JSON lines and parquet in a folder, sorted."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix in KINDS and file.is_file())
    if not found:
        raise DataError(f"{path}: no .jsonl or .parquet file in this folder")
    return found


def scan_files(path: Path) -> Iterator[tuple[str, Row | DataError]]:
    for file in files_of(path):
        rows = scan_json_lines(file) if file.suffix == ".jsonl" else enumerate(scan_parquet(file), 1)
        yield from ((f"{file}:{number}", row) for number, row in rows)


def scan_parquet(path: Path) -> Iterator[Row | DataError]:
    """The rows of a parquet file; a row that Python cannot hold is a DataError. Raises DataError where the file is torn."""
    try:
        for batch in pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE):
            try:
                yield from batch.to_pylist()
            except (ValueError, OverflowError):
                yield from (_sole(batch.slice(i, 1)) for i in range(len(batch)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not parquet, or torn: {' '.join(str(error).split())}") from None


def _sole(batch: pa.RecordBatch) -> Row | DataError:
    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        return DataError(f"cannot be read: {error}")


def check_watched(path: Path, key: str) -> None:
    """Raises where a local file is missing or is no part of the world."""
    if not path.exists():
        raise DataError(f"{path}: no such file; {key} in params.yaml names it")
    world = Path(params.load(str, "world"))
    listed = world.suffix == ".json" and str(path) in read_json(world)
    if not (listed or path == world or world.resolve() in path.resolve().parents):
        raise ParamsError(
            f"params.yaml: {key}: {path} is no part of `world` ({world}), so DVC would not see it change; "
            "set `world` to the file or to a folder that holds it"
        )
