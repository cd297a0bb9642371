"""Callbacks of a training: progress, divergence (NaN or exploding loss), the loss curve."""

import csv
import math
import time
from pathlib import Path
from typing import Any

import torch
from dvclive import Live
from transformers import TrainerCallback
from transformers.integrations import DVCLiveCallback

from distillery.core.errors import DataError
from distillery.core.files import write_json
from distillery.core.progress import log
from distillery.training.config import Train
from distillery.training.store import COMPLETE

FIRST_STEPS, SUSTAINED_STEPS, EVERY = 10, 50, 5.0


class DivergedError(DataError):
    """Divergence: a loss that is not finite, or that climbs and stays high."""


def trouble(losses: list[float]) -> str | None:
    """What is wrong with a loss curve, one number per step: not finite, or doubled over the last 50 steps; None if nothing."""
    if losses and not math.isfinite(losses[-1]):
        return f"the loss is {losses[-1]} at step {len(losses)}"
    first, last = losses[:FIRST_STEPS], losses[-SUSTAINED_STEPS:]
    if len(losses) >= FIRST_STEPS + SUSTAINED_STEPS and min(last) > 2 * sum(first) / FIRST_STEPS:
        return f"the loss has been over twice its first {FIRST_STEPS} steps' for {SUSTAINED_STEPS} steps"
    return None


class Watcher(TrainerCallback):
    """Prints progress, stops a run that diverges, asks for checkpoints and marks each as complete once it is on disk."""

    def __init__(self, student: str, settings: Train) -> None:
        self.student, self.settings, self.steps = student, settings, 0
        self.began = self.ended = self.said = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """From the start of the first step to the end of the last: without start-up, with checkpoints."""
        return self.ended - self.began if self.steps else 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.began = self.began if self.steps else time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps, self.ended = self.steps + 1, time.monotonic()
        due = torch.tensor(
            [self.ended - self.saved >= 60 * self.settings.checkpoint_minutes], dtype=torch.int32, device=args.device
        )
        torch.distributed.broadcast(due, 0)  # the ranks' clocks differ, and all must save together
        control.should_save = bool(due)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" not in (logs or {}):
            return
        if why := trouble([float(row["loss"]) for row in state.log_history if "loss" in row]):
            raise DivergedError(f"{why}; lower train.learning_rate; checkpoints are kept in {args.output_dir}")
        now = time.monotonic()
        if state.is_world_process_zero and now - self.said > EVERY:
            self.said = now
            left = (now - self.began) / self.steps * (state.max_steps - state.global_step)
            at = f"step {state.global_step}/{state.max_steps}, loss {float(logs['loss']):.4f}, {left:.0f} s left"
            log(f"train@{self.student}", at)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.saved = time.monotonic()
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the Trainer lets rank 0 go on while others still write their random states
        if state.is_world_process_zero:
            ranks = {"ranks": args.world_size, "sequence_parallel": self.settings.sequence_parallel}
            write_json(ranks, Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE)


class LiveLoss(DVCLiveCallback):
    """Logs the loss to dvclive/ during training, for `dvc plots show` and the editor's extension.

    A resumed training writes the log anew from the checkpoint's own history: what a killed run left can be cut in the
    middle of a file, and holds steps after the checkpoint.
    """

    def __init__(self, student: str) -> None:
        super().__init__(live=Live(f"dvclive/{student}", dvcyaml=None, save_dvc_exp=False, report=None))

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        super().on_train_begin(args, state, control, **rest)
        for row in state.log_history:
            self.on_log(args, state, control, logs={name: value for name, value in row.items() if name != "step"})


def write_curve(history: list[dict[str, Any]], path: Path) -> None:
    """The loss curve: step, epoch, loss and learning rate, one line per step."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["step", "epoch", "loss", "learning_rate"])
        for row in history:
            if "loss" in row:
                table.writerow([row["step"], round(row["epoch"], 4), row["loss"], row["learning_rate"]])
