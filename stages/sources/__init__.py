"""Sources: rows from a local file of JSON lines or from a data set on the hub, pinned by its revision.

DVC must see a local file change. So every local file belongs to the ``world`` that params.yaml names and that DVC
watches: a manifest (JSON, path to hash) that lists it, the file itself, or a folder that holds it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages import params
from stages.params import ParamsError
from stages.tables import DataError, read_json, scan_json_lines

Row = dict[str, Any]


def scan(source: str, split: str, revision: str | None, key: str) -> Iterator[tuple[str, Row | DataError]]:
    """Yields (where it stands, row) for every row; ``key`` names the setting that ``source`` comes from.

    Raises DataError where a file is missing, ParamsError where DVC would not see it change.
    """
    if Path(source).suffix == ".jsonl":
        check_watched(Path(source), key)
        for number, row in scan_json_lines(source):
            yield f"{source}:{number}", row
        return
    from datasets import load_dataset

    rows = load_dataset(source, split=split, revision=revision, streaming=True)
    for number, row in enumerate(rows, 1):
        yield f"{source}@{revision}:{number}", row


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
