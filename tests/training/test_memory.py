"""The memory that a training is reckoned to need, against tensors that are tracked without being allocated."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distillery.core import profiles
from distillery.core.errors import ConfigError
from distillery.core.model_locks import Lock
from distillery.training.config import Lora
from distillery.training.memory import GB, base_config, check, hours, memory, needed, remedies, shape_of
from tests.training.test_launch import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PAPER = replace(
    SETTINGS,
    deepspeed=str(ROOT / "conf/deepspeed/zero3.json"),
    dtype="bfloat16",
    gradient_checkpointing=True,
    attention="flash_attention_2",
    liger=True,
)
WINDOW = 32_768


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def model_config(kind: str, **more):
    from transformers import AutoConfig

    shape = {"vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4, "head_dim": 128}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return AutoConfig.for_model(kind, **(shape | heads | more))


def tracked(about, checkpointing: bool, window: int) -> float:
    """Peak bytes of one forward and backward pass beside weights and gradients, by torch's tracker over fake tensors."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker
    from transformers import AttentionInterface, AutoModelForCausalLM

    def whole(module, query, key, value, attention_mask, scaling=None, **_):
        """One document per window: as much memory as attention by lengths, which fake tensors cannot do."""
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(query, key, value, is_causal=True, scale=scaling, enable_gqa=True).transpose(1, 2).contiguous(), None

    AttentionInterface.register("whole", whole)
    about.use_cache = False
    with FakeTensorMode():
        model = AutoModelForCausalLM.from_config(about, dtype=torch.bfloat16, attn_implementation="whole").train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        tracker = MemTracker()
        tracker.track_external(model)
        ids = torch.zeros(1, window, dtype=torch.int64)
        with tracker:
            model(input_ids=ids, labels=ids).loss.backward()
    peak = next(iter(tracker.get_tracker_snapshot("peak").values()))
    by_kind = {str(getattr(kind, "value", kind)): count for kind, count in peak.items()}
    return by_kind["Total"] - by_kind["Parameter"] - by_kind["Gradient"]


EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1024}


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("qwen2", {}),
        ("llama", {"num_hidden_layers": 8, "num_key_value_heads": 8}),
        ("qwen3", {"vocab_size": 1000}),
        ("qwen3_moe", EXPERTS | {"vocab_size": 1000}),
    ],
)
def test_activations_and_logits_are_within_ten_percent_of_tracked_tensors(kind, more, checkpointing):
    about, window = model_config(kind, **more), 65_536
    reckoned = memory(shape_of(about), replace(PAPER, liger=False, gradient_checkpointing=checkpointing), window, 1)
    assert reckoned["activations"] + reckoned["logits"] == pytest.approx(tracked(about, checkpointing, window), rel=0.1)


def paper_shape():
    return shape_of(base_config("Qwen/Qwen2.5-32B", None)[0])


@pytest.mark.parametrize(("ranks", "published"), [(8, 118), (16, 81), (32, 62), (64, 53)])
def test_the_studys_student_needs_what_others_reckon(ranks, published):
    assert sum(memory(paper_shape(), PAPER, WINDOW, ranks).values()) / GB == pytest.approx(published, rel=0.12)


def test_what_changes_memory():
    shape = paper_shape()

    def total(ranks=16, **changes):
        return sum(memory(shape, replace(PAPER, **changes), WINDOW, ranks).values()) / GB

    assert total(liger=False) - total() == pytest.approx(48, rel=0.15), "logits"
    assert total(sequence_parallel=4) == pytest.approx(53, rel=0.12)
    assert total(gradient_checkpointing=False) > 5 * total()
    assert total(micro_batch=2) > total() > total(32)
    zero = {stage: total(deepspeed=str(ROOT / f"conf/deepspeed/{stage}.json")) for stage in ("zero1", "zero2", "zero3")}
    assert zero["zero1"] > zero["zero2"] > zero["zero3"] > total(deepspeed=str(ROOT / "conf/deepspeed/zero3_offload.json"))


def test_adapters_need_no_optimizer_for_frozen_weights():
    about = model_config("qwen2")
    lora = Lora(rank=8, alpha=16, dropout=0.0, targets="all-linear")
    whole, adapted = shape_of(about), shape_of(about, lora)
    assert adapted.parameters > whole.parameters == whole.trained > 20 * adapted.trained
    parts = memory(adapted, PAPER, WINDOW, 1)
    assert parts["gradients"] == 4 * adapted.trained and parts["optimizer"] == 12 * adapted.trained
    assert hours(adapted, PAPER, 1e9, 8192, 8, "H100") < hours(whole, PAPER, 1e9, 8192, 8, "H100")


def test_experts_that_a_token_does_not_pass_cost_weights_alone():
    few, many = (shape_of(model_config("qwen3_moe", **EXPERTS | {"num_experts": count})) for count in (4, 8))
    assert few.parameters < many.parameters and few.active == pytest.approx(many.active, rel=0.001)
    assert memory(few, PAPER, WINDOW, 8)["activations"] == memory(many, PAPER, WINDOW, 8)["activations"]


def test_a_training_that_fits_is_one_line():
    line = check(paper_shape(), PAPER, WINDOW, 16, 80e9)
    assert line.startswith("each rank needs about ") and line.endswith(" of 80.0 GB")
    assert all(part in line for part in ("weights 4.1", "gradients 8.2", "optimizer 24.6", "activations", "logits", "buffers"))


def test_what_cannot_fit_is_refused_with_what_would():
    shape = paper_shape()
    needed = r"needs about 1\d\d\.\d GB .* it would fit with train.deepspeed: .*zero3_offload\.json$"
    with pytest.raises(ConfigError, match=needed):
        check(shape, PAPER, WINDOW, 8, 60e9)
    with pytest.raises(ConfigError, match=r"it would fit with train\.sequence_parallel: 2"):
        check(shape, PAPER, WINDOW, 16, 70e9)
    with pytest.raises(ConfigError, match=r"take more GPUs, a shorter pack\.window or a smaller base"):
        check(shape, PAPER, WINDOW, 8, 8e9)


def test_the_cheapest_remedies_come_first():
    costly = replace(PAPER, gradient_checkpointing=False, liger=False, deepspeed=str(ROOT / "conf/deepspeed/zero1.json"))
    named = [each.split(":")[0] for each in remedies(paper_shape(), costly, WINDOW, 64, 50e9)]
    assert named == ["train.gradient_checkpointing", "train.liger", "train.deepspeed"]
    masked = replace(PAPER, attention="sdpa")
    assert not any("sequence_parallel" in each for each in remedies(paper_shape(), masked, WINDOW, 8, 60e9))


def test_hours_follow_the_flops():
    shape = paper_shape()
    eight = hours(shape, PAPER, 1e9, 8192, 8, "H100")
    operations = 6 * shape.active + 6 * 64 * 5120 * 8192
    assert eight == pytest.approx(1e9 * operations / (8 * 989e12 * 0.38) / 3600)
    assert hours(shape, PAPER, 1e9, 8192, 64, "H100") == pytest.approx(eight / 8)
    assert hours(shape, replace(PAPER, attention="sdpa"), 1e9, 8192, 8, "H100") > 1.7 * eight


def lock_of(folder: Path, **config) -> Lock:
    """A base of which only the configuration is there."""
    (folder / "config.json").write_text(json.dumps(config))
    return Lock("base", str(folder), "0", True, {})


SMALL = {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 48, "num_hidden_layers": 1}


def test_without_a_gpu_nothing_is_refused(tmp_path):
    lock = lock_of(tmp_path, model_type="llama", vocab_size=64, **SMALL)
    assert needed(SETTINGS, lock, 64, 1).startswith("each rank would need about ")


@pytest.mark.parametrize(
    ("shared", "window", "message"),
    [
        (4, 64, "train.sequence_parallel: 4 ranks cannot share 6 attention heads"),
        (2, 64, "train.sequence_parallel: 2 ranks cannot share 6 attention heads of which 3"),
        (3, 64, r"train.sequence_parallel: pack\.window: 64 is not a multiple of it"),
    ],
)
def test_windows_that_cannot_be_shared_are_refused(tmp_path, shared, window, message):
    lock = lock_of(tmp_path, model_type="llama", vocab_size=64, **SMALL)
    with pytest.raises(ConfigError, match=message):
        needed(replace(SETTINGS, sequence_parallel=shared), lock, window, shared)


def test_a_model_of_another_kind_trains_unreckoned(tmp_path):
    lock = lock_of(tmp_path, model_type="gpt2", vocab_size=64, n_embd=32, n_head=2, n_layer=1)
    assert "cannot be reckoned" in needed(SETTINGS, lock, 64, 1)


@pytest.mark.parametrize("count", ["0", "-8", "many"])
def test_a_number_of_gpus_is_positive(count, capsys):
    from distillery.training import memory as module

    with pytest.raises(SystemExit):
        module.main("paper", "--gpus", count)
    assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_model_without_a_hub_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no/such.*: its config\.json cannot be read; run `dvc repro assets`"):
        base_config("no/such-model/" + "x" * 3, None)


@pytest.mark.parametrize("profile", [*profiles.names(), None])
def test_the_command_prints_a_table(profile, capsys, monkeypatch):
    from distillery.training import memory as module

    if profile in ("mini", None):
        small = json.loads((ROOT / "conf/shapes/Qwen2.5-0.5B.json").read_text())
        monkeypatch.setattr(module, "base_config", lambda *_: (model_config(small.pop("model_type"), **small), "made"))
    module.main(*([profile] if profile else []), "--gpus", "8", "16")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["8", "16"] and "fits H100" in lines[-4]
    assert max(map(len, lines)) <= 100


@pytest.mark.slow
def test_the_command_takes_its_arguments_as_make_gives_them():
    command = [sys.executable, "-m", "distillery.training.memory", "paper", "--gpus", "8", "--device", "H100"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "fits H100" in done.stdout, done.stderr
