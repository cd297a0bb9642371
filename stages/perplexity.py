"""perplexity: how surprised the scorer is by each verified trace, over query and response. Decides nothing."""

import math
import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages import locks, params, provenance
from stages.batches import by_length, padded
from stages.params import Section
from stages.provenance import device, say
from stages.tables import PERPLEXITY, QUERY, TRACE, aligned, part_name, read_part, whole_folder, write_part
from stages.verifiers import PASS


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
        queries, traces = aligned("data/queries", f"data/traces/{teacher}")
        count = tokens = 0
        with whole_folder(f"data/perplexity/{teacher}") as folder:
            for part, (asked, answered) in enumerate(zip(queries, traces, strict=True)):
                table = read_part(asked, QUERY)
                messages = dict(zip(table["id"].to_pylist(), table["messages"].to_pylist(), strict=True))
                rows = read_part(answered, TRACE).filter(pc.field("verdict") == PASS).to_pylist()
                texts = [[*messages[row["query_id"]], {"role": "assistant", "content": row["text"]}] for row in rows]
                ids = [tokenizer.apply_chat_template(text, return_dict=False)[: settings.max_tokens] for text in texts]
                found = score_all(model, ids, tokenizer.pad_token_id or 0, settings.batch_tokens, f"perplexity@{teacher}")
                columns = {name: [row[name] for row in rows] for name in ("query_id", "attempt")}
                write_part(pa.table(columns | {"perplexity": found}, PERPLEXITY), folder / part_name(part))
                count, tokens = count + len(rows), tokens + sum(map(len, ids))
        metrics.update(traces=count, tokens=tokens, provenance={"models": locks.brief(lock)})
    say(f"perplexity@{teacher}", f"{count} traces, {tokens} tokens")


if __name__ == "__main__":
    provenance.run(main)
