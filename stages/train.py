"""train: one student per arm and seed. transformers' Trainer over DeepSpeed, packed windows, loss on the last response only.

``python -m stages.train ARM SEED`` trains one of them ahead, as several machines do side by side; the stage finds it. A
training starts ``processes`` ranks per machine, several under torchrun on this one or by DeepSpeed's launcher on those of
``hostfile``. DVCLive shows the loss in dvclive/ while it trains. A finished training is restored without a step.
"""

import importlib.util
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from distillery.core import config, model_locks
from distillery.core.errors import ConfigError
from distillery.core.files import atomic_dir, read_json, write_json
from distillery.core.model_locks import Lock
from distillery.core.progress import log
from distillery.core.stage import run_stage, write_run
from distillery.core.teachers import keep_only
from distillery.training.config import Train
from distillery.training.launch import on_cpu, run_ranks, total_ranks
from distillery.training.memory import needed
from distillery.training.packed_dataset import accumulation
from distillery.training.store import ABOUT, CHECKPOINTS, exclusive_lock, hand_back, identity_of, is_finished


def check(settings: Train) -> None:
    """Raises ConfigError for settings that cannot work together, and for a tracker that is not installed."""
    accumulation(settings, total_ranks(settings))
    if settings.sequence_parallel > 1 and not settings.attends_by_lengths:
        why = "sees across documents under sequence parallelism, since its mask is of one rank's part; take varlen or flash"
        raise ConfigError(f"params.yaml: train.attention: {settings.attention} {why}")
    if settings.report_to and importlib.util.find_spec(settings.report_to) is None:
        raise ConfigError(f"params.yaml: train.report_to: {settings.report_to} is not installed; `pip install` it or use null")


def window_of(arm: str) -> int:
    """Tokens per window of an arm's packed data."""
    return int(np.load(f"data/packed/{arm}/ids.npy", mmap_mode="r").shape[1])


def train(arm: str, seeds: list[int], settings: Train, base: Lock) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    """Trains students, or finds them trained, and puts them in their places; by seed, metrics and the run's information.

    On the CPU one process trains them all, which saves its start. On GPUs each has its own, which surely frees the memory.
    """
    outputs = {seed: CHECKPOINTS / identity_of(Path(f"data/packed/{arm}"), settings, base, seed) for seed in seeds}
    with ExitStack() as locks:
        for output in sorted(outputs.values()):  # arms of the same data are one training: whoever comes second waits
            locks.enter_context(exclusive_lock(output, f"train@{arm}"))
        missing = [seed for seed, output in outputs.items() if not is_finished(output)]
        for seed in missing:
            write_json({"arm": arm, "base": base.id, "seed": seed}, outputs[seed] / ABOUT)
        if missing and (not on_cpu() or settings.lora or settings.sequence_parallel > 1):
            log(f"train@{arm}", needed(settings, base, window_of(arm), total_ranks(settings)))
        for together in [missing] if missing and on_cpu() else [[seed] for seed in missing]:
            run_ranks(arm, together, settings)
        return {seed: placed(arm, seed, output, seed not in missing) for seed, output in outputs.items()}


def placed(arm: str, seed: int, output: Path, reused: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Puts a finished student in its place; its metrics and its run's information."""
    student = f"models/students/{arm}/{seed}"
    hand_back(output, Path(student))
    with atomic_dir(f"data/training/{arm}/{seed}") as folder:
        shutil.copy(output / "loss.csv", folder)
    what = "this training was finished before, nothing to do" if reused else "trained"
    log(f"train@{arm}-{seed}", f"{what}; student in {student}")
    run = read_json(output / "run.json") | {"reused": reused}
    return {"identity": output.name, **read_json(output / "metrics.json")}, run


def main(arm: str, seed: str | None = None) -> None:
    settings, base = config.load(Train, "train"), model_locks.read("base")
    check(settings)
    if seed is not None:
        train(arm, [seed_of(seed, settings)], settings, base)
        return
    students = train(arm, list(settings.seeds), settings, base)
    for folder in (f"models/students/{arm}", f"data/training/{arm}"):
        keep_only(folder, map(str, settings.seeds))
    metrics = f"metrics/train/{arm}.json"
    about, runs = ({str(each): found[i] for each, found in students.items()} for i in (0, 1))
    write_json({"students": about, "provenance": {"models": model_locks.brief(base)}}, metrics)
    last = runs[str(settings.seeds[-1])]
    write_run({"device": last["device"], "versions": last["versions"], "students": runs}, metrics)


def seed_of(text: str, settings: Train) -> int:
    """One of ``train.seeds``. Raises ConfigError for any other."""
    if text not in map(str, settings.seeds):
        raise ConfigError(f"params.yaml: train.seeds: {text!r} is none of {', '.join(map(str, settings.seeds))}")
    return int(text)


if __name__ == "__main__":
    run_stage(main)
