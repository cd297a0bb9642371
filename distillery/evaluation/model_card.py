"""The card of a student: what it is, what it was trained on and how, how it scores, and the prompt to use."""

from dataclasses import asdict
from typing import Any

import yaml

from distillery.core import config, model_locks
from distillery.core.arms import Arm
from distillery.core.files import read_json
from distillery.evaluation.report_tables import format_interval

SETTINGS = ("learning_rate", "epochs", "warmup", "global_batch", "weight_decay", "max_grad_norm", "dtype", "lora", "packed")


def model_card(arm: str, described: Arm, seed: int) -> str:
    """The card of an arm's student of one training seed, as Markdown."""
    base, train = model_locks.read("base"), config.load(dict[str, Any], "train")
    matter = {
        "base_model": base.id,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "other",
        "tags": ["reasoning", "distillation"],
    }
    settings = {name: train[name] for name in SETTINGS if name in train} | {
        "seed": seed,
        "window": config.load(int, "pack.window"),
    }
    prompt = config.load(str, "system_prompt")
    with_prompt = f"with this system prompt: `{prompt}`" if prompt else "without a system prompt"
    return f"""---
{yaml.safe_dump(matter, sort_keys=False)}---

# Student of {arm}, training seed {seed}

{base.id} (revision {base.revision}), trained on the reasoning traces of {", ".join(described.teachers)}: {asdict(described)}.

## Scores

pass@1 in percent with 95 % intervals, the mean over the training seeds of this arm; mean tokens per sample.

{scores(read_json("metrics/compare.json")["models"][arm])}

## How to prompt it

By its chat template, {with_prompt}. It writes its thoughts first, in the format `{config.load(str, "student_format")}`.

## How it was trained

{lines(settings)}
"""


def scores(by_benchmark: dict[str, Any]) -> str:
    rows = [
        f"| {name} | {format_interval(found['pass@1'])} | {found['mean_tokens']['mean']:.0f} |"
        for name, found in by_benchmark.items()
    ]
    return "\n".join(["| benchmark | pass@1 | tokens |", "| --- | --- | --- |", *rows])


def lines(settings: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in settings.items())
