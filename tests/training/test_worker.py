"""Real training on the CPU through its command: accumulation, ZeRO stages, kills and a NaN loss."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from distillery.training.callbacks import FIRST_STEPS, SUSTAINED_STEPS, trouble
from distillery.training.throughput import active_parameters, attention_width, flops
from tests.support.training_runs import (
    ROOT,
    SETTINGS,
    assert_same,
    checkpointed,
    curve,
    finished,
    live_steps,
    prepare,
    start,
)


@pytest.mark.slow
def test_training_learns_and_reports_throughput(undisturbed):
    losses, metrics = curve(undisturbed), json.loads((undisturbed / "metrics/train/t.json").read_text())["students"]["0"]
    assert losses[-1] < losses[0] and len(losses) == metrics["steps"]
    text = (undisturbed / ".runs/train/t.js").read_text()
    run = json.loads(text.partition("=\n")[2].rstrip(";\n"))["students"]["0"]
    assert run["tokens_per_second"] > 0 and run["peak_memory_mib"] > 100 and run["mfu"] is None
    assert metrics["identity"] and not metrics.keys() & run.keys(), "metrics and run information are disjoint"
    assert (undisturbed / "dvclive/t-0/plots/metrics/loss.tsv").read_text().count("\n") >= len(losses)


@pytest.mark.slow
def test_every_seed_trains_a_student_of_its_own_and_only_missing_ones_are_trained(base, undisturbed, tmp_path):
    """One of them ahead, as another machine would."""
    folder = prepare(tmp_path, base, seeds=[0, 7])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    ahead = [sys.executable, "-m", "stages.train", "t"]
    subprocess.run([*ahead, "7"], cwd=folder, env=environment, check=True, capture_output=True)
    refused = subprocess.run([*ahead, "1"], cwd=folder, env=environment, capture_output=True, text=True)
    assert refused.returncode == 1 and "train.seeds: '1' is none of 0, 7" in refused.stderr
    assert "train@t-7: this training was finished before" in finished(folder)
    metrics = json.loads((folder / "metrics/train/t.json").read_text())["students"]
    assert list(metrics) == ["0", "7"] and metrics["0"]["identity"] != metrics["7"]["identity"]
    assert_same(folder, undisturbed, 0.0)
    (folder / "params.yaml").write_text(json.dumps({"train": SETTINGS | {"seeds": [7]}}))
    finished(folder)
    for kept in ("models/students/t", "data/training/t"):
        assert [path.name for path in (folder / kept).iterdir()] == ["7"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"processes": 2},
        pytest.param({"micro_batch": 4}, marks=pytest.mark.exhaustive),
        pytest.param({"processes": 2, "micro_batch": 2}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_ranks_and_accumulation_change_nothing(base, undisturbed, tmp_path, changes):
    finished(prepare(tmp_path, base, **changes))
    assert_same(tmp_path, undisturbed, 2e-4)


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["zero3", "zero3_offload"])
def test_the_zero_stage_changes_nothing(base, undisturbed, tmp_path, name):
    """Offloaded with torch's Adam: DeepSpeed's for the CPU is compiled on first use, which takes two minutes."""
    settings = json.loads((ROOT / f"conf/deepspeed/{name}.json").read_text())
    if "offload" in name:
        settings["zero_force_ds_cpu_optimizer"] = False
        settings["optimizer"]["params"]["torch_adam"] = True
    (tmp_path / "zero.json").write_text(json.dumps(settings))
    finished(prepare(tmp_path, base, deepspeed=str(tmp_path / "zero.json"), processes=2))
    assert_same(tmp_path, undisturbed, 2e-4)
    tied = AutoModelForCausalLM.from_pretrained(tmp_path / "models/students/t/0")
    assert tied.lm_head.weight.data_ptr() == tied.model.embed_tokens.weight.data_ptr()


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


@pytest.mark.exhaustive
def test_three_kills_change_neither_losses_nor_weights(base, undisturbed, tmp_path):
    folder, rng = prepare(tmp_path, base), random.Random(0)
    for step in sorted(rng.sample(range(2, 13, 2), 3)):
        moment = rng.uniform(0.0, 4.0) if checkpointed(folder, step) else rng.uniform(0.0, 0.05)
        process = start(folder)
        while process.poll() is None and not checkpointed(folder, step):
            time.sleep(0.01)
        time.sleep(moment)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        (folder / "dvclive/t-0/metrics.json").write_text("")  # DVCLive was writing it
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
    assert not (tmp_path / "w/models/students/t/0").exists()


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
