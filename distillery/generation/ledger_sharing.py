"""Shares the ledger through the DVC remote: ``python -m distillery.generation.ledger_sharing push`` or ``pull``.

So a colleague who mends a verifier or adds a teacher generates nothing that was ever generated. Finished files never change and
have names of their own, so sharing is adding: ``data/ledger`` holds hard links to them, DVC tracks that folder as
``data/ledger.dvc``, and that file belongs into version control. What a run is still writing is not shared.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from distillery.core.errors import ConfigError, DataError
from distillery.core.journal import LOCK, OPEN, REPLACED
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
        passing = path.name == LOCK or path.name.startswith(OPEN) or any(part.endswith(".tmp") for part in inner.parts)
        if path.is_file() and not passing and REPLACED not in inner.parts:
            yield inner


def add_missing(source: Path, target: Path) -> int:
    """Links every finished file of ``source`` that ``target`` lacks, or copies it to another file system; how many."""
    missing = [inner for inner in finished(source) if not (target / inner).exists()]
    for inner in missing:
        (target / inner).parent.mkdir(parents=True, exist_ok=True)
        coming = target / inner.with_name(f"{inner.name}.tmp")
        coming.unlink(missing_ok=True)
        try:
            os.link(source / inner, coming)
        except OSError:
            shutil.copyfile(source / inner, coming)
        coming.rename(target / inner)
    return len(missing)


def dvc(*arguments: str) -> None:
    """Runs DVC. Raises DataError with its own words where it fails."""
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"dvc {' '.join(arguments)}: {' '.join((done.stderr or done.stdout).split())}")


def push() -> str:
    """Adds this machine's files to what is shared, and that to this machine's."""
    if TRACKED.exists():
        dvc("pull", str(TRACKED))
        add_missing(SHARED, ROOT)
    added = add_missing(ROOT, SHARED)
    if not SHARED.exists():
        raise ConfigError(f"{ROOT}: no finished file there yet; nothing to share")
    dvc("add", str(SHARED))
    dvc("push", str(TRACKED))
    return f"{added} files added to the remote; commit {TRACKED} and {SHARED.parent / '.gitignore'}"


def pull() -> str:
    """Adds what is shared to this machine's ledger."""
    if not TRACKED.exists():
        raise ConfigError(f"{TRACKED}: not there; whoever has the ledger runs `make ledger-push` and commits that file")
    dvc("pull", str(TRACKED))
    return f"{add_missing(SHARED, ROOT)} files added to {ROOT}"


def main(direction: str = "") -> None:
    if direction not in ("push", "pull"):
        raise ConfigError(USAGE)
    log("ledger", push() if direction == "push" else pull())


if __name__ == "__main__":
    run_stage(main)
