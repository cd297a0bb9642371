"""Perplexity and fit under a causal language model: batched, a copy per device, every score kept in the ledger.

Fit is the mean log probability per token of the response alone (GRAPE, arXiv 2502.04194); perplexity is over query and
response, as in the study.
"""

import math
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue
from typing import Any, NamedTuple

from distillery.core import model_locks
from distillery.core.batching import by_length, devices, padded
from distillery.core.cpu_kernels import multiply_by_openblas
from distillery.core.errors import DataError
from distillery.core.progress import Progress
from distillery.generation.score_store import Scores, key_of

SLICE = 2048


class Row(NamedTuple):
    """A dialogue's token ids, and how many of them are the prompt."""

    ids: list[int]
    prompt: int


class Score(NamedTuple):
    """What a dialogue scored; not a number where it has no tokens, or none of its response."""

    perplexity: float
    fit: float


UNKNOWN = Score(math.nan, math.nan)


def losses_of(model: Any, ids: Any, mask: Any) -> Any:
    """Loss of each token but the first, (rows, tokens - 1). Logits are computed in slices: all at once they fill a GPU."""
    import torch

    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0][:, :-1].flatten(0, 1)
    head, wanted = model.get_output_embeddings(), ids[:, 1:].flatten()
    slices = range(0, len(wanted), SLICE)
    losses = [
        torch.nn.functional.cross_entropy(head(hidden[i : i + SLICE]).float(), wanted[i : i + SLICE], reduction="none")
        for i in slices
    ]
    return torch.cat(losses).view(len(ids), -1)


def scores_of(model: Any, rows: list[Row], pad: int) -> list[Score]:
    """Of each row of at least two token ids: exp of the mean loss over all but the first, and minus that over the response."""
    import torch

    ids, mask = padded([row.ids for row in rows], pad, model.device)
    prompts = torch.tensor([row.prompt for row in rows], device=model.device)
    said = mask[:, 1:] * (torch.arange(1, ids.shape[1], device=model.device) >= prompts[:, None])
    with torch.inference_mode():
        losses = losses_of(model, ids, mask) * mask[:, 1:]
        whole = losses.sum(1) / mask[:, 1:].sum(1).clamp(min=1)
        responses = (losses * said).sum(1) / said.sum(1)
    return [Score(math.exp(loss), -answer) for loss, answer in zip(whole.tolist(), responses.tolist(), strict=True)]


def load_scorer(lock: model_locks.Lock, dtype: str, where: str) -> Any:
    """The scorer on a device. Raises DataError where its logits are not its output embedding's."""
    import torch
    from transformers import AutoModelForCausalLM

    multiply_by_openblas()
    model: Any = AutoModelForCausalLM.from_pretrained(lock.id, revision=lock.hub_revision, dtype=dtype)
    model = model.to(where).eval()
    ids = torch.arange(1, 9, device=model.device)[None]
    with torch.inference_mode():
        ours, own = losses_of(model, ids, torch.ones_like(ids)).mean(), model(input_ids=ids, labels=ids).loss
    if abs(ours - own) > 0.02 * abs(own):
        raise DataError(f"assets.scorer: {lock.id} changes its logits after its output embedding; take another scorer")
    return model


class Scorer:
    """Scores rows of token ids by copies of the model, one on every device; ``free`` holds the idle ones.

    ``scored`` counts the rows that were not in the ledger.
    """

    def __init__(self, lock: model_locks.Lock, dtype: str, pad: int):
        self.lock, self.dtype, self.pad = lock, dtype, pad
        self.devices: list[str] = []
        self.free = SimpleQueue[Any]()
        self.scored = 0

    def load(self) -> None:
        """Loads the copies, once."""
        if not self.devices:
            self.devices = devices()
            for device in self.devices:
                self.free.put(load_scorer(self.lock, self.dtype, device))

    def score(self, rows: list[Row]) -> list[Score]:
        """Scores of rows, by the next idle copy."""
        model = self.free.get()
        try:
            return scores_of(model, rows, self.pad)
        finally:
            self.free.put(model)

    def score_all(self, groups: list[list[Row]]) -> Generator[list[Score], None, None]:
        """Scores of each group, in order."""
        if not groups:
            return
        self.load()
        pool = ThreadPoolExecutor(len(self.devices))
        try:
            yield from pool.map(self.score, groups)
        finally:
            pool.shutdown(cancel_futures=True)

    def keys(self, row: Row) -> tuple[str, str]:
        """Under which the ledger holds perplexity and fit."""
        return key_of(self.lock.weights, self.dtype, row.ids), key_of("fit", self.lock.weights, self.dtype, *row)

    def key_by_commit(self, ids: list[int]) -> str:
        """The key that the ledger's first version used."""
        return key_of(self.lock.revision, self.dtype, ids)


def find(scores: Scores, keys: tuple[str, str]) -> Score | None:
    """The score under these keys; None unless both of its figures are known."""
    perplexity, fit = map(scores.find, keys)
    return None if perplexity is None or fit is None else Score(perplexity, fit)


def keep(scores: Scores, keys: tuple[str, str], score: Score) -> None:
    """Adds what is not known yet: a perplexity that was there stays, so that it is the same on every device."""
    for key, figure in zip(keys, score, strict=True):
        if scores.find(key) is None:
            scores.add(key, figure)


def adopt_scores(scores: Scores, keys: list[tuple[str, str]], rows: list[Row], scorer: Scorer) -> None:
    """Takes over perplexities that are missing under their key and there under the one of the first version."""
    for (key, _), row in zip(keys, rows, strict=True):
        if row.ids and scores.find(key) is None and (known := scores.find(scorer.key_by_commit(row.ids))) is not None:
            scores.add(key, known)


def scored(rows: list[Row], scorer: Scorer, scores: Scores, batch_tokens: int, stage: str) -> list[Score]:
    """Scores in the order of ``rows``, with progress."""
    keys = list(map(scorer.keys, rows))
    if scorer.lock.content:
        adopt_scores(scores, keys, rows, scorer)
    missing = list({key: i for i, key in enumerate(keys) if rows[i].ids and find(scores, key) is None}.values())
    groups = [[missing[i] for i in group] for group in by_length([len(rows[i].ids) for i in missing], batch_tokens)]
    progress, done = Progress(stage, "traces of this part", len(missing)), 0
    with closing(scorer.score_all([[rows[i] for i in group] for group in groups])) as found:
        for group, values in zip(groups, found, strict=True):
            for i, value in zip(group, values, strict=True):
                keep(scores, keys[i], Score(*(round(figure, 4) for figure in value)))
                scorer.scored += 1
            done += len(group)
            progress.update(done)
    return [(find(scores, key) if row.ids else None) or UNKNOWN for key, row in zip(keys, rows, strict=True)]
