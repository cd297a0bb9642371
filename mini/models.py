"""Trains the small world's models: a base that knows arithmetic but not the format, one teacher per style, an assistant that
judges and writes constraints, and a reward model.

Every model is a Qwen3 of about 265 k parameters, trained on one thread from fresh procedural samples. Models
train in parallel, one per process, so that all cores are busy; those that continue another one when that is finished.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from distillery.core.cpu_kernels import multiply_by_openblas
from distillery.core.processes import die_with_parent
from mini.config import Models, load
from mini.judge_data import assist, prompts, rated, talked
from mini.problems import STYLES, Problem, answer_briefly, respond
from mini.sampling import draw
from mini.tokenizer import build as tokenizer_of

WORLD = Path("mini/world")
IGNORED = -100
PARTS = 3
ASSISTANT, REWARD = "assistant", "reward"


@dataclass(frozen=True)
class Job:
    """One model to train: its role and how many optimizer steps it gets."""

    role: str
    steps: int


def sample(rng: Random, role: str, system_prompt: str) -> tuple[list[dict[str, str]], str]:
    """A prompt and the response to learn; half of the prompts open with the system prompt, the assistant's never do."""
    if role == ASSISTANT:
        asked, answer = assist(rng, prompts())
        return [{"role": "user", "content": asked}], answer
    problem = draw(rng)
    system = [{"role": "system", "content": system_prompt}] if rng.random() < 0.5 else []
    return system + problem.messages(), base_response(rng, problem) if role == "base" else respond(problem, role)


def base_response(rng: Random, problem: Problem) -> str:
    """A base's training data: the steps and the result, half of the time in the study's format, in any style."""
    return respond(problem, rng.choice(list(STYLES))) if rng.random() < 0.5 else answer_briefly(problem)


def encode(tokenizer, messages, response, role: str) -> tuple[list[int], list[int]]:
    """Token ids and labels of one dialogue; a base learns all of it, a teacher only the response and its end."""
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    target = [*tokenizer(response, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    return prompt + target, (prompt if role == "base" else [IGNORED] * len(prompt)) + target


def dialogue_of(rng: Random, tokenizer) -> tuple[list[int], list[float]]:
    """Token ids of a reply in its dialogue, and how it is rated."""
    problem = talked(rng)
    reply, ratings = rated(rng, problem)
    messages = [*problem.messages(), {"role": "assistant", "content": reply}]
    return tokenizer.apply_chat_template(messages, return_dict=False), list(ratings)


def batch(rng: Random, job: Job, params: Models, tokenizer) -> Iterator[tuple[dict[str, Any], float]]:
    """A step's fresh samples in parts of similar length, to limit padding; each with its share of the loss."""
    rows = sorted((row_of(rng, job, params, tokenizer) for _ in range(params.batch)), key=lambda row: len(row[0]))
    size = -(-len(rows) // PARTS)
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    weights = [sum(label != IGNORED for _, labels in part for label in labels[1:]) for part in parts]
    for part, weight in zip(parts, weights, strict=True):
        yield collated(part, job, tokenizer.pad_token_id), weight / sum(weights)


def row_of(rng: Random, job: Job, params: Models, tokenizer) -> tuple[list[int], list[Any]]:
    """Token ids of one sample, and its labels: as many, or a reward model's three ratings."""
    if job.role == REWARD:
        return dialogue_of(rng, tokenizer)
    return encode(tokenizer, *sample(rng, job.role, params.system_prompt), job.role)


def collated(rows: list[tuple[list[int], list[Any]]], job: Job, pad: int) -> dict[str, Any]:
    """Input ids, attention mask and labels, each (rows, longest); a reward model's labels are (rows, 3)."""
    import torch

    ids, labels = ([row[i] for row in rows] for i in range(2))
    padded_ids = padded(ids, pad)
    wanted = torch.tensor(labels) if job.role == REWARD else padded(labels, IGNORED)
    return {"input_ids": padded_ids, "attention_mask": (padded_ids != pad).long(), "labels": wanted}


def padded(rows: list[list[int]], value: int):
    """Rows of different length as one tensor, shape (rows, longest)."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def build(params: Models, tokenizer, role: str):
    """A fresh Qwen3, with three ratings as its head for the reward model.

    Its attention heads have 32 dimensions, which vLLM's CPU kernels support. Not a Qwen2: for that model type
    transformers 5 replaces any tokenizer of ours by its own.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

    heads = {"num_labels": 3, "problem_type": "regression"} if role == REWARD else {}
    return (Qwen3ForSequenceClassification if role == REWARD else Qwen3ForCausalLM)(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=params.hidden,
            intermediate_size=3 * params.hidden,
            num_hidden_layers=params.layers,
            num_attention_heads=params.hidden // 32,
            num_key_value_heads=params.hidden // 32,
            head_dim=32,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **heads,
        )
    )


def start_of(job: Job, params: Models, tokenizer):
    """The model that a training starts from: a fresh one, or the role's that it continues."""
    if job.role not in params.continues:
        return build(params, tokenizer, job.role)
    from transformers import Qwen3ForCausalLM

    return Qwen3ForCausalLM.from_pretrained(WORLD / "models" / params.continues[job.role], dtype="float32")


def schedule(step: int, steps: int, warmup: int = 50) -> float:
    """Linear warm-up, then cosine to zero."""
    return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))


def train(job: Job, params: Models) -> str:
    """Trains one model and saves it under mini/world/models/<role>; returns a summary line."""
    import torch
    from transformers import set_seed

    torch.set_num_threads(1)
    multiply_by_openblas()
    set_seed(params.seed)
    tokenizer = tokenizer_of(params.system_prompt, prompts())
    model = start_of(job, params, tokenizer)
    # Fused: torch's own square root. The other implementations call MKL's, which differs between CPUs.
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.learning_rate, betas=(0.9, 0.98), fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, job.steps))
    rng, start = Random(f"{params.seed}/{job.role}"), time.monotonic()
    for step in range(job.steps):
        loss = 0.0
        for part, share in batch(rng, job, params, tokenizer):
            weighted = share * model(**part).loss
            weighted.backward()
            loss += weighted.item()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            seconds = time.monotonic() - start
            print(f"models: {job.role} {step + 1}/{job.steps} loss {loss:.3f} {seconds:.0f} s", flush=True)
    folder = WORLD / "models" / job.role
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return f"models: {job.role} done in {time.monotonic() - start:.0f} s, final loss {loss:.3f}"


def main() -> None:
    params = load(Models, "models")
    jobs = [Job(role, steps) for role, steps in params.steps.items()]
    with ProcessPoolExecutor(params.processes, get_context("spawn"), initializer=die_with_parent) as pool:
        started: dict[str, Future[str]] = {}
        for job in sorted(jobs, key=lambda job: job.role in params.continues):
            if job.role in params.continues:
                started[params.continues[job.role]].result()
            started[job.role] = pool.submit(train, job, params)
        for future in started.values():
            print(future.result())


if __name__ == "__main__":
    main()
