"""Perplexity under a causal language model: batched, a copy per device, every score kept in the ledger."""

import math
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue
from typing import Any

from distillery.core import model_locks
from distillery.core.batching import by_length, devices, padded
from distillery.core.errors import DataError
from distillery.core.progress import Progress
from distillery.generation.score_store import Scores, key_of

SLICE = 2048


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


def perplexities_of(model: Any, rows: list[list[int]], pad: int) -> list[float]:
    """Perplexity of each row of at least two token ids: exp of the mean loss over all but the first token."""
    import torch

    ids, mask = padded(rows, pad, model.device)
    with torch.inference_mode():
        losses = losses_of(model, ids, mask) * mask[:, 1:]
    return [math.exp(x) for x in (losses.sum(1) / mask[:, 1:].sum(1).clamp(min=1)).tolist()]


def load_scorer(lock: model_locks.Lock, dtype: str, where: str) -> Any:
    """The scorer on a device. Raises DataError where its logits are not its output embedding's."""
    import torch
    from transformers import AutoModelForCausalLM

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

    def score(self, rows: list[list[int]]) -> list[float]:
        """Perplexities of rows, by the next idle copy."""
        model = self.free.get()
        try:
            return perplexities_of(model, rows, self.pad)
        finally:
            self.free.put(model)

    def score_all(self, groups: list[list[list[int]]]) -> Generator[list[float], None, None]:
        """Perplexities of each group, in order."""
        if not groups:
            return
        self.load()
        pool = ThreadPoolExecutor(len(self.devices))
        try:
            yield from pool.map(self.score, groups)
        finally:
            pool.shutdown(cancel_futures=True)

    def key(self, ids: list[int]) -> str:
        return key_of(self.lock.weights, self.dtype, ids)

    def key_by_commit(self, ids: list[int]) -> str:
        """The key that the ledger's first version used."""
        return key_of(self.lock.revision, self.dtype, ids)


def adopt_scores(scores: Scores, keys: list[str], ids: list[list[int]], scorer: Scorer) -> None:
    """Takes over what is missing under its key and there under the one of the first version."""
    for key, row in zip(keys, ids, strict=True):
        if row and scores.find(key) is None and (known := scores.find(scorer.key_by_commit(row))) is not None:
            scores.add(key, known)


def perplexities(ids: list[list[int]], scorer: Scorer, scores: Scores, batch_tokens: int, stage: str) -> list[float]:
    """Perplexities in the order of ``ids``, with progress; not a number for a row without tokens."""
    keys = list(map(scorer.key, ids))
    if scorer.lock.content:
        adopt_scores(scores, keys, ids, scorer)
    missing = list({key: i for i, key in enumerate(keys) if ids[i] and scores.find(key) is None}.values())
    groups = [[missing[i] for i in group] for group in by_length([len(ids[i]) for i in missing], batch_tokens)]
    progress, done = Progress(stage, "traces of this part", len(missing)), 0
    with closing(scorer.score_all([[ids[i] for i in group] for group in groups])) as found:
        for group, values in zip(groups, found, strict=True):
            for i, value in zip(group, values, strict=True):
                scores.add(keys[i], round(value, 4))
                scorer.scored += 1
            done += len(group)
            progress.update(done)
    held = [scores.find(key) if row else None for key, row in zip(keys, ids, strict=True)]
    return [math.nan if score is None else score for score in held]
