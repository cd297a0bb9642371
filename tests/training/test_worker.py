"""Real training on the CPU through its command: ranks, accumulation, kills and a NaN loss."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from distillery.core.files import write_json
from distillery.training.callbacks import FIRST_STEPS, SUSTAINED_STEPS, trouble
from distillery.training.packed_files import DIGEST
from distillery.training.throughput import active_parameters, attention_width, flops
from mini.judge_data import prompts
from mini.tokenizer import build
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
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "head_dim": 16,
        "max_position_embeddings": WINDOW,
    }
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=VOCABULARY, **shape, **heads)).save_pretrained(folder)
    build("", prompts()).save_pretrained(folder)
    return folder


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
    with (folder / "data/training/t/loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def live_steps(folder: Path) -> list[str]:
    lines = (folder / "dvclive/t/plots/metrics/loss.tsv").read_text().splitlines()
    return [line.split("\t")[0] for line in lines]


def weights(folder: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(folder / "models/students/t/model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory):
    folder = prepare(tmp_path_factory.mktemp("plain"), base)
    finished(folder)
    return folder


def assert_same(one: Path, other: Path, tolerance: float) -> None:
    assert curve(one) == pytest.approx(curve(other), abs=tolerance)
    left, right = weights(one), weights(other)
    assert max(float((left[name] - right[name]).abs().max()) for name in left) <= tolerance


@pytest.mark.slow
def test_training_learns_and_reports_throughput(undisturbed):
    losses, metrics = curve(undisturbed), json.loads((undisturbed / "metrics/train/t.json").read_text())
    assert losses[-1] < losses[0] and len(losses) == metrics["steps"]
    text = (undisturbed / ".runs/train/t.js").read_text()
    run = json.loads(text.partition("=\n")[2].rstrip(";\n"))
    assert run["tokens_per_second"] > 0 and run["peak_memory_mib"] > 100 and run["mfu"] is None
    assert metrics["identity"] and not metrics.keys() & run.keys(), "metrics and run information are disjoint"
    assert (undisturbed / "dvclive/t/plots/metrics/loss.tsv").read_text().count("\n") >= len(losses)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"processes": 2}, {"micro_batch": 4}, {"processes": 2, "micro_batch": 2}], ids=str)
def test_ranks_and_accumulation_change_nothing(base, undisturbed, tmp_path, changes):
    finished(prepare(tmp_path, base, **changes))
    assert_same(tmp_path, undisturbed, 2e-4)


@pytest.mark.slow
def test_deepspeeds_own_launcher_changes_nothing(base, undisturbed, tmp_path, monkeypatch):
    """The host file lists only this machine; `ssh`, the launcher's reachability check, is stubbed."""
    hosts, ssh = tmp_path / "hosts", tmp_path / "bin/ssh"
    hosts.write_text("localhost slots=2\n")
    ssh.parent.mkdir()
    ssh.write_text("#!/bin/sh\nhostname\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(ssh.parent), prepend=os.pathsep)
    finished(prepare(tmp_path / "w", base, processes=2, hostfile=str(hosts)))
    assert_same(tmp_path / "w", undisturbed, 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero1", "zero3", "zero3_offload"])
def test_the_zero_stage_changes_nothing(base, undisturbed, tmp_path, name):
    finished(prepare(tmp_path, base, deepspeed=str(ROOT / f"conf/deepspeed/{name}.json"), processes=2))
    assert_same(tmp_path, undisturbed, 2e-4)
    tied = AutoModelForCausalLM.from_pretrained(tmp_path / "models/students/t")
    assert tied.lm_head.weight.data_ptr() == tied.model.embed_tokens.weight.data_ptr()


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "more"),
    [(2, 1, {}), (1, 2, {"deepspeed": ZERO_3}), (2, 2, {"attention": "varlen", "sequence_parallel": 2})],
    ids=["two, then one", "one, then two, under ZeRO 3", "two per window"],
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


@pytest.mark.slow
def test_adapters_are_trained_alone_and_saved_within_the_weights(base, undisturbed, tmp_path):
    from safetensors.torch import load_file

    finished(prepare(tmp_path, base, lora=LORA, processes=2, deepspeed=ZERO_3, learning_rate=0.02))
    before, after = load_file(base / "model.safetensors"), weights(tmp_path)
    changed = {name.split(".")[-2] for name in after if not (before[name] == after[name]).all()}
    assert changed == {"q_proj", "down_proj"} and curve(tmp_path)[-1] < curve(tmp_path)[0]
    student = tmp_path / "models/students/t"
    assert {path.name for path in student.iterdir()} == {path.name for path in (undisturbed / "models/students/t").iterdir()}
    model = AutoModelForCausalLM.from_pretrained(student)
    assert model.config.use_cache and model.generation_config.eos_token_id == model.config.eos_token_id is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["nothing"], "train.lora.targets: Target modules"),
        ("*proj", "train.lora.targets: nothing to repeat"),
        (["q_proj", "lm_head"], "train.lora.targets: head and embeddings are one tensor"),
    ],
)
def test_adapters_that_cannot_be_are_refused_before_ranks_start(base, tmp_path, targets, message):
    said = finished(prepare(tmp_path, base, lora=LORA | {"targets": targets}), ok=False)
    assert f"train: params.yaml: {message}" in said and "Traceback" not in said


@pytest.mark.slow
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
    command = [*ranks, "-m", "tests.support.fused_head_training", "t"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (loss,) = (folder / ".checkpoints").glob("*/loss.csv")
    losses = [float(row["loss"]) for row in csv.DictReader(loss.open())]
    assert losses == pytest.approx(curve(undisturbed), abs=2e-4)


@pytest.mark.slow
def test_bfloat16_learns_like_float32_even_when_killed(base, undisturbed, tmp_path):
    """As on a GPU: weights in bfloat16, gradients accumulated and master weights kept in float32."""
    folder = prepare(tmp_path, base, dtype="bfloat16", deepspeed=str(ROOT / "conf/deepspeed/zero1.json"))
    process = start(folder)
    while process.poll() is None and not checkpointed(folder, 4):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "resuming from checkpoint-" in finished(folder)
    assert curve(folder) == pytest.approx(curve(undisturbed), abs=0.01)


@pytest.mark.slow
def test_five_kills_change_neither_losses_nor_weights(base, undisturbed, tmp_path):
    folder, rng = prepare(tmp_path, base), random.Random(0)
    for step in sorted(rng.sample(range(2, 13, 2), 5)):
        moment = rng.uniform(0.0, 4.0) if checkpointed(folder, step) else rng.uniform(0.0, 0.05)
        process = start(folder)
        while process.poll() is None and not checkpointed(folder, step):
            time.sleep(0.01)
        time.sleep(moment)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        (folder / "dvclive/t/metrics.json").write_text("")  # DVCLive was writing it
    finished(folder)
    assert_same(folder, undisturbed, 1e-6)
    assert live_steps(folder) == live_steps(undisturbed), "each step is in the live log once"


@pytest.mark.slow
def test_a_nan_loss_stops_with_a_one_line_error(base, tmp_path):
    from safetensors.torch import load_file, save_file

    spoilt = shutil.copytree(base, tmp_path / "spoilt")
    tensors = load_file(spoilt / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, spoilt / "model.safetensors", {"format": "pt"})
    said = finished(prepare(tmp_path / "w", spoilt), ok=False)
    assert "the loss is nan at step 1; lower train.learning_rate" in said
    assert not (tmp_path / "w/models/students/t").exists()


def test_a_sustained_loss_increase_is_detected():
    good = [2.0] * FIRST_STEPS
    assert trouble([]) is None and trouble(good) is None and trouble([*good, 9.0]) is None
    assert (
        trouble([*good, *[4.1] * SUSTAINED_STEPS])
        == f"the loss has been over twice its first {FIRST_STEPS} steps' for {SUSTAINED_STEPS} steps"
    )
    assert trouble([*good, *[4.1] * (SUSTAINED_STEPS - 1), 3.9]) is None
    assert trouble([1.0, float("nan")]) == "the loss is nan at step 2"


def test_flops_count_parameters_and_attended_tokens():
    one = flops(1000, 1000, 2, 8, np.arange(10)[None])
    two = flops(1000, 1000, 2, 8, np.concatenate([np.arange(5), np.arange(5)])[None])
    assert one == 6 * 1000 * 10 + 12 * 2 * 8 * 55
    assert two == 6 * 1000 * 10 + 12 * 2 * 8 * 30


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
def test_of_experts_only_the_chosen_ones_count(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    experts = {"num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    shape = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_key_value_heads": 1}
    config = AutoConfig.for_model(kind, **shape, **experts, num_attention_heads=2, head_dim=16)
    model = AutoModelForCausalLM.from_config(config)
    one_expert, total = 3 * 64 * 32, sum(each.numel() for each in model.parameters())
    assert active_parameters(model) == total - 2 * 6 * one_expert
    assert attention_width(config) == 32


def test_a_dense_model_is_active_as_a_whole():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(vocab_size=64, hidden_size=64, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4)
    model = Qwen2ForCausalLM(config)
    assert active_parameters(model) == sum(each.numel() for each in model.parameters()) and attention_width(config) == 64
