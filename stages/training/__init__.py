"""What a training is: its settings, its name, its checkpoints.

Checkpoints stand outside the stage's outputs, in a folder named by what is trained, so that a killed run goes on from the
last whole one.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.locks import Lock
from stages.params import ParamsError, Section

CHECKPOINTS = Path(os.environ.get("DVC_ROOT", ".")).resolve() / ".checkpoints"
WHOLE = "whole"


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


def accumulation(settings: Train, ranks: int) -> int:
    """Passes a step, so that the global batch is the same whatever the ranks. Raises ParamsError where it cannot be."""
    if settings.attention.startswith("flash") and settings.micro_batch > 1:
        raise ParamsError("params.yaml: train.micro_batch: must be 1 with flash attention, or documents see each other")
    a_pass = settings.micro_batch * ranks
    if settings.global_batch % a_pass:
        raise ParamsError(
            f"params.yaml: train.global_batch: {settings.global_batch} is no multiple of "
            f"micro_batch x processes = {settings.micro_batch} x {ranks}"
        )
    return settings.global_batch // a_pass


def checkpoints_of(teacher: str, settings: Train, base: Lock, seed: int) -> Path:
    """The folder of exactly this training, by its data, base and settings."""
    digest = hashlib.sha256(json.dumps([asdict(settings), base.revision, seed], sort_keys=True).encode())
    for path in (Path(settings.deepspeed), *sorted(Path(f"data/packed/{teacher}").glob("*.npy"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return CHECKPOINTS / f"{teacher}-{digest.hexdigest()[:16]}"


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def last_whole(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    return max((path.parent for path in folder.glob(f"checkpoint-*/{WHOLE}")), key=step_of, default=None)


def on_cpu() -> bool:
    """Whether there is no GPU to train on."""
    import torch

    return not torch.cuda.is_available()
