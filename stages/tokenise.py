"""tokenise: tokenizes a teacher's traces with the student's tokenizer, once, into memory-mapped shards.

All verified traces, and with ``unverified`` first attempts whatever their verdict.
They are used for n-grams, lengths and packing. ``train.system_prompt`` says what the prompts open with: nothing, as in the
study, where the pipeline's system prompt is part of the prompt at distillation and evaluation, and not trained on.
"""

from functools import partial
from pathlib import Path
from typing import Any

from distillery.core import config, model_locks
from distillery.core.chat import with_system
from distillery.core.files import atomic_dir
from distillery.core.formats import StudentFormat
from distillery.core.model_locks import Lock
from distillery.core.progress import log
from distillery.core.response_parts import response_of
from distillery.core.runner import map_parts
from distillery.core.schemas import QUERY, TRACE
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import matching_parts, read_part
from distillery.corpus.token_shards import ShardWriter, candidates, index_type, write_pad_token
from distillery.training.tokenization import template_of, tokenize

ROWS_AT_ONCE, PIPELINE = 256, "pipeline"


def tokenise_part(
    lock: Lock,
    system_prompt: str,
    student_format: str,
    unverified: bool,
    queries: list[Path],
    traces: list[Path],
    folder: Path,
    part: int,
) -> dict[str, Any]:
    """Tokenizes one part into a shard; how many traces and tokens it holds."""
    template = template_of(lock)
    table = read_part(queries[part], QUERY)
    messages = dict(zip(table["id"].to_pylist(), table["messages"].to_pylist(), strict=True))
    answered = candidates(read_part(traces[part], TRACE), unverified)
    with ShardWriter(folder, part, index_type(len(template.tokenizer))) as shard:
        for batch in answered.to_batches(ROWS_AT_ONCE):
            rows = batch.to_pylist()
            dialogues = [
                (with_system(system_prompt, messages[row["query_id"]]), response_of(row, student_format)) for row in rows
            ]
            for row, tokens in zip(rows, tokenize(template, dialogues), strict=True):
                shard.add(row["query_id"], row["attempt"], *tokens)
    return {"traces": len(answered), "tokens": shard.tokens}


def training_prompt() -> str:
    """The system prompt that students are trained with, empty for none."""
    wanted = config.load(str | None, "train.system_prompt")
    return config.load(str, "system_prompt") if wanted == PIPELINE else wanted or ""


def main(teacher: str) -> None:
    lock, student_format = model_locks.read("base"), config.load(StudentFormat, "student_format")
    prompt, unverified = training_prompt(), config.load(bool, "unverified")
    pad = template_of(lock).tokenizer.pad_token_id or 0
    with record_metrics(f"metrics/tokenise/{teacher}.json", "tokenizers", "transformers") as (metrics, _):
        queries, traces = matching_parts("data/queries", f"data/traces/{teacher}")
        with atomic_dir(f"data/tokens/{teacher}") as folder:
            write_pad_token(folder, pad)
            work = partial(tokenise_part, lock, prompt, student_format, unverified, queries, traces, folder)
            results = map_parts(f"tokenise@{teacher}", work, len(queries))
        metrics.update({name: sum(part[name] for part in results) for name in ("traces", "tokens")})
        metrics["system_prompt"] = prompt or None
        metrics["provenance"] = {"models": model_locks.brief(lock)}
    log(f"tokenise@{teacher}", f"{metrics['traces']} verified traces, {metrics['tokens']} tokens")


if __name__ == "__main__":
    run_stage(main)
