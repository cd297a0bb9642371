"""Shares the ledger through the DVC remote: ``python -m distillery.generation.ledger_sharing push`` or ``pull``.

A colleague who fixes a verifier or adds a teacher then generates nothing that was ever generated. Finished files never change
and their names are unique, so files are only ever added, except those that a compaction has merged into others.
``data/ledger`` holds hard links to them, DVC tracks that folder as ``data/ledger.dvc``, and that file belongs in version
control. What a run is still writing is not shared. The folder is rebuilt each time, from the ledger and from what is tracked.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from distillery.core.errors import ConfigError, DataError
from distillery.core.journal import LOCK, MERGED, OPEN, REPLACED
from distillery.core.progress import log
from distillery.core.stage import run_stage
from distillery.generation.ledger import ROOT

SHARED = Path("data/ledger")
TRACKED = SHARED.with_suffix(".dvc")
USAGE = "usage: python -m distillery.generation.ledger_sharing {push,pull}"


def finished(folder: Path) -> Iterator[Path]:
    """The paths, relative to ``folder``, of all files of a ledger that never change."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        passing = path.name == LOCK or path.name.startswith(OPEN) or path.suffix == ".jsonl"  # an older version's
        passing |= REPLACED in inner.parts or any(part.endswith(".tmp") for part in inner.parts)
        if path.is_file() and not passing:
            yield inner


def merged(folder: Path) -> set[Path]:
    """The files, relative to ``folder``, whose records a compaction has written into others."""
    lists = [path for path in folder.rglob(f"{MERGED}*") if path.suffix != ".tmp"]
    return {path.relative_to(folder).with_name(name) for path in lists for name in path.read_text().splitlines()}


def add_missing(source: Path, target: Path) -> int:
    """Links every finished file of ``source`` that ``target`` lacks, or copies it to another file system; how many.

    A symbolic link, as DVC may make them into its cache, is followed.
    """
    old = merged(source) | merged(target)
    missing = [inner for inner in finished(source) if inner not in old and not (target / inner).exists()]
    for inner in missing:
        (target / inner).parent.mkdir(parents=True, exist_ok=True)
        coming = target / inner.with_name(f"{inner.name}.tmp")
        coming.unlink(missing_ok=True)
        try:
            os.link(os.path.realpath(source / inner), coming)
        except OSError:
            shutil.copyfile(source / inner, coming)
        coming.rename(target / inner)
    return len(missing)


def dvc(*arguments: str) -> None:
    """Runs DVC. Raises DataError with its own words where it fails."""
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"dvc {' '.join(arguments)}: {' '.join((done.stderr or done.stdout).split())}")


def merge_shared() -> int:
    """Adds what is tracked, and what an interrupted push has left, to this machine's ledger; how many files."""
    added = add_missing(SHARED, ROOT) if SHARED.exists() else 0
    shutil.rmtree(SHARED, ignore_errors=True)
    if TRACKED.exists():
        dvc("pull", str(TRACKED))
        added += add_missing(SHARED, ROOT)
    return added


def push() -> str:
    """Adds this machine's files to what is shared, and that to this machine's."""
    merge_shared()
    before = set(finished(SHARED))
    shutil.rmtree(SHARED, ignore_errors=True)
    if not add_missing(ROOT, SHARED):
        raise ConfigError(f"{ROOT}: no finished file there yet; nothing to share")
    added = len(set(finished(SHARED)) - before)
    dvc("add", str(SHARED))
    dvc("push", str(TRACKED))
    return f"{added} files added to the remote; commit {TRACKED} and {SHARED.parent / '.gitignore'}"


def pull() -> str:
    """Adds what is shared to this machine's ledger."""
    if not TRACKED.exists():
        raise ConfigError(f"{TRACKED}: not there; whoever has the ledger runs `make ledger-push` and commits that file")
    return f"{merge_shared()} files added to {ROOT}"


def main(direction: str = "") -> None:
    if direction not in ("push", "pull"):
        raise ConfigError(USAGE)
    log("ledger", push() if direction == "push" else pull())


if __name__ == "__main__":
    run_stage(main)
