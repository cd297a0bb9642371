"""Pins: the commit on the hub that a revision meant when it was first asked for.

Branches move, and a study must not move with them: what was generated with one commit's weights would be paid for again because
of an edited README. ``pins.json`` keeps every pin, and belongs into version control.

``python -m distillery.core.pins`` lists them, ``python -m distillery.core.pins --move ID`` forgets those of an id; the stages
that lock it (assets, collect, benchmarks) then ask the hub again, when they run.
"""

import fcntl
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from distillery.core.errors import ConfigError
from distillery.core.files import read_json, write_json
from distillery.core.stage import run_stage

PINS = Path("pins.json")
MODEL, DATA = "model", "dataset"
COMMIT = re.compile("[0-9a-f]{40}")


def pin(kind: str, name: str, revision: str | None, resolve: Callable[[], str]) -> str:
    """The commit of a model's or data set's revision: pinned before, or what ``resolve`` says now. A commit is its own."""
    if COMMIT.fullmatch(revision or ""):
        return str(revision)
    key = f"{kind} {name}@{revision or 'main'}"
    if found := read_pins().get(key):
        return found
    commit = resolve()
    with _alone():
        write_json(dict(sorted({**read_pins(), key: commit}.items())), PINS)
    return commit


def read_pins() -> dict[str, str]:
    return dict(read_json(PINS)) if PINS.exists() else {}


@contextmanager
def _alone() -> Iterator[None]:
    """Two teachers' stages may pin at the same time."""
    with PINS.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(*arguments: str) -> None:
    if not arguments:
        print("\n".join(f"{key}  {commit}" for key, commit in read_pins().items()) or f"{PINS}: no pins")
    elif len(arguments) == 2 and arguments[0] == "--move":
        with _alone():
            kept = {key: commit for key, commit in read_pins().items() if key.split(" ", 1)[1].split("@")[0] != arguments[1]}
            moved = len(read_pins()) - len(kept)
            if not moved:
                raise ConfigError(f"{PINS}: no pin of {arguments[1]!r}; `python -m distillery.core.pins` lists them")
            write_json(kept, PINS)
        print(f"{moved} pins of {arguments[1]} forgotten; `dvc repro --force --single-item STAGE` locks it anew")
    else:
        sys.exit("usage: python -m distillery.core.pins [--move ID]")


if __name__ == "__main__":
    run_stage(main)
