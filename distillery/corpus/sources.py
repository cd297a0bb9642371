"""Sources: rows out of local files (JSON lines or parquet), folders of them, or a data set on the hub, pinned by revision.

DVC must see a local file change. So every local file belongs to the ``world`` that params.yaml names and that DVC
watches: a manifest (JSON, path to hash) that lists it, the file itself, or a folder that holds it.
"""

from collections.abc import Collection, Iterator
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from distillery.core import config
from distillery.core.config import Section
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import Row, ScannedRow, read_json, scan_json_lines
from distillery.core.hub import Patience, patiently
from distillery.core.pins import DATA, pin

if TYPE_CHECKING:
    from datasets import IterableDataset

KINDS = (".jsonl", ".parquet")
OTHER_KINDS = (".json", ".gz", ".zst", ".zip", ".csv", ".tsv", ".txt")
ROWS_AT_ONCE = 1000
T = TypeVar("T", bound="Origin")


@dataclass(frozen=True)
class Origin(Section):
    """Where rows come from."""

    source: str
    """A path (JSON lines, parquet, or a folder of them), or the id of a data set on the hub."""
    revision: str | None
    """The commit, branch or tag of a data set on the hub; null for a path."""
    split: str | None
    """The split of a data set on the hub, or of a folder whose files are named by splits as there; null for all of a path."""
    _: KW_ONLY
    config: str | None = None
    """Which of a hub data set's configurations; null for its only one."""
    files: str | None = None
    """A pattern of file names, for hub data sets that `datasets` cannot read or whose types differ from file to file."""

    def __str__(self) -> str:
        return f"{self.source}@{self.revision}" if self.revision else self.source


def pinned(origin: T) -> T:
    """The origin at the commit that its revision is pinned to (`core.pins`); a path unchanged.

    Raises DataError where the hub does not resolve it.
    """
    if is_local(origin.source):
        return origin
    return replace(origin, revision=pin(DATA, origin.source, origin.revision, partial(_commit_of, origin)))


def _commit_of(origin: Origin) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(origin.source, revision=origin.revision).sha)
    except Exception as error:
        raise DataError(f"{origin.source}: not a local file or folder, and not found on the hub: {_brief(error)}") from None


@dataclass(frozen=True)
class Columns:
    """Dotted paths of the columns that are read, and names of others that are, too, where there are any."""

    paths: Collection[str]
    optional: Collection[str] = ()

    def of(self, names: list[str]) -> list[str] | None:
        """Those of a table's columns; None for all, where one is missing: whoever finds that says what there is."""
        read = {path if path in names else path.split(".")[0] for path in self.paths}
        chosen = [name for name in names if name in read or name in self.optional]
        return chosen if chosen and read <= set(names) else None


def scan(origin: Origin, key: str | None, columns: Columns | None = None) -> Iterator[ScannedRow]:
    """Every row of an origin, those that cannot be read included; ``key`` names the setting that it comes from, None for none.

    A hub id is read through `datasets`; with ``files`` those are fetched and read as they are. Of parquet only ``columns``
    are read, where given. A hub that is busy or away is asked again for some minutes. Raises DataError where a file is
    missing or not a table, ConfigError where DVC would not see it change.
    """
    if is_local(origin.source):
        if key:
            check_watched(Path(origin.source), key)
        for file in local_files(origin):
            yield from scan_files(file, columns)
    elif origin.files:
        folder = _snapshot(origin)
        for file in _named(folder, origin):
            for scanned in scan_files(file, columns):
                yield scanned._replace(where=f"{origin}:{scanned.where.removeprefix(f'{folder}/')}")
    elif origin.split is None:
        raise ConfigError(f"params.yaml: {key}: {origin.source}: name its `split`: only a path has all of it without one")
    else:
        for number, row in enumerate(_streamed(origin, columns), 1):
            yield ScannedRow(f"{origin}:{number}", row)


def _snapshot(origin: Origin) -> Path:
    """The folder of a data set's files that ``files`` names, downloaded where they are not yet; a cut download is resumed."""
    from huggingface_hub import snapshot_download

    at, files = origin.revision, origin.files
    try:
        return Path(
            patiently(partial(snapshot_download, origin.source, repo_type="dataset", revision=at, allow_patterns=files))
        )
    except Exception as error:
        raise DataError(f"{origin}: cannot be fetched from the hub: {_brief(error)}") from None


def _named(folder: Path, origin: Origin) -> list[Path]:
    """The files of a snapshot that ``files`` names: others may lie there, fetched before. Raises DataError where none does."""
    from huggingface_hub.utils import filter_repo_objects

    names = [str(path.relative_to(folder)) for path in files_of(folder)]
    found = sorted(filter_repo_objects(names, allow_patterns=origin.files))
    if not found:
        raise DataError(f"{origin}: no .jsonl or .parquet file matches {origin.files!r}")
    return [folder / name for name in found]


def _streamed(origin: Origin, columns: Columns | None) -> Iterator[Row]:
    """The rows of a hub data set; where the hub fails in the middle, reading continues behind the last row."""
    try:
        data, patience = patiently(partial(_opened, origin, columns)), Patience()
        while True:
            try:
                for row in data:
                    yield row
                    patience = Patience()
                return
            except Exception as error:
                patience.wait(error)
                data.load_state_dict(data.state_dict())
    except Exception as error:
        raise DataError(f"{origin}: cannot be read from the hub: {_brief(error)}") from None


def _opened(origin: Origin, columns: Columns | None) -> "IterableDataset":
    """A data set to be streamed: of parquet only ``columns``."""
    from datasets import load_dataset_builder

    build = partial(load_dataset_builder, origin.source, origin.config, revision=origin.revision)
    builder = build()
    data = builder.as_streaming_dataset(split=origin.split)
    wanted = columns.of(data.column_names or []) if columns and hasattr(builder.config, "columns") else None
    return build(columns=wanted).as_streaming_dataset(split=origin.split) if wanted else data


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())


def is_local(source: str) -> bool:
    """Raises DataError at a file of another kind."""
    path = Path(source)
    if path.suffix in OTHER_KINDS or (path.is_file() and path.suffix not in KINDS):
        raise DataError(f"{source}: only {' and '.join(KINDS)} are read, and folders of them")
    return path.suffix in KINDS or path.is_dir()


def is_typed(origin: Origin) -> bool:
    """Whether every row has every column, as in tables; rows of JSON lines may leave out what they have not."""
    names = [path.name for path in local_files(origin)] if is_local(origin.source) else [origin.files or ""]
    return not any(name.endswith((".jsonl", "*")) for name in names)


def files_of(path: Path) -> list[Path]:
    """The files of a source: itself, or all JSON lines and parquet in a folder, sorted."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix in KINDS and file.is_file())
    if not found:
        raise DataError(f"{path}: no .jsonl or .parquet file in this folder")
    return _once(found)


def _once(files: list[Path]) -> list[Path]:
    """Of two files that are named alike, as in data sets that are written in both forms, only parquet, which is sorted last."""
    return list({file.with_suffix(""): file for file in files}.values())


def local_files(origin: Origin) -> list[Path]:
    """The files of a local origin: those of its split, which `datasets` tells by their names. Raises DataError without any."""
    path = Path(origin.source)
    if given := [name for name in ("files", "config", "revision") if getattr(origin, name) is not None]:
        raise ConfigError(f"{path}: `{given[0]}` is for data sets on the hub, and this is a path; set it null")
    every = files_of(path)
    if origin.split is None or (origin.split == "train" and not path.is_dir()):
        return every
    of_splits = _split_files(path) if path.is_dir() else {"train": every}
    if not (found := of_splits.get(origin.split)):
        raise DataError(f"{path}: no split {origin.split!r}, only {', '.join(of_splits)}; `split: null` reads all of it")
    return found


def _split_files(folder: Path) -> dict[str, list[Path]]:
    from datasets.data_files import DataFilesDict, get_data_patterns

    patterns, kinds = get_data_patterns(str(folder)), list(KINDS)
    found = DataFilesDict.from_patterns(patterns, base_path=str(folder), allowed_extensions=kinds)
    return {str(split): _once(sorted(map(Path, files))) for split, files in found.items() if files}


def scan_files(path: Path, columns: Columns | None = None) -> Iterator[ScannedRow]:
    for file in files_of(path):
        yield from scan_json_lines(file) if file.suffix == ".jsonl" else scan_parquet(file, columns)


def scan_parquet(path: Path, columns: Columns | None = None) -> Iterator[ScannedRow]:
    """The rows of a parquet file. Raises DataError where the file is truncated or of another kind."""
    number = 0
    try:
        file = pq.ParquetFile(path)
        wanted = columns.of(file.schema_arrow.names) if columns else None
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=wanted):
            for row, problem in _rows_of(batch):
                number += 1
                yield ScannedRow(f"{path}:{number}", row, problem)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not parquet, or truncated: {' '.join(str(error).split())}") from None


def _rows_of(batch: pa.RecordBatch) -> Iterator[tuple[Row, str]]:
    """Rows with an empty problem; one by one where Python cannot represent a value (a date in the year 290,000)."""
    try:
        yield from ((row, "") for row in batch.to_pylist())
    except (ValueError, OverflowError) as error:
        if len(batch) == 1:
            yield {}, f"cannot be read: {error}"
        else:
            for i in range(len(batch)):
                yield from _rows_of(batch.slice(i, 1))


def check_watched(path: Path, key: str) -> None:
    """Raises where a local file is missing or is not tracked by DVC."""
    if not path.exists():
        raise DataError(f"{path}: no such file; {key} in params.yaml names it")
    world = Path(config.load(str, "world"))
    listed = world.suffix == ".json" and str(path) in read_json(world)
    if not (listed or path == world or world.resolve() in path.resolve().parents):
        raise ConfigError(
            f"params.yaml: {key}: {path} is not tracked by DVC (`world` is {world}), so its changes would go unseen; "
            "set `world` to the file or to a folder that holds it"
        )
