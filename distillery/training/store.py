"""Trainings, stored by a hash of what determines their weights, so that none is ever repeated.

A training's folder, ``.checkpoints/<identity>``, is outside the stage's outputs: a killed run resumes from its latest
complete checkpoint, and a finished one is restored by hard link whenever the same training is requested again.

The identity is a hash of the packed data, the base, the seed, the settings that change the weights, and the code in
IDENTITY_CODE. A change anywhere else (an error message, a log line, how often checkpoints are written) retrains nothing.

``python -m distillery.training.store`` lists what is stored and what is unreferenced; ``--free`` deletes the latter.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distillery.core.codehash import hash_code
from distillery.core.errors import DataError
from distillery.core.files import atomic_dir, read_json, write_json
from distillery.core.model_locks import Lock
from distillery.core.progress import log
from distillery.core.stage import run_stage
from distillery.training.config import Train
from distillery.training.packed_files import DIGEST

CHECKPOINTS = Path(os.environ.get("DVC_ROOT", ".")).resolve() / ".checkpoints"
COMPLETE, FINISHED, ABOUT = "complete", "finished.json", "training.json"
IDENTITY_CODE = ("distillery.training.trainer", "distillery.training.packed_dataset", "distillery.training.attention")
WITHOUT_EFFECT = (
    "seeds",
    "processes",
    "hostfile",
    "sequence_parallel",
    "checkpoint_minutes",
    "report_to",
    "deepspeed",
    "packed",
    "system_prompt",
)
"""Settings that do not change the weights beyond rounding; of ``deepspeed`` the file's content counts, not its path.
``packed`` and the system prompt count as part of the data; of ``seeds`` each is one training's."""


def identity_of(packed: Path, settings: Train, base: Lock, seed: int) -> str:
    """A training's identity, 16 hexadecimal digits. Raises DataError where the packed data has no hash."""
    path = packed / DIGEST
    if not path.exists():
        raise DataError(f"{path}: missing; run `dvc repro` to pack the data again")
    about = {
        "data": path.read_text().strip(),
        "base": base.revision,
        "seed": seed,
        "settings": {name: value for name, value in asdict(settings).items() if name not in WITHOUT_EFFECT},
        "deepspeed": read_json(settings.deepspeed),
        "code": hash_code(IDENTITY_CODE),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def exclusive_lock(folder: Path, waits_as: str | None = None) -> Iterator[None]:
    """Holds a training's lock: two runs on the same checkpoints would corrupt both.

    Where another run holds it, ``waits_as`` names who waits for that one's end. Raises DataError where nobody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waits_as is None:
                raise DataError(f"{folder}: this training is already running; wait for it or end it") from None
            log(waits_as, f"waits for another run of the same training ({folder})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def latest_complete(folder: Path) -> Path | None:
    """The latest complete checkpoint."""
    return max((path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")), key=step_of, default=None)


def hashes_of(folder: Path) -> dict[str, str]:
    """Every file of a student and its sha256."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def finish(folder: Path) -> None:
    """Marks a training as finished, with the hash of each file of its student; its checkpoints are deleted."""
    write_json(hashes_of(folder / "student"), folder / FINISHED)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def is_finished(folder: Path) -> bool:
    """Whether the student exists and is intact. A damaged one is deleted, so that it is trained again."""
    if not (folder / FINISHED).exists():
        return False
    if (folder / "student").is_dir() and hashes_of(folder / "student") == read_json(folder / FINISHED):
        return True
    (folder / FINISHED).unlink()
    shutil.rmtree(folder / "student", ignore_errors=True)
    return False


def hand_back(folder: Path, student: Path) -> None:
    """Puts a finished student in its place: hard links, or copies on another file system."""
    with atomic_dir(student) as target:
        for path in (folder / "student").iterdir():
            try:
                os.link(path, target / path.name)
            except OSError:
                shutil.copy(path, target)


def referred_to() -> set[str]:
    """The identities that trainings' metrics refer to: in the workspace, and in every branch and tag, as DVC has them.

    Raises DataError where DVC cannot say: nothing must be deleted then.
    """
    found = {each for path in Path("metrics/train").glob("*.json") for each in identities_of(read_json(path))}
    command = [sys.executable, "-m", "dvc", "metrics", "show", "--all-branches", "--all-tags", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"`dvc metrics show` failed, so it is unknown which trainings are referred to: {done.stderr.strip()}")
    revisions: dict[str, Any] = json.loads(done.stdout)
    for revision in revisions.values():
        for path, metrics in revision.get("data", {}).items():
            if path.startswith("metrics/train/"):
                found |= set(identities_of(metrics.get("data", {})))
    return found


def identities_of(metrics: dict[str, Any]) -> list[str]:
    """The trainings that one metrics file refers to; before there were several seeds, it was one."""
    found = [metrics, *metrics.get("students", {}).values()]
    return [each["identity"] for each in found if "identity" in each]


def size_of(folder: Path) -> int:
    """Bytes on disk that deleting the folder frees: files with further hard links (a student in its place) do not count."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)


def state_of(folder: Path) -> str:
    if (folder / FINISHED).exists():
        return "finished"
    checkpoint = latest_complete(folder)
    return f"stopped after step {step_of(checkpoint)}" if checkpoint else "stopped before its first checkpoint"


def main(*arguments: str) -> None:
    if arguments not in ((), ("--free",)):
        sys.exit("usage: python -m distillery.training.store [--free]")
    wanted, freed = referred_to(), 0
    for folder in sorted(path for path in CHECKPOINTS.glob("*") if path.is_dir()):
        about = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
        state = "in use" if folder.name in wanted else "nothing refers to it"
        size = size_of(folder)
        name = about.get("arm", about.get("teacher", "?"))  # the latter before arms had names of their own
        print(f"{folder.name}  {name:16} {size / 1e6:10.1f} MB  {state_of(folder)}, {state}")
        if arguments and folder.name not in wanted:
            with exclusive_lock(folder):
                shutil.rmtree(folder)
            freed += size
    print(f"{freed / 1e6:.1f} MB freed" if arguments else "`make gc FREE=1` deletes those that nothing refers to")


if __name__ == "__main__":
    run_stage(main)
