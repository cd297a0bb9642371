"""Memory per rank and duration of a training, reckoned from the model's shape before anything is loaded.

``python -m distillery.training.memory [PROFILE] [--gpus N ...] [--device NAME]`` prints a table of them.

Weights, gradients and optimizer take 2 + 4 + 12 bytes per parameter in bfloat16 (float32 gradients, AdamW's float32 weights
and two moments), each divided by the ranks as far as the ZeRO stage divides it. Activations are what the model's layers keep
for the backward pass, per token and layer, counted below; docs/training.md compares them with tracked tensors. The scores and
masks of attention that is not by lengths (sdpa, eager) are not in them.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from distillery.core import config
from distillery.core.errors import ConfigError
from distillery.core.files import read_json
from distillery.core.model_locks import Lock
from distillery.core.profiles import compose, names
from distillery.core.stage import run_stage
from distillery.core.text_table import format_table
from distillery.training.config import Lora, Train
from distillery.training.throughput import PEAKS, active_parameters, attention_width

GB = 1e9
CAPACITY = {"B200": 180e9, "H200": 141e9, "H100": 80e9, "A100": 80e9, "L40S": 48e9, "4090": 24e9}
"""Bytes of memory of a GPU."""
MFU, MASKED = 0.38, 0.21
"""The share of a GPU's peak to expect with attention by lengths and under a packed mask: assumptions (docs/training.md)."""
BUCKET, LIVE = 500_000_000, 1_000_000_000
"""DeepSpeed's default elements in a gradient bucket, and of gathered parameters at once (ZeRO 3)."""
CONTEXT = 2e9
"""CUDA's and NCCL's own memory."""
SHAPES, DEEPSPEED = Path("conf/shapes"), Path("conf/deepspeed")


@dataclass(frozen=True)
class Shape:
    """What memory and time depend on. ``inner`` is the width of all MLPs that a token passes through in a layer."""

    parameters: int
    trained: int
    active: int
    layers: int
    hidden: int
    inner: int
    experts: int
    queries: int
    keys: int
    heads: int
    key_heads: int
    norms_heads: bool
    vocabulary: int


def shape_of(about: Any, lora: Lora | None = None) -> Shape:
    """The shape of a model that a transformers config describes; nothing is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(about)
        if lora:
            from distillery.training.trainer import with_adapters

            model = with_adapters(model, lora)
    text = about.get_text_config()
    chosen = int(getattr(text, "num_experts_per_tok", None) or 0)
    expert = int(getattr(text, "moe_intermediate_size", None) or text.intermediate_size)
    shared = int(getattr(text, "shared_expert_intermediate_size", None) or 0)
    shared += expert * int(getattr(text, "n_shared_experts", None) or 0)
    queries, heads = attention_width(text), int(text.num_attention_heads)
    key_heads = int(getattr(text, "num_key_value_heads", None) or heads)
    return Shape(
        parameters=sum(each.numel() for each in model.parameters()),
        trained=sum(each.numel() for each in model.parameters() if each.requires_grad),
        active=active_parameters(model),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=expert * chosen + shared if chosen else text.intermediate_size,
        experts=chosen,
        queries=queries,
        keys=queries * key_heads // heads,
        heads=heads,
        key_heads=key_heads,
        norms_heads=any("q_norm" in name for name, _ in model.named_parameters()),
        vocabulary=text.vocab_size,
    )


def layer_bytes(shape: Shape, liger: bool) -> int:
    """What one layer keeps for its backward pass, bytes per token in bfloat16.

    Two norms keep their input, in float32 too, and their output; the MLP its gate, the gate's activation, the other branch
    and the product; attention its queries, keys, values and output. Liger's kernels keep a norm's input and output only, and
    compute the activation again. Each chosen expert has its own copy of input and output.
    """
    norms = (8 if liger else 16) * shape.hidden
    mlp = (6 if liger else 8) * shape.inner + 4 * shape.hidden * shape.experts
    heads = shape.queries + shape.keys
    return norms + mlp + (4 + (6 if shape.norms_heads else 0)) * heads


def memory(shape: Shape, settings: Train, window: int, ranks: int) -> dict[str, float]:
    """Bytes of GPU memory that each rank needs at its peak, by what they are for."""
    zero = read_json(settings.deepspeed)["zero_optimization"]
    stage, size = zero["stage"], 2 if settings.dtype == "bfloat16" else 4
    tokens = window * settings.micro_batch / settings.sequence_parallel
    layer, scale = layer_bytes(shape, settings.liger), size / 2
    working = 4 * shape.inner + 2 * shape.hidden  # gradients within the layer at work
    logits = tokens * (4 * shape.hidden if settings.liger else 12 * shape.vocabulary)
    if settings.liger:  # one chunk of logits at a time, and the head's gradient
        logits += size * shape.vocabulary * shape.hidden
    if settings.gradient_checkpointing:
        kept, peak = 2 * shape.hidden * shape.layers, layer + working
        activations = tokens * scale * kept + max(tokens * scale * peak - logits, 0)  # never at the same time
    else:
        activations = tokens * scale * (layer * shape.layers + 24 * shape.hidden)
    gathered = size * min(LIVE, shape.parameters) if stage == 3 else 0
    trained = shape.trained
    return {
        "weights": 0 if "offload_param" in zero else size * shape.parameters / (ranks if stage == 3 else 1),
        "gradients": 0 if "offload_optimizer" in zero else 4 * trained / (ranks if stage > 1 else 1),
        "optimizer": 0 if "offload_optimizer" in zero else 12 * trained / ranks,
        "activations": activations,
        "logits": logits,
        "buffers": gathered + size * min(BUCKET, trained) + CONTEXT,
    }


def remedies(shape: Shape, settings: Train, window: int, ranks: int, capacity: float) -> list[str]:
    """The settings that make a training fit, the cheapest first and none that is not needed; empty where none are enough."""

    def fits(changed: dict[str, Any]) -> bool:
        return sum(memory(shape, replace(settings, **changed), window, ranks).values()) <= capacity

    changed: dict[str, Any] = {}
    for name, value in _changes(shape, settings, window, ranks):
        changed[name] = value
        if fits(changed):
            break
    else:
        return []
    for name in list(changed):
        if fits(fewer := {other: value for other, value in changed.items() if other != name}):
            changed = fewer
    return [f"train.{name}: {str(value).lower() if value is True else value}" for name, value in changed.items()]


def _changes(shape: Shape, settings: Train, window: int, ranks: int) -> Iterator[tuple[str, Any]]:
    """What takes less memory, the cheapest first."""
    if not settings.gradient_checkpointing:
        yield "gradient_checkpointing", True
    if not settings.liger:
        yield "liger", True
    if read_json(settings.deepspeed)["zero_optimization"]["stage"] < 3 and ranks > 1:
        yield "deepspeed", f"{DEEPSPEED}/zero3.json"
    for shared in (2, 4, 8) if settings.attends_by_lengths else ():
        if shared > settings.sequence_parallel and ranks % shared == 0 and not unshareable(shape, window, shared):
            yield "sequence_parallel", shared
    yield "deepspeed", f"{DEEPSPEED}/{'zero3_offload' if ranks > 1 else 'zero2_offload'}.json"


def unshareable(shape: Shape, window: int, shared: int) -> str:
    """Why so many ranks cannot share a window; empty where they can."""
    if shape.heads % shared or (shape.key_heads % shared and shared % shape.key_heads):
        return f"{shared} ranks cannot share {shape.heads} attention heads of which {shape.key_heads} have keys of their own"
    return f"pack.window: {window} is not a multiple of it" if window % shared else ""


def summary(parts: dict[str, float]) -> str:
    return f"{sum(parts.values()) / GB:.1f} GB (" + ", ".join(f"{name} {part / GB:.1f}" for name, part in parts.items()) + ")"


def check(shape: Shape, settings: Train, window: int, ranks: int, capacity: float) -> str:
    """One line on what each rank needs. Raises ConfigError where that is more than ``capacity`` bytes, with what would fit."""
    parts = memory(shape, settings, window, ranks)
    line = f"each rank needs about {summary(parts)} of {capacity / GB:.1f} GB"
    if sum(parts.values()) <= capacity:
        return line
    changes = remedies(shape, settings, window, ranks, capacity)
    fits = f"it would fit with {', '.join(changes)}" if changes else "take more GPUs, a shorter pack.window or a smaller base"
    raise ConfigError(f"params.yaml: train: {line}; {fits}")


def needed(settings: Train, base: Lock, window: int, ranks: int) -> str:
    """One line on the memory that each rank needs, before anything is loaded.

    Raises ConfigError where a GPU has less, and where windows cannot be shared as the settings say.
    """
    import torch
    from transformers import AutoConfig

    try:
        shape = shape_of(AutoConfig.from_pretrained(base.id, revision=base.hub_revision), settings.lora)
    except (AttributeError, TypeError, ZeroDivisionError):
        return "the memory that is needed cannot be reckoned for a model of this kind"
    if settings.sequence_parallel > 1 and (why := unshareable(shape, window, settings.sequence_parallel)):
        raise ConfigError(f"params.yaml: train.sequence_parallel: {why}")
    if not torch.cuda.is_available():
        return f"each rank would need about {summary(memory(shape, settings, window, ranks))} on a GPU"
    return check(shape, settings, window, ranks, float(torch.cuda.get_device_properties(0).total_memory))


def hours(shape: Shape, settings: Train, tokens: float, document: float, ranks: int, device: str) -> float:
    """Hours for so many tokens in documents of ``document`` tokens, at the MFU to expect."""
    per_token = 4 * shape.active + 2 * min(shape.trained, shape.active) + 6 * shape.layers * shape.queries * document
    share = MFU if settings.attends_by_lengths else MASKED
    return tokens * per_token / (ranks * PEAKS[device] * share) / 3600


def base_config(name: str, revision: str | None) -> tuple[Any, str]:
    """A model's config and where it is from: this machine, the project's copy of its shape, or the hub."""
    from transformers import AutoConfig

    shape = SHAPES / f"{name.rsplit('/', 1)[-1]}.json"
    try:
        return AutoConfig.from_pretrained(name, revision=revision, local_files_only=shape.exists()), name
    except (OSError, ValueError):
        if not shape.exists():
            how = f"run `dvc repro assets` if the pipeline makes it, download it, or write its shape to {shape}"
            raise ConfigError(f"{name}: its config.json cannot be read; {how}") from None
        return AutoConfig.for_model(**read_json(shape)), str(shape)


def rows(shape: Shape, settings: Train, window: int, counts: list[int], device: str) -> Iterator[list[str]]:
    """One row of the table per number of GPUs."""
    for ranks in counts:
        parts = memory(shape, settings, window, ranks)
        per_billion = hours(shape, settings, 1e9, window / 4, ranks, device)
        fits = "yes" if sum(parts.values()) <= CAPACITY[device] else "no"
        figures = [f"{part / GB:.1f}" for part in (*parts.values(), sum(parts.values()))]
        yield [str(ranks), *figures, fits, f"{per_billion:.1f}"]


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(description="Memory per GPU and hours of a profile's trainings.")
    parser.add_argument("profile", nargs="?", choices=names(), help="a profile; without, params.yaml")
    parser.add_argument("--gpus", type=positive, nargs="+", help="numbers of GPUs; without, the profile's")
    parser.add_argument("--device", choices=[name for name in CAPACITY if name in PEAKS], default="H100", help="the GPU")
    asked = parser.parse_args(arguments)
    params = yaml.load(compose(asked.profile), config.Loader) if asked.profile else config.read_params()
    settings, base = config.parse(Train, params["train"], "train"), params["assets"]["base"]
    about, source = base_config(base["id"], base["revision"])
    shape, window = shape_of(about, settings.lora), params["pack"]["window"]
    print(
        f"{base['id']} ({source}): {shape.parameters / 1e9:.3g} B parameters, {shape.trained / 1e9:.3g} B trained; windows of"
    )
    print(f"{window:,} tokens; {settings.deepspeed}, Liger {_on(settings.liger)}, {settings.attention},")
    print(f"gradient checkpointing {_on(settings.gradient_checkpointing)}, {settings.sequence_parallel} ranks per window")
    print(f"GB per GPU, and hours per billion tokens at an MFU of {MFU if settings.attends_by_lengths else MASKED}:\n")
    names_of_parts = memory(shape, settings, window, 1)
    head = ["GPUs", *names_of_parts, "total", f"fits {asked.device}", "hours"]
    print("\n".join(format_table(head, list(rows(shape, settings, window, asked.gpus or [settings.processes], asked.device)))))


def positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of GPUs")
    return int(text)


def _on(value: bool) -> str:
    return "on" if value else "off"


if __name__ == "__main__":
    run_stage(main)
