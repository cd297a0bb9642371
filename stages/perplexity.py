"""perplexity: how surprised the scorer is by each verified trace, over query and response. Decides nothing.

Every score goes into the ledger at once: a killed run goes on where it was, and the scorer is loaded only where one is missing.
"""

import math
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages import locks, params, provenance
from stages.batches import by_length, devices, padded
from stages.ledger import ROOT
from stages.ledger.scores import Scores, key_of
from stages.params import Section
from stages.provenance import device, say
from stages.tables import PERPLEXITY, QUERY, TRACE, DataError, aligned, part_name, read_part, whole_folder, write_part
from stages.verifiers import PASS

SLICE = 2048


@dataclass(frozen=True)
class Perplexity(Section):
    """``batch_tokens`` a forward pass, padding included; texts are cut to ``max_tokens``."""

    batch_tokens: int
    max_tokens: int
    dtype: str


def losses_of(model: Any, ids: Any, mask: Any) -> Any:
    """Loss of each token but the first, (rows, tokens - 1). Logits are made a slice at a time: whole, they fill a GPU."""
    import torch

    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0][:, :-1].flatten(0, 1)
    head, wanted = model.get_output_embeddings(), ids[:, 1:].flatten()
    slices = range(0, len(wanted), SLICE)
    losses = [
        torch.nn.functional.cross_entropy(head(hidden[i : i + SLICE]).float(), wanted[i : i + SLICE], reduction="none")
        for i in slices
    ]
    return torch.cat(losses).view(len(ids), -1)


def score(model: Any, rows: list[list[int]], pad: int) -> list[float]:
    """Perplexity of each row of at least two token ids: exp of the mean loss over all but the first token."""
    import torch

    ids, mask = padded(rows, pad, model.device)
    with torch.inference_mode():
        losses = losses_of(model, ids, mask) * mask[:, 1:]
    return [math.exp(x) for x in (losses.sum(1) / mask[:, 1:].sum(1).clamp(min=1)).tolist()]


def load(lock: locks.Lock, dtype: str, where: str) -> Any:
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
    """Scores rows of token ids by copies of the model, one on every device; ``free`` holds those that are not at work."""

    def __init__(self, lock: locks.Lock, dtype: str, pad: int):
        self.lock, self.dtype, self.pad = lock, dtype, pad
        self.devices: list[str] = []
        self.free = SimpleQueue[Any]()

    def load(self) -> None:
        """Loads the copies, once."""
        if not self.devices:
            self.devices = devices()
            for device in self.devices:
                self.free.put(load(self.lock, self.dtype, device))

    def score(self, rows: list[list[int]]) -> list[float]:
        """By the next copy that is free."""
        model = self.free.get()
        try:
            return score(model, rows, self.pad)
        finally:
            self.free.put(model)

    def score_all(self, groups: list[list[list[int]]]) -> Generator[list[float], None, None]:
        """Of each group, in their order."""
        if not groups:
            return
        self.load()
        pool = ThreadPoolExecutor(len(self.devices))
        try:
            yield from pool.map(self.score, groups)
        finally:
            pool.shutdown(cancel_futures=True)

    def key(self, ids: list[int]) -> str:
        return key_of(self.lock.revision, self.dtype, ids)


def perplexities(ids: list[list[int]], scorer: Scorer, scores: Scores, batch_tokens: int, stage: str) -> list[float]:
    """Perplexities in the order of ``ids``, with a line of progress now and then."""
    keys = list(map(scorer.key, ids))
    missing = list({key: i for i, key in enumerate(keys) if key not in scores.known}.values())
    groups = [[missing[i] for i in group] for group in by_length([len(ids[i]) for i in missing], batch_tokens)]
    last, done = (start := time.monotonic()), 0
    with closing(scorer.score_all([[ids[i] for i in group] for group in groups])) as found:
        for group, values in zip(groups, found, strict=True):
            for i, value in zip(group, values, strict=True):
                scores.add(keys[i], round(value, 4))
            done += len(group)
            if time.monotonic() - last > 5:
                last = time.monotonic()
                left = (last - start) / done * (len(missing) - done)
                say(stage, f"{done}/{len(missing)} traces of this part, {left:.0f} s left")
    return [scores.known[key] for key in keys]


def main(teacher: str) -> None:
    from transformers import AutoTokenizer

    settings, lock, stage = params.load(Perplexity, "perplexity"), locks.read("scorer"), f"perplexity@{teacher}"
    tokenizer = AutoTokenizer.from_pretrained(lock.id, revision=lock.hub_revision)
    scorer = Scorer(lock, settings.dtype, tokenizer.pad_token_id or 0)
    with (
        provenance.record(f"metrics/perplexity/{teacher}.json", "torch", "transformers", device=device()) as metrics,
        closing(Scores(f"perplexity-{teacher}", ROOT)) as scores,
        whole_folder(f"data/perplexity/{teacher}") as folder,
    ):
        queries, traces = aligned("data/queries", f"data/traces/{teacher}")
        count, tokens, before = 0, 0, len(scores.known)
        for part, (asked, answered) in enumerate(zip(queries, traces, strict=True)):
            table = read_part(asked, QUERY)
            messages = dict(zip(table["id"].to_pylist(), table["messages"].to_pylist(), strict=True))
            rows = read_part(answered, TRACE).filter(pc.field("verdict") == PASS).to_pylist()
            texts = [[*messages[row["query_id"]], {"role": "assistant", "content": row["text"]}] for row in rows]
            ids = [tokenizer.apply_chat_template(text, return_dict=False)[: settings.max_tokens] for text in texts]
            found = perplexities(ids, scorer, scores, settings.batch_tokens, stage)
            columns = {name: [row[name] for row in rows] for name in ("query_id", "attempt")}
            write_part(pa.table(columns | {"perplexity": found}, PERPLEXITY), folder / part_name(part))
            count, tokens = count + len(rows), tokens + sum(map(len, ids))
        metrics.update(traces=count, tokens=tokens, scored=len(scores.known) - before)
        metrics["provenance"] = {"models": locks.brief(lock)}
    say(stage, f"{count} traces, {tokens} tokens; {metrics['scored']} scored now, the rest before")


if __name__ == "__main__":
    provenance.run(main)
