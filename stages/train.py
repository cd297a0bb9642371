"""train: one student per teacher. transformers' Trainer over DeepSpeed, packed windows, loss on the last response only.

It starts ``processes`` ranks per machine, under torchrun on this one or by DeepSpeed's launcher on those of ``hostfile``.
DVCLive shows the loss in dvclive/ while it trains. A training that was finished before is restored without a step.
"""

import importlib.util
import shutil
from pathlib import Path

import numpy as np

from distillery.core import config, model_locks
from distillery.core.errors import ConfigError
from distillery.core.files import atomic_dir, read_json, write_json
from distillery.core.progress import log
from distillery.core.stage import run_stage, write_run
from distillery.training.config import Train
from distillery.training.launch import on_cpu, run_ranks, total_ranks
from distillery.training.memory import needed
from distillery.training.packed_dataset import accumulation
from distillery.training.store import ABOUT, CHECKPOINTS, exclusive_lock, finish, hand_back, identity_of, is_finished


def check(settings: Train) -> None:
    """Raises ConfigError for settings that cannot work together, and for a tracker that is not installed."""
    accumulation(settings, total_ranks(settings))
    if settings.sequence_parallel > 1 and not settings.attends_by_lengths:
        why = "sees across documents under sequence parallelism, since its mask is of one rank's part; take varlen or flash"
        raise ConfigError(f"params.yaml: train.attention: {settings.attention} {why}")
    if settings.report_to and importlib.util.find_spec(settings.report_to) is None:
        raise ConfigError(f"params.yaml: train.report_to: {settings.report_to} is not installed; `pip install` it or use null")


def window_of(teacher: str) -> int:
    """Tokens per window of a teacher's packed data."""
    return int(np.load(f"data/packed/{teacher}/ids.npy", mmap_mode="r").shape[1])


def main(teacher: str) -> None:
    settings, stage = config.load(Train, "train"), f"train@{teacher}"
    check(settings)
    base, seed = model_locks.read("base"), config.load(int, "seed")
    identity = identity_of(Path(f"data/packed/{teacher}"), settings, base, seed)
    output, metrics = CHECKPOINTS / identity, f"metrics/train/{teacher}.json"
    with exclusive_lock(output):
        reused = is_finished(output)
        if not reused:
            if not on_cpu() or settings.lora or settings.sequence_parallel > 1:
                log(stage, needed(settings, base, window_of(teacher), total_ranks(settings)))
            write_json({"teacher": teacher, "base": base.id, "seed": seed}, output / ABOUT)
            run_ranks(teacher, settings, output)
            finish(output)
        hand_back(output, Path(f"models/students/{teacher}"))
        with atomic_dir(f"data/training/{teacher}") as folder:
            shutil.copy(output / "loss.csv", folder)
        provenance = {"models": model_locks.brief(base)}
        write_json({"identity": identity, **read_json(output / "metrics.json"), "provenance": provenance}, metrics)
        write_run(read_json(output / "run.json") | {"reused": reused}, metrics)
    what = "this training was finished before, nothing to do" if reused else "trained"
    log(stage, f"{what}; student in models/students/{teacher}")


if __name__ == "__main__":
    run_stage(main)
