"""``python -m distillery.training.worker ARM SEED,SEED`` is what every rank of a training runs, started by the train stage.

Several seeds are trained one after the other.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from distillery.core import config, model_locks
from distillery.core.cpu_kernels import multiply_by_openblas
from distillery.core.files import write_json
from distillery.core.processes import die_with_parent
from distillery.core.progress import log
from distillery.core.stage import device, run_stage, versions
from distillery.training.callbacks import LiveLoss, Watcher, write_curve
from distillery.training.config import Train
from distillery.training.leakage import LeakageCheck
from distillery.training.packed_dataset import Windows
from distillery.training.resume import convert, deepspeed_settings, is_of_other_ranks
from distillery.training.store import CHECKPOINTS, finish, identity_of, latest_complete, step_of
from distillery.training.throughput import active_parameters, attention_width, flops, peak_memory, throughput
from distillery.training.trainer import save, trainer_arguments, trainer_of

PATIENCE = timedelta(hours=6)
PACKAGES = ("torch", "transformers", "deepspeed", "accelerate")


def results(windows: Windows, settings: Train, steps: int) -> dict[str, Any]:
    """Steps and data of a training; the same for every run of it."""
    tokens, share = windows.ids.size * settings.epochs, round(float(np.mean(windows.targets)), 4)
    return {"steps": steps, "windows": len(windows.ids), "tokens": tokens, "target_share": share}


def speed(model: Any, windows: Windows, settings: Train, trained: float, seconds: float, ranks: int) -> dict[str, Any]:
    """Throughput and memory of a run that did the share ``trained`` of all steps, earlier runs the rest."""
    layers, width = model.config.get_text_config().num_hidden_layers, attention_width(model.config)
    per_epoch = flops(active_parameters(model), active_parameters(model, trained=True), layers, width, windows.positions)
    passes = settings.epochs * trained
    figures = throughput(windows.ids.size * passes, per_epoch * passes, seconds, ranks)
    return figures | {"peak_memory_mib": peak_memory()}


def callbacks(student: str, settings: Train, windows: Windows, rank: int) -> list[Any]:
    """The check for leaking documents, and on the first rank DVCLive and a tracker."""
    from transformers.integrations import get_reporting_integration_callbacks

    found: list[Any] = [LeakageCheck(windows, settings.dtype)] if settings.packed else []
    if rank == 0:
        found += [LiveLoss(student), *get_reporting_integration_callbacks(settings.report_to)]
    return found


def resume_settings(settings: Train, checkpoint: Path | None, rank: int, ranks: int) -> dict[str, Any]:
    """DeepSpeed's settings; a checkpoint that other ranks wrote is converted first, while all wait."""
    import torch

    if checkpoint and rank == 0 and is_of_other_ranks(checkpoint, settings, ranks):
        convert(checkpoint)
    torch.distributed.barrier()
    return deepspeed_settings(settings, checkpoint, ranks)


def fit(arm: str, seed: int, settings: Train) -> None:
    """Trains; the first rank saves the student, its loss curve and the run's figures in the training's folder."""
    import torch
    from accelerate.state import AcceleratorState
    from transformers import set_seed

    base, packed, student = model_locks.read("base"), Path(f"data/packed/{arm}"), f"{arm}-{seed}"
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    output = CHECKPOINTS / identity_of(packed, settings, base, seed)
    resume = latest_complete(output)
    windows = Windows(packed, settings.global_batch)
    if rank == 0:
        log(f"train@{student}", f"resuming from {resume.name}" if resume else "starting")
    configuration = resume_settings(settings, resume, rank, ranks)
    multiply_by_openblas()
    set_seed(seed)
    chosen = trainer_arguments(settings, configuration, output, ranks, seed)
    chosen.run_name = f"{student}-{output.name}"
    watcher = Watcher(student, settings)
    trainer = trainer_of(settings, base, windows, chosen, [watcher, *callbacks(student, settings, windows, rank)])
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    save(trainer, settings, base, output / "student")
    if rank == 0:
        steps = trainer.state.global_step
        write_curve(trainer.state.log_history, output / "loss.csv")
        write_json(results(windows, settings, steps), output / "metrics.json")
        about = {"ranks": ranks, "resumed": bool(resume), "device": device(), "versions": versions(*PACKAGES)}
        trained = 1 - step_of(resume) / steps if resume else 1.0
        write_json(about | speed(trainer.model, windows, settings, trained, watcher.seconds, ranks), output / "run.json")
        finish(output)
    torch.distributed.barrier()
    AcceleratorState._reset_state(reset_partial_state=True)  # the next training's settings may not meet this one's


def exit_immediately() -> None:
    """Exits without interpreter teardown, which sometimes aborts (library threads); all that matters is on disk."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main(arm: str, seeds: str) -> None:
    import deepspeed
    import torch

    die_with_parent()
    # ZeRO 3 counts the ranks while it loads the model. The others wait while one converts a checkpoint or merges adapters.
    deepspeed.init_distributed(timeout=PATIENCE)
    for seed in seeds.split(","):
        fit(arm, int(seed), config.load(Train, "train"))
    torch.distributed.destroy_process_group()
    exit_immediately()


if __name__ == "__main__":
    run_stage(main)
