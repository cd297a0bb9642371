"""train: one student a teacher. transformers' Trainer over DeepSpeed, packed windows, loss on the last response only.

Started plainly it launches itself with ``processes`` ranks a machine: under torchrun on this one, or by DeepSpeed's
launcher on those of ``hostfile``. Checkpoints stand outside the stage's outputs, named by what is trained, so that a
killed run goes on from the last whole one. DVCLive shows the loss in dvclive/ while it trains.
"""

import csv
import fcntl
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages import locks, params, provenance
from stages.messages import end_of_turn
from stages.params import Section
from stages.processes import die_with_parent
from stages.provenance import device, say
from stages.tables import DataError, read_json, whole_folder, write_json
from stages.throughput import flops, peak_memory, throughput

IGNORED = -100
CHECKPOINTS = Path(os.environ.get("DVC_ROOT", ".")).resolve() / ".checkpoints"
WHOLE = "whole"
CALM, SUSTAINED, EVERY = 10, 50, 5.0


@dataclass(frozen=True)
class Train(Section):
    """``global_batch`` in windows, whatever the ranks; ``micro_batch`` windows a rank a pass; ``warmup`` share of steps."""

    processes: int
    deepspeed: str
    dtype: str
    learning_rate: float
    warmup: float
    epochs: int
    global_batch: int
    micro_batch: int
    weight_decay: float
    gradient_checkpointing: bool
    checkpoint_every: int
    attention: str
    liger: bool
    hostfile: str | None


class DivergedError(DataError):
    """A loss that is no number any more, or that climbs and stays high."""


def trouble(losses: list[float]) -> str | None:
    """What is wrong with a loss curve, a number a step: not finite, or doubled over the last 50 steps; None if nothing."""
    if losses and not math.isfinite(losses[-1]):
        return f"the loss is {losses[-1]} at step {len(losses)}"
    first, last = losses[:CALM], losses[-SUSTAINED:]
    if len(losses) >= CALM + SUSTAINED and min(last) > 2 * sum(first) / CALM:
        return f"the loss has been over twice its first {CALM} steps' for {SUSTAINED} steps"
    return None


class Windows:
    """Packed windows as the Trainer wants them.

    There is no attention mask: with restarting positions, its absence is what keeps documents apart. Blank windows without
    a label fill the last batch up to ``multiple``: otherwise ranks would repeat windows there, each number of ranks others.
    """

    def __init__(self, folder: Path, multiple: int):
        names = ("ids", "targets", "positions")
        self.ids, self.targets, self.positions = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in names)
        self.count = -(-len(self.ids) // multiple) * multiple

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if index >= len(self.ids):
            window = self.ids.shape[1]
            blank = np.zeros(window, np.int64)
            return {"input_ids": blank, "labels": blank + IGNORED, "position_ids": np.arange(window)}
        ids = self.ids[index].astype(np.int64)
        labels = np.where(self.targets[index], ids, IGNORED)
        return {"input_ids": ids, "labels": labels, "position_ids": self.positions[index]}


def collate(rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.stack([row[name] for row in rows]).astype(np.int64)) for name in rows[0]}


def accumulation(settings: Train, ranks: int) -> int:
    """Passes a step, so that the global batch is the same whatever the ranks. Raises where it cannot be."""
    if settings.attention.startswith("flash") and settings.micro_batch > 1:
        raise params.ParamsError("params.yaml: train.micro_batch: must be 1 with flash attention, or documents see each other")
    a_pass = settings.micro_batch * ranks
    if settings.global_batch % a_pass:
        raise params.ParamsError(
            f"params.yaml: train.global_batch: {settings.global_batch} is no multiple of "
            f"micro_batch x processes = {settings.micro_batch} x {ranks}"
        )
    return settings.global_batch // a_pass


def job(teacher: str, settings: Train, lock: locks.Lock, seed: int) -> str:
    """A name for exactly this training: its data, base and settings."""
    digest = hashlib.sha256(json.dumps([asdict(settings), lock.revision, seed], sort_keys=True).encode())
    for path in (Path(settings.deepspeed), *sorted(Path(f"data/packed/{teacher}").glob("*.npy"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{teacher}-{digest.hexdigest()[:16]}"


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    steps = [path for path in folder.glob("checkpoint-*") if (path / WHOLE).exists()]
    return max(steps, key=lambda path: int(path.name.split("-")[1]), default=None)


def arguments(settings: Train, output: Path, ranks: int, seed: int) -> Any:
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=settings.micro_batch,
        gradient_accumulation_steps=accumulation(settings, ranks),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        bf16=settings.dtype == "bfloat16",
        gradient_checkpointing=settings.gradient_checkpointing,
        deepspeed=settings.deepspeed,
        save_steps=settings.checkpoint_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        use_liger_kernel=settings.liger,
        dataloader_drop_last=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        use_cpu=on_cpu(),
    )


def on_cpu() -> bool:
    import torch

    return not torch.cuda.is_available()


def watcher(teacher: str) -> Any:
    """Prints progress, stops a run that has come to nothing, and marks each checkpoint whole once all of it is on disk."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        def __init__(self) -> None:
            self.began = self.ended = self.said = time.monotonic()
            self.steps = 0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = self.began if self.steps else time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.steps, self.ended = self.steps + 1, time.monotonic()

        @property
        def seconds(self) -> float:
            """From the first step's begin to the last one's end: without start-up, with the checkpoints between."""
            return self.ended - self.began if self.steps else 0.0

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
                say(f"train@{teacher}", at)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()

    return Watcher()


def fit(teacher: str, settings: Train) -> None:
    """Runs in every rank: trains, and in the first rank saves the student and its loss curve."""
    import deepspeed
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, Trainer, set_seed

    seed, lock, ranks = params.load(int, "seed"), locks.read("base"), int(os.environ["WORLD_SIZE"])
    output = CHECKPOINTS / job(teacher, settings, lock, seed)
    set_seed(seed)
    deepspeed.init_distributed()  # ZeRO 3 counts the ranks while it loads the model
    chosen = arguments(settings, output, ranks, seed)
    model = AutoModelForCausalLM.from_pretrained(
        lock.id, revision=lock.hub_revision, dtype=settings.dtype, attn_implementation=settings.attention
    )
    model.config.use_cache = False
    size = sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in model.parameters())
    windows = Windows(Path(f"data/packed/{teacher}"), settings.global_batch)
    watched = watcher(teacher)
    callbacks = [watched, *([live(teacher, bool(last_whole(output)))] if int(os.environ["RANK"]) == 0 else [])]
    trainer = Trainer(model=model, args=chosen, train_dataset=windows, data_collator=collate, callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    facts = output / f"run-{os.environ['RANK']}.json"
    with provenance.record(facts, "torch", "transformers", "deepspeed", "accelerate", device=device()) as metrics:
        resume = last_whole(output)
        if resume and trainer.is_world_process_zero():
            say(f"train@{teacher}", f"going on from {resume.name}")
        before = int(resume.name.split("-")[1]) if resume else 0
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        steps = trainer.state.global_step
        metrics.update(steps=steps, ranks=ranks, resumed=bool(resume), windows=len(windows.ids))
        share = (steps - before) / steps
        done = (
            settings.epochs * share * flops(size, model.config.num_hidden_layers, model.config.hidden_size, windows.positions)
        )
        metrics.update(tokens=windows.ids.size * settings.epochs, target_share=round(float(np.mean(windows.targets)), 4))
        metrics.update(throughput(windows.ids.size * settings.epochs * share, done, watched.seconds, ranks))
        metrics["peak_memory_mib"] = peak_memory()
        metrics["provenance"] = {"models": locks.brief(lock)}
    model.config.use_cache = True
    tokenizer = AutoTokenizer.from_pretrained(lock.id, revision=lock.hub_revision)
    tokenizer.eos_token = end_of_turn(tokenizer)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    trainer.save_model(str(output / "student"))
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(output / "student")
        write_curve(trainer.state.log_history, output / "loss.csv")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def live(teacher: str, resume: bool) -> Any:
    """Shows the loss in dvclive/ as it goes, for `dvc plots show` and the editor's extension."""
    from dvclive import Live
    from transformers.integrations import DVCLiveCallback

    return DVCLiveCallback(live=Live(f"dvclive/{teacher}", dvcyaml=None, save_dvc_exp=False, report=None, resume=resume))


def write_curve(history: list[dict[str, Any]], path: Path) -> None:
    """The loss curve: step, epoch, loss and learning rate, a line a step."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["step", "epoch", "loss", "learning_rate"])
        for row in history:
            if "loss" in row:
                table.writerow([row["step"], round(row["epoch"], 4), row["loss"], row["learning_rate"]])


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


def launch(teacher: str, settings: Train) -> None:
    """Runs this file under torchrun and moves what it made into place."""
    accumulation(settings, settings.processes)
    output = CHECKPOINTS / job(teacher, settings, locks.read("base"), params.load(int, "seed"))
    with alone(output):
        run_ranks(teacher, settings)
        with whole_folder(f"models/students/{teacher}") as folder:
            shutil.copytree(output / "student", folder, dirs_exist_ok=True)
        with whole_folder(f"data/training/{teacher}") as folder:
            shutil.copy(output / "loss.csv", folder)
        write_json(read_json(output / "run-0.json"), f"metrics/train/{teacher}.json")
        shutil.rmtree(output)


def launcher(settings: Train) -> list[str]:
    """The command that starts the ranks, but for the module."""
    if settings.hostfile:
        return ["deepspeed", "--hostfile", settings.hostfile, "--num_gpus", str(settings.processes), "--module"]
    ranks = f"--nproc-per-node={settings.processes}"
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", ranks, "-m"]


def run_ranks(teacher: str, settings: Train) -> None:
    """Starts the ranks and waits for them. Raises DataError where they fail."""
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    if on_cpu():
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // settings.processes))}
    done = subprocess.run([*launcher(settings), "stages.train", teacher], env=environment, preexec_fn=die_with_parent)
    if done.returncode:
        raise DataError(
            f"training of {teacher} ended with exit code {done.returncode}; its checkpoints are kept in {CHECKPOINTS}"
        )


def leave() -> None:
    """Ends a rank whose work is on disk, at once: torn down bit by bit, libraries' threads now and then abort it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main(teacher: str) -> None:
    settings = params.load(Train, "train")
    if "RANK" in os.environ:
        die_with_parent()
        fit(teacher, settings)
        leave()
    else:
        launch(teacher, settings)
        say(f"train@{teacher}", f"student in models/students/{teacher}")


if __name__ == "__main__":
    provenance.run(main)
