"""Starting the ranks of a training."""

import os
import subprocess
import sys
from pathlib import Path

from distillery.core.errors import DataError
from distillery.core.processes import die_with_parent
from distillery.core.stage import built_for_cpu
from distillery.training.config import Train

WORKER = "distillery.training.worker"
ONLY_RANK = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}
"""What torchrun tells a rank; nobody else connects to the port, so any free one will do."""


def on_cpu() -> bool:
    """Whether there is no GPU to train on."""
    if built_for_cpu():
        return True
    import torch

    return not torch.cuda.is_available()


def total_ranks(settings: Train) -> int:
    """Ranks on all machines together."""
    if settings.hostfile is None:
        return settings.processes
    lines = [line.split("#")[0].strip() for line in Path(settings.hostfile).read_text().splitlines()]
    return settings.processes * sum(map(bool, lines))


def has_one_rank(settings: Train) -> bool:
    """Whether a training is a single process on this machine."""
    return settings.hostfile is None and settings.processes == 1


def launcher(settings: Train) -> list[str]:
    """The command that starts the ranks, without the module that they run: torchrun here, DeepSpeed's across machines.

    A single rank needs neither, which saves another start of torch.
    """
    if settings.hostfile:
        machines = ["--hostfile", settings.hostfile, "--num_gpus", str(settings.processes)]
        return [sys.executable, "-m", "deepspeed.launcher.runner", *machines, "--no_local_rank", "--module"]
    if has_one_rank(settings):
        return [sys.executable, "-m"]
    ranks = f"--nproc-per-node={settings.processes}"
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", ranks, "-m"]


def run_ranks(arm: str, seeds: list[int], settings: Train) -> None:
    """Starts ranks that train with one seed after the other, and waits for them. Raises DataError where they fail."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    if on_cpu():
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}  # a sum over several threads depends on their number
    if has_one_rank(settings):
        environment |= ONLY_RANK
    command = [*launcher(settings), WORKER, arm, ",".join(map(str, seeds))]
    done = subprocess.run(command, env=environment, preexec_fn=die_with_parent)
    if done.returncode:
        what = f"training of {arm} with seed {', '.join(map(str, seeds))} ended with exit code {done.returncode}"
        raise DataError(f"{what}; finished students and checkpoints are kept, run again to go on")
