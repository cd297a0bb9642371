"""Real training on several CPU ranks: windows that they share, other numbers of them, adapters, and fused heads."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from transformers import AutoModelForCausalLM

from distillery.core.errors import ConfigError
from distillery.training.config import Lora
from tests.support.training_runs import (
    ROOT,
    SETTINGS,
    ZERO_3,
    assert_same,
    checkpointed,
    curve,
    finished,
    prepare,
    start,
    weights,
)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"processes": 2, "sequence_parallel": 2, "deepspeed": ZERO_3},
        {"processes": 4, "sequence_parallel": 2, "max_grad_norm": 0.02},
    ],
    ids=["attention by lengths", "two ranks per window under ZeRO 3", "two groups of two, clipped"],
)
def test_sharing_windows_between_ranks_changes_nothing(base, undisturbed, tmp_path, changes):
    alone = undisturbed
    if clipped := {name: value for name, value in changes.items() if name == "max_grad_norm"}:
        alone = prepare(tmp_path / "alone", base, **clipped)
        finished(alone)
    finished(prepare(tmp_path / "shared", base, attention="varlen", **changes))
    assert_same(tmp_path / "shared", alone, 2e-4)
    assert curve(tmp_path / "shared") == pytest.approx(curve(alone), abs=5e-6), "also where gradients' scale counts"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("before", "after", "more"),
    [(1, 2, {"deepspeed": ZERO_3}), (2, 2, {"attention": "varlen", "sequence_parallel": 2})],
    ids=["one, then two, under ZeRO 3", "two per window"],
)
def test_a_training_resumes_with_another_number_of_ranks_and_with_shared_windows(
    base, undisturbed, tmp_path, before, after, more
):
    folder = prepare(tmp_path, base, processes=before, **more)
    process = start(folder)
    while process.poll() is None and not checkpointed(folder, 4):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (folder / "params.yaml").write_text(json.dumps({"seed": 0, "train": SETTINGS | {"processes": after} | more}))
    assert "resuming from checkpoint-" in finished(folder)
    assert len(curve(folder)) == len(curve(undisturbed))
    assert_same(folder, undisturbed, 2e-4)


LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "down_proj"]}


@pytest.mark.exhaustive
def test_adapters_are_trained_alone_and_saved_within_the_weights(base, undisturbed, tmp_path):
    from safetensors.torch import load_file

    finished(prepare(tmp_path, base, lora=LORA, processes=2, deepspeed=ZERO_3, learning_rate=0.02))
    before, after = load_file(base / "model.safetensors"), weights(tmp_path)
    changed = {name.split(".")[-2] for name in after if not (before[name] == after[name]).all()}
    assert changed == {"q_proj", "down_proj"} and curve(tmp_path)[-1] < curve(tmp_path)[0]
    student = tmp_path / "models/students/t/0"
    assert {path.name for path in student.iterdir()} == {path.name for path in (undisturbed / "models/students/t/0").iterdir()}
    model = AutoModelForCausalLM.from_pretrained(student)
    assert model.config.use_cache and model.generation_config.eos_token_id == model.config.eos_token_id is not None


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["nothing"], r"train\.lora\.targets: Target modules"),
        ("*proj", r"train\.lora\.targets: nothing to repeat"),
        (["q_proj", "lm_head"], r"train\.lora\.targets: head and embeddings are one tensor"),
    ],
)
def test_adapters_that_cannot_be_are_refused(base, targets, message):
    from distillery.training.trainer import with_adapters

    with pytest.raises(ConfigError, match=message):
        with_adapters(AutoModelForCausalLM.from_pretrained(base), Lora(4, 8, 0.0, targets))


@pytest.mark.exhaustive
def test_a_wrong_name_of_a_module_is_one_line_before_ranks_start(base, tmp_path):
    said = finished(prepare(tmp_path, base, lora=LORA | {"targets": ["nothing"]}), ok=False)
    assert "train: params.yaml: train.lora.targets: Target modules" in said and "Traceback" not in said


@pytest.mark.exhaustive
def test_a_head_whose_weight_is_read_directly_is_trained_under_zero_3(base, undisturbed, tmp_path):
    """Fused losses do so; then ZeRO 3 must gather the weight although the head is never called."""
    folder = prepare(tmp_path, base, processes=2, deepspeed=ZERO_3)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DVC_ROOT": str(folder),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*ranks, "-m", "tests.support.fused_head_training", "t", "0"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (loss,) = (folder / ".checkpoints").glob("*/loss.csv")
    losses = [float(row["loss"]) for row in csv.DictReader(loss.open())]
    assert losses == pytest.approx(curve(undisturbed), abs=2e-4)
