"""tokenise: tokenizes a teacher's verified traces with the student's tokenizer, once, into memory-mapped shards.

They are used for n-grams, lengths and packing. The system prompt is left out, as in the study: it is part of the prompt at
distillation and evaluation, and not trained on.
"""

from functools import partial
from pathlib import Path
from typing import Any

from distillery.core import model_locks
from distillery.core.files import atomic_dir
from distillery.core.model_locks import Lock
from distillery.core.progress import log
from distillery.core.runner import map_parts
from distillery.core.schemas import QUERY, TRACE
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import matching_parts, read_part
from distillery.corpus.token_shards import ShardWriter, chosen, index_type
from distillery.training.tokenization import load_tokenizer, special_tokens, spells, tokenize

ROWS_AT_ONCE = 256


def tokenise_part(lock: Lock, queries: list[Path], traces: list[Path], folder: Path, part: int) -> dict[str, Any]:
    """Tokenizes one part into a shard; how many traces and tokens it holds."""
    tokenizer = load_tokenizer(lock.id, lock.hub_revision)
    special = special_tokens(tokenizer)
    table = read_part(queries[part], QUERY)
    messages = dict(zip(table["id"].to_pylist(), table["messages"].to_pylist(), strict=True))
    answered = chosen(read_part(traces[part], TRACE).select(["query_id", "verdict", "text"]))
    with ShardWriter(folder, part, index_type(len(tokenizer))) as shard:
        for batch in answered.to_batches(ROWS_AT_ONCE):
            names, texts = batch["query_id"].to_pylist(), batch["text"].to_pylist()
            dialogues = [(messages[name], text) for name, text in zip(names, texts, strict=True)]
            for name, dialogue, (ids, prompt) in zip(names, dialogues, tokenize(tokenizer, dialogues), strict=True):
                shard.add(name, ids, prompt, spells(special, dialogue))
    return {"traces": len(answered), "tokens": shard.tokens}


def main(teacher: str) -> None:
    lock = model_locks.read("base")
    with record_metrics(f"metrics/tokenise/{teacher}.json", "tokenizers", "transformers") as (metrics, _):
        queries, traces = matching_parts("data/queries", f"data/traces/{teacher}")
        with atomic_dir(f"data/tokens/{teacher}") as folder:
            results = map_parts(f"tokenise@{teacher}", partial(tokenise_part, lock, queries, traces, folder), len(queries))
        metrics.update({name: sum(part[name] for part in results) for name in ("traces", "tokens")})
        metrics["provenance"] = {"models": model_locks.brief(lock)}
    log(f"tokenise@{teacher}", f"{metrics['traces']} verified traces, {metrics['tokens']} tokens")


if __name__ == "__main__":
    run_stage(main)
