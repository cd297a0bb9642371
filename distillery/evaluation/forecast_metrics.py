"""What one forward pass of the base over a trace says about how well the trace will teach.

None of these metrics is established: each is a guess from the literature with a direction, and the pipeline measures how
often it orders arms as their students' scores do (`distillery.evaluation.outcomes`). A new one is a small function here:
FIGURES are numbers per trace, METRICS combine them over traces.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from distillery.core.batching import padded

Better = Literal["lower", "higher"]
LOWER: Better = "lower"
HIGHER: Better = "higher"
MOST_RANK, MOST_ENTROPY, SLICE = 100, 0.005, 2048
CUES = {
    "hesitations": re.compile(r"\b(?:wait|hmm|alternatively|actually|perhaps|maybe|might)\b", re.IGNORECASE),
    "checks": re.compile(r"\b(?:check|checking|verify|verifying|double-check|confirm)\b", re.IGNORECASE),
    "conclusions": re.compile(r"\b(?:therefore|thus|hence|so)\b", re.IGNORECASE),
}


class Dialogue(NamedTuple):
    """A trace as the student reads it: token ids, how many of them are the prompt, and the response's text."""

    ids: list[int]
    prompt: int
    text: str


class Reading(NamedTuple):
    """What the base makes of a response's tokens, (tokens,) each: loss, rank of the token (1: most likely), entropy.

    ``prompt_loss`` is the mean over the prompt's tokens but the first.
    """

    losses: np.ndarray
    ranks: np.ndarray
    entropies: np.ndarray
    prompt_loss: float


def highest(entropies: np.ndarray) -> np.ndarray:
    """The 0.5 % of tokens with the highest entropy, at least one."""
    count = max(1, round(MOST_ENTROPY * len(entropies)))
    return np.sort(entropies)[-count:]


FIGURES: dict[str, Callable[[Reading], float]] = {
    "surprisal": lambda reading: float(reading.losses.mean()),
    "rank": lambda reading: float(np.minimum(reading.ranks, MOST_RANK).mean()),
    "entropy_sum": lambda reading: float(highest(reading.entropies).sum()),
    "entropy_mean": lambda reading: float(highest(reading.entropies).mean()),
    "prompt_surprisal": lambda reading: reading.prompt_loss,
}
"""Figures of a trace that need a forward pass."""


def text_figures(dialogue: Dialogue) -> dict[str, float]:
    """Figures of a trace that need none: its length, and cues per 1,000 tokens."""
    tokens = len(dialogue.ids) - dialogue.prompt
    cues = {name: 1000 * len(pattern.findall(dialogue.text)) / tokens for name, pattern in CUES.items()}
    return {"tokens": float(tokens)} | cues


@dataclass(frozen=True)
class Metric:
    """A figure of an arm, from columns of figures of its traces, (draws, traces) each; the result is (draws,)."""

    figures: tuple[str, ...]
    combine: Callable[..., np.ndarray]
    better: Better | None
    """Which is said to teach better; None: reported, not ranked."""
    source: str


def mean(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = values.mean(-1)
    return found


LOCAL = "local_surprisal"
METRICS: dict[str, Metric] = {
    "rank-surprisal ratio": Metric(("rank", "surprisal"), lambda r, s: r.mean(-1) / s.mean(-1), LOWER, "arXiv 2601.14249"),
    "fit": Metric(("surprisal",), lambda s: -s.mean(-1), HIGHER, "GRAPE, arXiv 2502.04194"),
    "local naturalness": Metric((LOCAL,), lambda s: -s.mean(-1), HIGHER, "arXiv 2510.03988"),
    "high-entropy sum": Metric(("entropy_sum",), mean, HIGHER, "arXiv 2605.22389"),
    "high-entropy mean": Metric(("entropy_mean",), mean, HIGHER, "the same without the effect of length"),
    "response perplexity": Metric(("surprisal",), lambda s: np.exp(s).mean(-1), LOWER, "arXiv 2505.14464; response alone"),
    "prompt perplexity": Metric(("prompt_surprisal",), lambda s: np.exp(s).mean(-1), None, "alike on the same queries"),
    "response tokens": Metric(("tokens",), mean, HIGHER, "long thoughts teach"),
    "hesitations": Metric(("hesitations",), mean, LOWER, "failed steps, arXiv 2509.19284; per 1,000 tokens"),
    "checks": Metric(("checks",), mean, HIGHER, "LIMO, arXiv 2502.03387; per 1,000 tokens"),
    "conclusions": Metric(("conclusions",), mean, HIGHER, "LIMO, arXiv 2502.03387; per 1,000 tokens"),
}


def readings(model: Any, dialogues: list[Dialogue], pad: int) -> list[Reading]:
    """What the model makes of each dialogue. Logits are computed in slices: all at once they fill a GPU."""
    import torch

    ids, mask = padded([dialogue.ids for dialogue in dialogues], pad, model.device)
    with torch.inference_mode():
        hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0][:, :-1].flatten(0, 1)
        head, wanted = model.get_output_embeddings(), ids[:, 1:].flatten()
        parts = [_slice(head(hidden[i : i + SLICE]).float(), wanted[i : i + SLICE]) for i in range(0, len(wanted), SLICE)]
        columns = [torch.cat(column).view(len(dialogues), -1).cpu().numpy() for column in zip(*parts, strict=True)]
    found = []
    for row, dialogue in enumerate(dialogues):
        said = slice(dialogue.prompt - 1, len(dialogue.ids) - 1)
        losses, ranks, entropies = (column[row, said] for column in columns)
        before = columns[0][row, : dialogue.prompt - 1]
        found.append(Reading(losses, ranks, entropies, float(before.mean()) if len(before) else float("nan")))
    return found


def _slice(logits: Any, wanted: Any) -> tuple[Any, Any, Any]:
    """Loss, rank and entropy of each position, (positions,) each; ``logits`` (positions, vocabulary)."""
    import torch

    logs = torch.log_softmax(logits, -1)
    own = logs.gather(-1, wanted[:, None])
    return -own[:, 0], (logs > own).sum(-1) + 1, -(logs.exp() * logs).sum(-1)


def sentence_ends(ids: Iterable[int], ends: Callable[[int], bool]) -> list[int]:
    """Where the sentences of a response end, as positions after their last tokens; the last one is the response's end."""
    ids = list(ids)
    found = [i + 1 for i, token in enumerate(ids) if ends(token)]
    return found if found and found[-1] == len(ids) else [*found, len(ids)]


def local_windows(dialogue: Dialogue, ends: Callable[[int], bool], before: int) -> list[Dialogue]:
    """Each sentence of a response with only so many sentences before it as its prompt; a first one with one token of it."""
    response = dialogue.ids[dialogue.prompt :]
    borders = [0, *sentence_ends(response, ends)]
    found = []
    for i, (start, end) in enumerate(pairwise(borders)):
        context = borders[max(0, i - before)]
        ids = response[context:end] if start else [dialogue.ids[dialogue.prompt - 1], *response[:end]]
        found.append(Dialogue(ids, start - context if start else 1, ""))
    return found
