"""train: one student a teacher. transformers' Trainer over DeepSpeed, packed windows, loss on the last response only.

It launches ``processes`` ranks a machine (stages/training): under torchrun on this one, or by DeepSpeed's launcher on those
of ``hostfile``. DVCLive shows the loss in dvclive/ while it trains.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages import locks, params, provenance
from stages.processes import die_with_parent
from stages.provenance import say
from stages.tables import DataError, read_json, whole_folder, write_json
from stages.training import CHECKPOINTS, Train, accumulation, checkpoints_of, fit, on_cpu


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """Holds the training's lock: two runs into the same checkpoints would spoil both."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{output}: this training is already running; wait for it or end it") from None
        yield


def launcher(settings: Train) -> list[str]:
    """The command that starts the ranks, but for the module."""
    if settings.hostfile:
        machines = ["--hostfile", settings.hostfile, "--num_gpus", str(settings.processes)]
        return [sys.executable, "-m", "deepspeed.launcher.runner", *machines, "--no_local_rank", "--module"]
    ranks = f"--nproc-per-node={settings.processes}"
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", ranks, "-m"]


def run_ranks(teacher: str, settings: Train) -> None:
    """Starts the ranks and waits for them. Raises DataError where they fail."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    if on_cpu():
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // settings.processes))}
    done = subprocess.run([*launcher(settings), fit.__name__, teacher], env=environment, preexec_fn=die_with_parent)
    if done.returncode:
        raise DataError(
            f"training of {teacher} ended with exit code {done.returncode}; its checkpoints are kept in {CHECKPOINTS}"
        )


def main(teacher: str) -> None:
    settings = params.load(Train, "train")
    accumulation(settings, settings.processes)
    output = checkpoints_of(teacher, settings, locks.read("base"), params.load(int, "seed"))
    with alone(output):
        run_ranks(teacher, settings)
        with whole_folder(f"models/students/{teacher}") as folder:
            shutil.copytree(output / "student", folder, dirs_exist_ok=True)
        with whole_folder(f"data/training/{teacher}") as folder:
            shutil.copy(output / "loss.csv", folder)
        write_json(read_json(output / "run-0.json"), f"metrics/train/{teacher}.json")
        shutil.rmtree(output)
    say(f"train@{teacher}", f"student in models/students/{teacher}")


if __name__ == "__main__":
    provenance.run(main)
