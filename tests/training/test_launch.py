"""Training on tiny random models: attention and labels in packed windows."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from distillery.core.chat_template import ChatTemplate
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import read_json, write_json
from distillery.core.stage import built_for_cpu
from distillery.training.callbacks import write_curve
from distillery.training.config import Train
from distillery.training.launch import launcher, total_ranks
from distillery.training.packed_dataset import IGNORED, Windows, accumulation, collate
from distillery.training.resume import convert, deepspeed_settings
from distillery.training.store import COMPLETE, latest_complete
from distillery.training.tokenization import tokenize
from mini.judge_data import prompts
from mini.tokenizer import build
from stages.train import check
from tests.support.packed_windows import windows_of

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Train(
    seeds=(0,),
    processes=2,
    deepspeed="conf/deepspeed/zero2.json",
    dtype="float32",
    learning_rate=1e-3,
    warmup=0.05,
    epochs=1,
    global_batch=4,
    micro_batch=1,
    weight_decay=0.0,
    max_grad_norm=1.0,
    gradient_checkpointing=False,
    checkpoint_minutes=0.0,
    sequence_parallel=1,
    lora=None,
    report_to=None,
    attention="sdpa",
    liger=False,
    hostfile=None,
    packed=True,
    system_prompt=None,
)


@pytest.fixture(scope="module")
def model():
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    made = Qwen3ForCausalLM(Qwen3Config(vocab_size=50, attn_implementation="sdpa", **shape, **heads)).eval()
    made.config.use_cache = False
    return made


def packed(dialogues, prompts, window=32):
    *arrays, placed, starts = windows_of(dialogues, prompts, window, pad=0)
    with TemporaryDirectory() as folder:
        for name, array in zip(("ids", "targets", "positions"), arrays, strict=True):
            np.save(Path(folder) / f"{name}.npy", array)
        windows = Windows(Path(folder), 1)
        return collate([windows[i] for i in range(len(windows))]), placed, starts


DIALOGUES = [[3, 4, 5, 6, 7], [8, 9, 10], [11, 12, 13, 14, 15, 16, 17], [18, 19]]


def test_packed_logits_equal_the_unpacked_ones(model):
    import torch

    batch, placed, starts = packed(DIALOGUES, [1, 1, 2, 1])
    with torch.inference_mode():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
        for dialogue, row, start in zip(DIALOGUES, placed, starts, strict=True):
            alone = model(input_ids=torch.tensor([dialogue])).logits[0]
            assert (together[row, start : start + len(dialogue)] - alone).abs().max() < 1e-4


def test_packed_loss_equals_the_unpacked_one_without_crossing_documents(model):
    import torch

    prompts = [1, 1, 2, 1]
    batch, *_ = packed(DIALOGUES, prompts)
    with torch.inference_mode():
        together = model(**batch).loss
        losses = []
        for dialogue, prompt in zip(DIALOGUES, prompts, strict=True):
            labels = torch.tensor([[IGNORED] * prompt + dialogue[prompt:]])
            count = (labels[:, 1:] != IGNORED).sum()
            losses.append((model(input_ids=torch.tensor([dialogue]), labels=labels).loss * count, count))
    alone = sum(loss for loss, _ in losses) / sum(count for _, count in losses)
    assert abs(together - alone) < 1e-5


def test_the_global_batch_does_not_depend_on_the_number_of_ranks():
    assert (accumulation(SETTINGS, 1), accumulation(SETTINGS, 2), accumulation(SETTINGS, 4)) == (4, 2, 1)
    with pytest.raises(ConfigError, match=r"train.global_batch: 4 is not a multiple of micro_batch x processes = 1 x 3"):
        accumulation(SETTINGS, 3)


def test_ranks_that_share_windows_count_once():
    shared = replace(SETTINGS, sequence_parallel=2)
    assert (accumulation(shared, 2), accumulation(shared, 4)) == (4, 2)
    assert accumulation(replace(SETTINGS, sequence_parallel=2), 8) == 1, "four groups of two"
    with pytest.raises(ConfigError, match=r"4 is not a multiple of micro_batch x processes / sequence_parallel = 1 x 16 / 2"):
        accumulation(shared, 16)
    with pytest.raises(ConfigError, match=r"train.sequence_parallel: 2 ranks cannot be divided into groups of 4"):
        accumulation(replace(SETTINGS, sequence_parallel=4), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_parallel": 2}, r"train.attention: sdpa sees across documents under sequence parallelism.*take varlen"),
        ({"report_to": "wandb"}, r"train.report_to: wandb is not installed; `pip install` it or use null"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        check(replace(SETTINGS, **changes))
    check(SETTINGS)


def test_the_ranks_of_all_machines_count(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("# ours\none slots=2\n\ntwo slots=2  # new\n")
    assert total_ranks(SETTINGS) == 2 and total_ranks(replace(SETTINGS, hostfile=str(hosts))) == 4


def test_only_several_ranks_need_a_launcher():
    assert launcher(replace(SETTINGS, processes=1)) == [sys.executable, "-m"]
    assert "torch.distributed.run" in launcher(SETTINGS)


def test_torchs_build_is_known_without_importing_it():
    import torch

    assert built_for_cpu() == (torch.version.cuda is None and torch.version.hip is None and torch.version.xpu is None)
    lines = "import sys; from distillery.core.stage import built_for_cpu; built_for_cpu(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", lines], cwd=ROOT).returncode == 0


def test_attention_by_lengths_may_share_windows():
    for attention in ("varlen", "flash_attention_2", "kernels-community/flash-attn2"):
        check(replace(SETTINGS, sequence_parallel=2, attention=attention))


def test_a_checkpoint_of_other_ranks_is_read_as_a_universal_one(tmp_path):
    settings = replace(SETTINGS, deepspeed=str(ROOT / "conf/deepspeed/zero2.json"))
    content = read_json(settings.deepspeed)
    write_json({"ranks": 2, "sequence_parallel": 1}, tmp_path / COMPLETE)
    assert deepspeed_settings(settings, None, 4) == deepspeed_settings(settings, tmp_path, 2) == content
    assert deepspeed_settings(settings, tmp_path, 1) == content | {"checkpoint": {"load_universal": True}}
    with pytest.raises(DataError, match=r"was written by 2 ranks, 1 per window, and can be resumed by as many only"):
        deepspeed_settings(replace(settings, sequence_parallel=2), tmp_path, 2)
    write_json({"ranks": 4, "sequence_parallel": 2}, tmp_path / COMPLETE)
    with pytest.raises(DataError, match=r"was written by 4 ranks, 2 per window"):
        deepspeed_settings(settings, tmp_path, 2)
    assert deepspeed_settings(replace(settings, sequence_parallel=2), tmp_path, 4) == content


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_converted_is_named(tmp_path):
    (tmp_path / "latest").write_text("global_step4")
    (tmp_path / "global_step4").mkdir()
    with pytest.raises(DataError, match=r"cannot be converted for another number of ranks: \w"):
        convert(tmp_path)
    assert not (tmp_path / "latest_universal").exists()


def test_a_truncated_checkpoint_is_skipped(tmp_path):
    assert latest_complete(tmp_path) is None
    for step, whole in ((9, True), (10, True), (20, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            (tmp_path / f"checkpoint-{step}" / COMPLETE).touch()
    assert latest_complete(tmp_path) == tmp_path / "checkpoint-10"


def test_the_curve_is_one_line_per_step(tmp_path):
    history = [{"step": 1, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-3}, {"step": 1, "train_runtime": 3.0}]
    write_curve(history, tmp_path / "loss.csv")
    assert (tmp_path / "loss.csv").read_text() == "step,epoch,loss,learning_rate\n1,0.5,2.0,0.001\n"


def test_the_deepspeed_files_are_json():
    for path in (ROOT / "conf/deepspeed").glob("*.json"):
        assert json.loads(path.read_text())["zero_optimization"]["stage"] == int(path.stem[4])


SAID = "<think> 7 + 5 = 12 ; </think> <answer> \\boxed{ 12 } </answer>"


@pytest.fixture(scope="module")
def tokenizer():
    return build("", prompts())


def test_only_the_last_response_with_its_thinking_has_labels(tokenizer):
    earlier = "<think> 7 ; </think> <answer> \\boxed{ 7 } </answer>"
    ask = lambda text: {"role": "user", "content": text}  # noqa: E731
    talk = [ask("Ann has 7 apples ."), {"role": "assistant", "content": earlier}, ask("how many apples now ?")]
    made = tokenize(ChatTemplate(tokenizer), [(talk, SAID), ([ask("how many apples now ?")], SAID)])
    batch, *_ = packed([row.ids for row in made], [row.prompt for row in made], window=128)
    labels = batch["labels"][0][batch["labels"][0] != IGNORED]
    assert [said.strip() for said in tokenizer.decode(labels).split("<|end|>")] == [SAID, SAID, ""]
    assert tokenizer.decode(batch["input_ids"][0]).count(earlier) == 1


@pytest.mark.parametrize(("ending", "wanted"), [("<|im_end|>\n", "<|im_end|>"), ("<|end|>", "<|end|>"), ("", "<|end|>")])
def test_a_student_stops_where_the_template_ends_a_turn(ending, wanted):
    """Regardless of the base model's end-of-text token."""
    base = build("", prompts())
    base.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    base.chat_template = "{% for m in messages %}{{ m.content }}" + ending + "{% endfor %}"
    assert ChatTemplate(base).end_of_turn == wanted
