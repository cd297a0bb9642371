"""The teachers that params.yaml names, and the folders that hold one entry for each of them."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from distillery.core import config
from distillery.core.errors import ConfigError, DataError

BASE = "base"
"""The model that every student starts from; it is listed with the students."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def teacher_names() -> list[str]:
    """The names under ``teachers`` in params.yaml. Raises ConfigError where there is none, or one is invalid."""
    return check_names("teachers", config.load(list[str], "teachers"))


def check_names(section: str, names: list[str]) -> list[str]:
    """The names of a section of params.yaml. Raises ConfigError where there is none, or one is invalid."""
    if not names:
        raise ConfigError(f"params.yaml: {section}: empty; name at least one, with its settings under `{section[:-1]}`")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"params.yaml: {section}: duplicate {section[:-1]} {name!r}")
        if name == BASE or not NAME.fullmatch(name):
            raise ConfigError(f"params.yaml: {section}: {name!r} cannot be a name; use letters, digits, - and _, not {BASE!r}")
    return names


def keep_only(folder: str | Path, names: Iterable[str], suffix: str = "") -> None:
    """Deletes the entries of removed teachers from a folder with one entry (``name + suffix``) per teacher.

    A stage that reads all teachers depends on the folder, so an extra entry would change what DVC records for it from one
    clone to the next. Raises DataError where an entry is missing, as after a `dvc pull` of only some outputs.
    """
    folder, wanted = Path(folder), {f"{name}{suffix}" for name in names}
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if missing := sorted(wanted - present):
        raise DataError(f"{folder / missing[0]}: missing; run `dvc pull`, or `dvc repro` to make it")
    for name in present - wanted - {".gitignore"}:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
