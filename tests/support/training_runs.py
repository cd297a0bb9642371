"""Real trainings of a tiny model on the CPU, through the stage's command."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distillery.core.files import write_json
from distillery.training.packed_files import DIGEST
from tests.support.packed_windows import windows_of

ROOT = Path(__file__).resolve().parents[2]
WINDOW, VOCABULARY = 64, 60
ZERO_3 = str(ROOT / "conf/deepspeed/zero3.json")
SETTINGS = {
    "processes": 1,
    "deepspeed": str(ROOT / "conf/deepspeed/zero2.json"),
    "dtype": "float32",
    "learning_rate": 0.003,
    "warmup": 0.05,
    "epochs": 3,
    "global_batch": 4,
    "micro_batch": 1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "gradient_checkpointing": False,
    "checkpoint_minutes": 0,
    "sequence_parallel": 1,
    "lora": None,
    "report_to": None,
    "attention": "sdpa",
    "liger": False,
    "hostfile": None,
    "packed": True,
    "system_prompt": None,
    "seeds": [0],
}


def prepare(folder: Path, base: Path, revision: str = "0", **changes) -> Path:
    """A folder that `train` can run in: twenty windows of short dialogues."""
    rng = np.random.default_rng(0)
    dialogues = [rng.integers(1, VOCABULARY, rng.integers(8, 30)).tolist() for _ in range(62)]
    ids, targets, positions, *_ = windows_of(dialogues, [3] * len(dialogues), WINDOW, 0)
    (folder / "data/packed/t").mkdir(parents=True)
    for name, array in (("ids", ids), ("targets", targets), ("positions", positions)):
        np.save(folder / f"data/packed/t/{name}.npy", array)
    (folder / "data/packed/t" / DIGEST).write_text("digest")
    lock = {"role": "base", "id": str(base), "revision": revision, "local": True, "files": {}}
    write_json(lock, folder / "models/locks/roles/base.json")
    (folder / "params.yaml").write_text(json.dumps({"seed": 0, "train": SETTINGS | changes}))
    return folder


def start(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    command = [sys.executable, "-m", "stages.train", "t"]
    log = (folder / "log").open("a")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def finished(folder: Path, ok: bool = True) -> str:
    """Runs training and returns its output."""
    code = start(folder).wait(300)
    said = (folder / "log").read_text()
    assert (code == 0) == ok, said
    return said


def checkpointed(folder: Path, step: int) -> bool:
    """Whether a complete checkpoint of this step or a later one is on disk."""
    whole = (folder / ".checkpoints").glob("*/checkpoint-*/complete")
    return any(int(path.parent.name.split("-")[1]) >= step for path in whole)


def curve(folder: Path) -> list[float]:
    with (folder / "data/training/t/0/loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def live_steps(folder: Path) -> list[str]:
    lines = (folder / "dvclive/t-0/plots/metrics/loss.tsv").read_text().splitlines()
    return [line.split("\t")[0] for line in lines]


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "models/students/t/0/model.safetensors")


def assert_same(one: Path, other: Path, tolerance: float) -> None:
    assert curve(one) == pytest.approx(curve(other), abs=tolerance)
    left, right = weights(one), weights(other)
    assert max(float((left[name] - right[name]).abs().max()) for name in left) <= tolerance
