"""Files: JSON, JSON lines, CSV and text, each written completely or not at all."""

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from distillery.core.errors import DataError

Row = dict[str, Any]


class ScannedRow(NamedTuple):
    """One row of a source: where it is (``file:line``), and its fields, or why it cannot be read (``problem``)."""

    where: str
    row: Row
    problem: str = ""

    def checked(self) -> Row:
        """The fields. Raises DataError where the row cannot be read."""
        if self.problem:
            raise DataError(f"{self.where}: {self.problem}")
        return self.row


@contextmanager
def atomic_dir(folder: str | Path) -> Iterator[Path]:
    """A new folder to write into, which replaces ``folder`` when the block succeeds and is deleted when it fails."""
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


def sync(folder: Path) -> None:
    """Brings to disk which files a folder has; file systems that cannot are left alone."""
    file = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(file)
    finally:
        os.close(file)


def write_text(text: str, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def write_json(value: Any, path: str | Path) -> None:
    write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", path)


def read_json(path: str | Path) -> Any:
    """Raises DataError where the file is missing or is not JSON."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file; run `dvc repro` so that the stage that makes it runs first")
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def write_csv(rows: list[Row], path: Path) -> None:
    """At least one row; the first one's fields are the columns."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_json_lines(rows: Iterable[Row], path: str | Path) -> None:
    write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), path)


def read_json_lines(path: str | Path) -> list[Row]:
    """All rows of a file. Raises DataError, naming file and line, at the first that is not a JSON object."""
    return [scanned.checked() for scanned in scan_json_lines(path)]


def scan_json_lines(path: str | Path) -> Iterator[ScannedRow]:
    """Every row of a file, blank lines skipped. Raises DataError where the file is missing."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parse_line(line, f"{path}:{number}")


def _parse_line(line: bytes, where: str) -> ScannedRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return ScannedRow(where, {}, f"malformed JSON: {error}")
    if not isinstance(row, dict):
        return ScannedRow(where, {}, f"expected an object, got {type(row).__name__}")
    return ScannedRow(where, row)
