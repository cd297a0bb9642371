"""A probe: a few steps of training on one arm's traces, to see how fast the loss on traces held out of them falls.

A plain loop on one device, since the base of a forecast is read there anyway. The trainings proper are in `trainer`.
"""

from dataclasses import dataclass
from itertools import cycle
from typing import Any

from distillery.core.batching import padded
from distillery.core.config import Positive, PositiveFloat, Section

Row = tuple[list[int], int]
"""Token ids of a dialogue, and how many of them are the prompt."""


@dataclass(frozen=True)
class Probe(Section):
    """How the probe trains: AdamW with a constant learning rate, loss on responses."""

    steps: Positive
    """Optimizer steps."""
    batch: Positive
    """Traces per step."""
    learning_rate: PositiveFloat
    """The learning rate."""
    held_out: Positive
    """Traces that are not trained on: of the queries that are read the last so many, at most a quarter."""


def response_losses(model: Any, rows: list[Row], pad: int) -> Any:
    """The mean loss over each row's response tokens, (rows,)."""
    import torch

    ids, mask = padded([ids for ids, _ in rows], pad, model.device)
    prompts = torch.tensor([prompt for _, prompt in rows], device=model.device)
    said = mask[:, 1:] * (torch.arange(1, ids.shape[1], device=model.device) >= prompts[:, None])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses.view(said.shape) * said).sum(1) / said.sum(1).clamp(min=1)


def probe(model: Any, train: list[Row], held_out: list[Row], settings: Probe, pad: int) -> list[float]:
    """By how much the loss on each held-out row falls, in nats per response token. The model is trained in place."""
    import torch

    def judged() -> list[float]:
        model.eval()
        with torch.inference_mode():
            return [float(response_losses(model, [row], pad)) for row in held_out]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a sum over several threads depends on their number
    try:
        before = judged()
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.0, fused=True)
        rows = cycle(train)
        for _ in range(settings.steps):
            response_losses(model, [next(rows) for _ in range(settings.batch)], pad).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        after = judged()
    finally:
        torch.set_num_threads(threads)
    return [first - last for first, last in zip(before, after, strict=True)]
