"""Training on one GPU by the project's own worker: tokens per second, MFU and peak memory beside what was reckoned.

python -m bench.gpu [--tiny] [--output FILE]: Qwen2.5-0.5B and 1.5B shapes with random weights, windows of 32,768 random tokens
in documents of the study's lengths. Variants: attention by lengths or under a packed mask, Liger's kernels on or off,
gradient checkpointing on or off, and a training that is killed and resumed. `bench/gpu.sh` runs it on a bare machine.
``--tiny`` tries everything on a CPU in minutes, with a tiny shape; its figures say nothing.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distillery.core import config
from distillery.core.files import read_json, write_json, write_text
from distillery.core.text_table import format_table
from distillery.training.config import Train
from distillery.training.memory import CONTEXT, GB, memory, shape_of
from distillery.training.packed_files import DIGEST

ROOT = Path(__file__).resolve().parents[1]
WINDOW, PER_STEP, STEPS = 32_768, 2, 6
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
BASE = {
    "processes": 1,
    "deepspeed": str(ROOT / "conf/deepspeed/zero2.json"),
    "dtype": "bfloat16",
    "learning_rate": 0.0001,
    "warmup": 0.05,
    "epochs": 1,
    "global_batch": PER_STEP,
    "micro_batch": 1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "gradient_checkpointing": True,
    "checkpoint_minutes": 1e6,
    "attention": "varlen",
    "liger": True,
    "sequence_parallel": 1,
    "lora": None,
    "report_to": None,
    "hostfile": None,
    "packed": True,
    "system_prompt": None,
    "seeds": [0],
}


@dataclass(frozen=True)
class Variant:
    """One training: which shape, and what differs from BASE."""

    name: str
    shape: str
    changes: dict[str, Any] = field(default_factory=dict)


VARIANTS = [
    Variant("0.5B: the first run compiles kernels", "0.5B"),
    Variant("0.5B", "0.5B"),
    Variant("0.5B, attention under a packed mask", "0.5B", {"attention": "sdpa"}),
    Variant("0.5B, without Liger", "0.5B", {"liger": False}),
    Variant("0.5B, without checkpointing", "0.5B", {"gradient_checkpointing": False}),
    Variant("1.5B: the first run compiles kernels", "1.5B"),
    Variant("1.5B", "1.5B"),
    Variant("1.5B, attention under a packed mask", "1.5B", {"attention": "sdpa"}),
]


def save_base(folder: Path, shape: dict[str, Any], window: int) -> Any:
    """Saves random weights and a tokenizer with the turns of ChatML; returns the model's config."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    about = AutoConfig.for_model(**shape, max_position_embeddings=window)
    AutoModelForCausalLM.from_config(about, dtype=torch.bfloat16).save_pretrained(folder)
    words = ["<unk>", "<|im_start|>", "<|im_end|>", "user", "assistant"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(folder)
    return about


def save_windows(folder: Path, windows: int, window: int, vocabulary: int) -> None:
    """Windows full of random documents; the last of each is cut at its end."""
    rng = np.random.default_rng(0)
    positions = np.empty((windows, window), np.uint32)
    for row in positions:
        start = 0
        while start < window:
            length = int(np.clip(rng.lognormal(np.log(window / 12), 0.95), 16, window - start))
            row[start : start + length] = np.arange(length)
            start += length
    folder.mkdir(parents=True)
    np.save(folder / "ids.npy", rng.integers(0, vocabulary, positions.shape).astype(np.uint32))
    np.save(folder / "targets.npy", positions > 8)
    np.save(folder / "positions.npy", positions)
    write_text("random", folder / DIGEST)


def start(folder: Path, base: Path, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Starts the train stage in a folder that holds its packed data."""
    lock = {"role": "base", "id": str(base), "revision": "0", "local": True, "files": {}}
    lock["template"] = str(ROOT / "conf/chat_templates/chatml.jinja")
    write_json(lock, folder / "models/locks/roles/base.json")
    write_json({"train": settings}, folder / "params.yaml")
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "DVC_ROOT": str(folder), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "stages.train", "t"]
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def figures_of(folder: Path, about: Any, settings: dict[str, Any], window: int) -> dict[str, Any]:
    """What a finished training measured, and the memory that was reckoned for it."""
    run = json.loads((folder / ".runs/train/t.js").read_text().partition("=\n")[2].rstrip(";\n"))
    reckoned = memory(shape_of(about), config.parse(Train, settings, "train"), window, 1)
    reckoned["buffers"] -= CONTEXT  # not in the peak that torch counts
    names = ("tokens_per_second", "mfu", "peak_memory_mib", "device", "versions")
    return {name: run[name] for name in names} | {"reckoned_gb": {name: round(part / GB, 2) for name, part in reckoned.items()}}


def losses_of(folder: Path) -> list[float]:
    with (folder / "data/training/t/0/loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def trained(place: Path, variant: Variant, tiny: bool) -> dict[str, Any]:
    """Runs one variant; an error's last line instead of figures where it fails."""
    folder, settings, window, base, about = prepared(place, variant, tiny)
    if start(folder, base, settings).wait():
        return {"error": why(folder)}
    return figures_of(folder, about, settings, window)


def prepared(place: Path, variant: Variant, tiny: bool) -> tuple[Path, dict[str, Any], int, Path, Any]:
    """A variant's folder, settings, window, base and the base's config."""
    window = 256 if tiny else WINDOW
    shape = read_json(ROOT / f"conf/shapes/Qwen2.5-{variant.shape}.json") | ({**TINY, "vocab_size": 512} if tiny else {})
    folder, base = place / "run", place / "base"
    about = save_base(base, shape, window)
    save_windows(folder / "data/packed/t", STEPS * PER_STEP, window, shape["vocab_size"])
    settings = BASE | variant.changes
    if tiny:
        settings |= {"liger": False, "deepspeed": str(ROOT / "conf/deepspeed/zero1.json")}
    return folder, settings, window, base, about


def resumed(place: Path, tiny: bool) -> dict[str, Any]:
    """Kills a training after its second checkpoint and resumes it; its losses must be those of one that was left alone."""
    variant = Variant("0.5B, killed and resumed", "0.5B", {"checkpoint_minutes": 0})
    (place / "alone").mkdir()
    (place / "killed").mkdir()
    folder, settings, _, base, _ = prepared(place / "alone", variant, tiny)
    if start(folder, base, settings | {"checkpoint_minutes": 1e6}).wait():
        return {"error": why(folder)}
    alone = losses_of(folder)
    folder, settings, _, base, _ = prepared(place / "killed", variant, tiny)
    process = start(folder, base, settings)
    while process.poll() is None and len(list(folder.glob(".checkpoints/*/checkpoint-*/complete"))) < 2:
        time.sleep(0.02)
    if process.poll() is not None:
        return {"error": why(folder)}
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if start(folder, base, settings).wait():
        return {"error": why(folder)}
    again = losses_of(folder)
    return {"steps": len(again), "largest_difference_of_losses": max(abs(a - b) for a, b in zip(alone, again, strict=True))}


def why(folder: Path) -> str:
    """Why a training failed: its first line that names an error."""
    lines = (folder / "log").read_text().splitlines()
    return next((line for line in lines if line.startswith("worker:") or "Error: " in line), "no message")


def row_of(name: str, found: dict[str, Any]) -> list[str]:
    if "error" in found:
        return [name, "-", "-", "-", found["error"][:60]]
    used = f"{100 * found['mfu']:.1f} %" if found["mfu"] else "-"
    reckoned = sum(found["reckoned_gb"].values())
    peak = found["peak_memory_mib"] * 2**20 / GB
    return [name, f"{found['tokens_per_second']:,.0f}", used, f"{peak:.1f}", f"{reckoned:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.gpu")
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, to try the bench itself on a CPU")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="where the figures go, as JSON")
    asked = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as place:
            results[variant.name] = trained(Path(place), variant, asked.tiny) | {"variant": asdict(variant)}
        print(f"{variant.name}: done", flush=True)
        write_json(results, asked.output)
    head = ["training", "tokens/s", "MFU", "peak GB", "reckoned GB"]
    print("\n".join(format_table(head, [row_of(name, found) for name, found in results.items()])))
    with tempfile.TemporaryDirectory() as place:
        results["killed and resumed"] = resumed(Path(place), asked.tiny)
    print(f"killed and resumed: {results['killed and resumed']}")
    write_json(results, asked.output)


if __name__ == "__main__":
    main()
