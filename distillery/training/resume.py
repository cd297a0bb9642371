"""Resuming a training, also with another number of ranks than wrote its checkpoint.

DeepSpeed's checkpoints hold one part per rank. Other ranks read them after DeepSpeed's own conversion to a universal
checkpoint, which one rank runs in a process of its own and which is kept beside the parts.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from distillery.core.errors import DataError
from distillery.core.files import read_json, write_text
from distillery.training.config import Train
from distillery.training.store import COMPLETE

CONVERTER = "deepspeed.checkpoint.ds_to_universal"
LATEST = "latest_universal"
"""Where DeepSpeed looks for the name of a universal checkpoint's folder."""


def is_of_other_ranks(checkpoint: Path, settings: Train, ranks: int) -> bool:
    """Whether another number of ranks wrote a complete checkpoint.

    Raises DataError where windows are or were shared between ranks: DeepSpeed cannot convert such a checkpoint.
    """
    wrote, now = read_json(checkpoint / COMPLETE), {"ranks": ranks, "sequence_parallel": settings.sequence_parallel}
    if wrote == now:
        return False
    if max(wrote["sequence_parallel"], settings.sequence_parallel) > 1:
        began = f"{wrote['ranks']} ranks, {wrote['sequence_parallel']} per window"
        raise DataError(f"{checkpoint}: was written by {began}, and can be resumed by as many only; delete it to train anew")
    return True


def convert(checkpoint: Path) -> None:
    """Makes a checkpoint readable for any number of ranks, unless it is. Raises DataError with what the converter said."""
    if (checkpoint / LATEST).exists():
        return
    parts = checkpoint / (checkpoint / "latest").read_text().strip()
    output = parts.with_name(f"{parts.name}_universal")
    shutil.rmtree(output, ignore_errors=True)
    folders = ["--input_folder", str(parts), "--output_folder", str(output)]
    command = [sys.executable, "-m", CONVERTER, *folders, "--inject_missing_state"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise DataError(f"{checkpoint}: cannot be converted for another number of ranks: {why}")
    write_text(output.name, checkpoint / LATEST)


def deepspeed_settings(settings: Train, checkpoint: Path | None, ranks: int) -> dict[str, Any]:
    """The content of DeepSpeed's configuration file; a checkpoint of other ranks is read as a universal one."""
    content: dict[str, Any] = read_json(settings.deepspeed)
    if checkpoint and is_of_other_ranks(checkpoint, settings, ranks):
        content["checkpoint"] = {"load_universal": True}
    return content
