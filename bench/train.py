"""Training throughput: packed against padded batches, and the stage against a plain PyTorch loop, in one run.

python -m bench.train [--shape small|0.5b|1.5b] [--window N] [--steps N] [--liger] [--checkpointing]: a model with
random weights (Qwen2.5's shapes, except `small`) on random tokens in dialogues of the study's lengths. The variants
alternate, since machine speed drifts. Start-up and saving are excluded. On a GPU the loop keeps float32 weights
under autocast, the stage keeps bfloat16 and float32 weights, and only the stage uses Liger's kernels.
"""

import argparse
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.measure import ROOT, Line, run, table
from distillery.core.files import write_json, write_text
from distillery.core.stage import read_run
from distillery.training.packed_files import DIGEST
from distillery.training.packing import lay_out

ROUNDS, WINDOWS_PER_STEP, SEQUENCES = 3, 4, 4
SHAPES = {  # vocabulary, width, layers, heads, width of the MLP
    "small": (4096, 256, 4, 4, 768),
    "0.5b": (151_936, 896, 24, 14, 4864),
    "1.5b": (151_936, 1536, 28, 12, 8960),
}
TRAIN = {
    "processes": 1,
    "deepspeed": str(ROOT / "conf/deepspeed/zero2.json"),
    "learning_rate": 1e-4,
    "warmup": 0.05,
    "epochs": 1,
    "global_batch": WINDOWS_PER_STEP,
    "micro_batch": 1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "checkpoint_minutes": 1e6,
    "sequence_parallel": 1,
    "lora": None,
    "report_to": None,
    "packed": True,
    "system_prompt": None,
    "seeds": [0],
    "attention": "sdpa",
    "hostfile": None,
}
Batch = dict[str, np.ndarray]


def save_model(folder: Path, shape: str, window: int) -> None:
    """Saves random weights, and a tokenizer, which the stage needs."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from bench.packing import tokenizer

    torch.manual_seed(0)
    vocabulary, width, layers, heads, inner = SHAPES[shape]
    about = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        intermediate_size=inner,
        tie_word_embeddings=True,
        max_position_embeddings=window,
    )
    Qwen2ForCausalLM(about).save_pretrained(folder)
    tokenizer(min(vocabulary, 32_000)).save_pretrained(folder)


def dialogues(tokens: int, window: int, vocabulary: int) -> list[np.ndarray]:
    """About ``tokens`` random tokens; lengths as in the study, around an eighth of the window."""
    rng, drawn = np.random.default_rng(0), list[np.ndarray]()
    while sum(len(each) for each in drawn) < tokens:
        length = int(np.clip(rng.lognormal(np.log(window / 12), 0.95), 16, window))
        drawn.append(rng.integers(0, vocabulary, length))
    return drawn


def windows(drawn: list[np.ndarray], window: int) -> Batch:
    """The dialogues packed: ids, targets and positions, each (windows, window)."""
    placed, starts = lay_out(np.array([len(each) for each in drawn], np.int64), window)
    shape = (int(placed.max()) + 1, window)
    ids, targets = np.zeros(shape, np.uint32), np.zeros(shape, bool)
    positions = np.tile(np.arange(window, dtype=np.uint32), (shape[0], 1))
    for each, row, start in zip(drawn, placed, starts, strict=True):
        here = slice(start, start + len(each))
        ids[row, here], positions[row, here] = each, np.arange(len(each))
        targets[row, start + len(each) // 10 : start + len(each)] = True
        positions[row, here.stop :] = np.arange(window - here.stop)
    return {"ids": ids, "targets": targets, "positions": positions}


def packed(packs: Batch) -> Iterator[Batch]:
    """One window per forward pass."""
    for ids, targets, positions in zip(*packs.values(), strict=True):
        ids = ids.astype(np.int64)[None]
        yield {"input_ids": ids, "labels": np.where(targets, ids, -100), "position_ids": positions.astype(np.int64)[None]}


def padded(drawn: list[np.ndarray]) -> Iterator[Batch]:
    """Several dialogues per pass, in input order, each padded to the longest."""
    for first in range(0, len(drawn), SEQUENCES):
        some = drawn[first : first + SEQUENCES]
        longest = max(map(len, some))
        ids = np.stack([np.pad(each, (0, longest - len(each))) for each in some])
        mask = np.stack([np.arange(longest) < len(each) for each in some])
        answer = np.stack([np.arange(longest) >= len(each) // 10 for each in some])
        yield {"input_ids": ids, "labels": np.where(mask & answer, ids, -100), "attention_mask": mask.astype(np.int64)}


def plain_loop(model_folder: Path, batches: list[Batch], accumulate: int, checkpointing: bool) -> float:
    """Seconds of a plain PyTorch loop over the batches, one step per ``accumulate`` batches."""
    import torch
    from transformers import AutoModelForCausalLM

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32", attn_implementation="sdpa").to(kind).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    begun = time.monotonic()
    for i, batch in enumerate(batches):
        tensors = {name: torch.from_numpy(array).to(kind) for name, array in batch.items()}
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            loss = model(**tensors, use_cache=False).loss / accumulate
        loss.backward()
        if (i + 1) % accumulate == 0 or i + 1 == len(batches):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    loss.item()
    return time.monotonic() - begun


def stage(folder: Path) -> dict[str, Any]:
    """Retrains with the train stage; returns its run information."""
    shutil.rmtree(folder / ".checkpoints", ignore_errors=True)
    run("stages.train", "t", folder=folder)
    with contextlib.chdir(folder):
        return (read_run("metrics/train/t.json") or {"students": {"0": {}}})["students"]["0"]


def prepare(folder: Path, base: Path, packs: Batch, changes: dict[str, Any]) -> None:
    """Writes the inputs of the train stage."""
    (folder / "data/packed/t").mkdir(parents=True)
    for name, array in packs.items():
        np.save(folder / f"data/packed/t/{name}.npy", array)
    write_text("made up", folder / "data/packed/t" / DIGEST)
    write_json(
        {"role": "base", "id": str(base), "revision": "0", "local": True, "files": {}}, folder / "models/locks/roles/base.json"
    )
    write_json({"train": TRAIN | changes}, folder / "params.yaml")


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(prog="bench.train")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--liger", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    asked = parser.parse_args()
    drawn = dialogues(asked.steps * WINDOWS_PER_STEP * asked.window, asked.window, SHAPES[asked.shape][0])
    packs, tokens = windows(drawn, asked.window), sum(map(len, drawn))
    dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    changes = {"dtype": dtype, "liger": asked.liger, "gradient_checkpointing": asked.checkpointing}
    alone, padding, ours = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder, base = Path(name), Path(name) / "base"
        os.environ["DVC_ROOT"] = name
        save_model(base, asked.shape, asked.window)
        prepare(folder, base, packs, changes)
        for _ in range(ROUNDS):
            ours.append(stage(folder))
            alone.append(tokens / plain_loop(base, list(packed(packs)), WINDOWS_PER_STEP, asked.checkpointing))
            sequences = list(padded(drawn))
            passes = -(-len(sequences) // asked.steps)
            padding.append(tokens / plain_loop(base, sequences, passes, asked.checkpointing))
    full = tokens / packs["ids"].size
    rate = median(each["tokens_per_second"] for each in ours) * full
    loop, waste = median(alone), tokens / sum(batch["input_ids"].size for batch in padded(drawn))
    last = ours[-1]
    used = f", {100 * last['mfu']:.1f} % of peak FLOPs" if last["mfu"] else ""
    about = f"{rate:.0f} tokens/s, {last['peak_memory_mib']:.0f} MiB{used}"
    against = f"plain loop, padded: {median(padding):.0f} tokens/s, {100 * waste:.0f} % full"
    lines = [
        Line("the stage, packed", about, f"plain loop, packed: {loop:.0f} tokens/s", f"{rate / loop:.2f} x"),
        Line("plain loop, packed", f"{loop:.0f} tokens/s, {100 * full:.1f} % full", against, f"{loop / median(padding):.2f} x"),
    ]
    print(table(lines))


if __name__ == "__main__":
    main()
