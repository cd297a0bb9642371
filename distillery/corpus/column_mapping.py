"""Which columns of a source hold what: our names to dotted paths, to texts with columns in them, or to objects of columns."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from distillery.core.chat import get_path
from distillery.core.errors import ConfigError
from distillery.core.files import ScannedRow

FIRST_ROWS = 1000
HOLE = re.compile(r"\{([^{}]+)\}")
Column = str | dict[str, str]


def as_text(value: Any) -> str | None:
    """Free-form fields as text: a string as it is, anything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def resolve_column(row: dict[str, Any], column: Column) -> Any:
    """The value of a column: at a dotted path, as a text with columns in it, ``{Question}\\nA. {A}``, or an object of columns.

    None where a column of a text is missing, or all of an object.
    """
    if isinstance(column, dict):
        found = {name: resolve_column(row, each) for name, each in column.items()}
        return None if set(map(type, found.values())) <= {type(None)} else found
    if not HOLE.search(column):
        return get_path(row, column)
    values = {path: as_text(get_path(row, path)) for path in HOLE.findall(column)}
    return None if None in values.values() else HOLE.sub(lambda hole: str(values[hole[1]]), column)


def paths_of(column: Column) -> list[str]:
    """The dotted paths that one mapping reads."""
    if isinstance(column, dict):
        return [path for each in column.values() for path in paths_of(each)]
    return HOLE.findall(column) or [column]


def named_columns(columns: Mapping[str, Column], where: Mapping[str, str]) -> dict[str, str]:
    """The dotted paths that a source's settings name, to the setting that names each."""
    named = {path: f"where.{path}" for path in where}
    return named | {path: f"columns.{name}" for name, column in columns.items() for path in paths_of(column)}


def check_columns(rows: Iterator[ScannedRow], named: Mapping[str, str], key: str, typed: bool) -> Iterator[ScannedRow]:
    """The rows unchanged. Raises ConfigError where none of the first ones has a column that is ``named`` (`named_columns`).

    Where rows may leave out what they have not, they are not ``typed``, and what only fills an optional field is missed at
    the end.
    """
    missing, seen = dict(named), dict[str, None]()
    number = 0
    for number, scanned in enumerate(rows, 1):
        if not scanned.problem and missing:
            seen |= dict.fromkeys(scanned.row)
            missing = {path: name for path, name in missing.items() if not may_exist(scanned.row, path)}
        if number == FIRST_ROWS:
            needed = [path for path, name in missing.items() if typed or name.startswith(("where.", "columns.messages"))]
            _complain(key, missing, needed, seen, number)
        yield scanned
    _complain(key, missing, list(missing), seen, number)


def may_exist(row: dict[str, Any], path: str) -> bool:
    """Whether a row has what a dotted path names, or nothing on the way there that could have it."""
    value: Any = row
    for step in path.split(".") if path not in row else ():
        if value is None or value == []:
            return True
        if isinstance(value, list) and step.removeprefix("-").isdecimal():
            value = value[0]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return False
    return True


def _complain(key: str, missing: dict[str, str], paths: list[str], seen: dict[str, None], rows: int) -> None:
    if paths and seen:
        has = ", ".join(seen)
        raise ConfigError(
            f"params.yaml: {key}.{missing[paths[0]]}: no column {paths[0]!r} in the first {rows} rows; they have {has}"
        )
