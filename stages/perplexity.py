"""perplexity: how surprised the scorer is by each verified trace, over query and response. Decides nothing."""

import math
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stages import locks, params, provenance
from stages.batches import by_length, padded
from stages.params import Section
from stages.provenance import device, say
from stages.tables import QUERY, TRACE, read, write
from stages.verifiers import PASS

PERPLEXITY = pa.schema([("query_id", pa.string()), ("attempt", pa.int32()), ("perplexity", pa.float64())])


@dataclass(frozen=True)
class Perplexity(Section):
    """``batch_tokens`` a forward pass, padding included; texts are cut to ``max_tokens``."""

    batch_tokens: int
    max_tokens: int
    dtype: str


def score(model: Any, rows: list[list[int]], pad: int) -> list[float]:
    """Perplexity of each row of token ids under ``model``: exp of the mean loss over all but the first token."""
    import torch

    ids, mask = padded(rows, pad, model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * mask[:, 1:]
    return [math.exp(x) for x in (losses.sum(1) / mask[:, 1:].sum(1).clamp(min=1)).tolist()]


def load(lock: locks.Lock, dtype: str) -> tuple[Any, Any]:
    """The scorer and its tokenizer, on the accelerator where there is one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(lock.id, revision=lock.hub_revision, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(lock.id, revision=lock.hub_revision)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def score_all(model: Any, ids: list[list[int]], pad: int, batch_tokens: int, stage: str) -> list[float]:
    """Perplexities in the order of ``ids``, with a line of progress now and then."""
    found, start = [math.nan] * len(ids), time.monotonic()
    last, done = start, 0
    for group in by_length(list(map(len, ids)), batch_tokens):
        for i, value in zip(group, score(model, [ids[i] for i in group], pad), strict=True):
            found[i] = round(value, 4)
        done += len(group)
        if time.monotonic() - last > 5:
            last = time.monotonic()
            say(stage, f"{done}/{len(ids)} traces, {(last - start) / done * (len(ids) - done):.0f} s left")
    return found


def main(teacher: str) -> None:
    settings, lock = params.load(Perplexity, "perplexity"), locks.read("scorer")
    with provenance.record(f"metrics/perplexity/{teacher}.json", "torch", "transformers", device=device()) as metrics:
        model, tokenizer = load(lock, settings.dtype)
        queries = {query["id"]: query["messages"] for query in read("data/queries", QUERY).to_pylist()}
        traces = [row for row in read(f"data/traces/{teacher}", TRACE).to_pylist() if row["verdict"] == PASS]
        texts = [[*queries[row["query_id"]], {"role": "assistant", "content": row["text"]}] for row in traces]
        ids = [tokenizer.apply_chat_template(text, return_dict=False)[: settings.max_tokens] for text in texts]
        found = score_all(model, ids, tokenizer.pad_token_id or 0, settings.batch_tokens, f"perplexity@{teacher}")
        rows = [
            {"query_id": row["query_id"], "attempt": row["attempt"], "perplexity": value}
            for row, value in zip(traces, found, strict=True)
        ]
        write(rows, f"data/perplexity/{teacher}", PERPLEXITY)
        metrics.update(traces=len(rows), tokens=sum(map(len, ids)), provenance={"models": locks.brief(lock)})
    say(f"perplexity@{teacher}", f"{len(rows)} traces, {metrics['tokens']} tokens")


if __name__ == "__main__":
    provenance.run(main)
