"""perplexity: perplexity of each verified trace under the scorer, over query and response; filtering happens in curate.

A text that the scorer's chat template rejects has none (not a number).
Every score goes into the ledger at once: a killed run resumes where it stopped; the scorer is loaded only where one is missing.
"""

from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from distillery.core import config, model_locks
from distillery.core.config import Positive, Section
from distillery.core.files import atomic_dir
from distillery.core.progress import log
from distillery.core.response_format import StudentFormat, response_of
from distillery.core.schemas import PASS, PERPLEXITY, QUERY, TRACE
from distillery.core.stage import device, record_metrics, run_stage
from distillery.core.tables import matching_parts, part_name, read_part, write_part
from distillery.generation.ledger import ROOT
from distillery.generation.perplexity import Scorer, perplexities
from distillery.generation.score_store import Scores
from distillery.training.tokenization import template_of, tokenize


@dataclass(frozen=True)
class Perplexity(Section):
    """How traces are scored."""

    batch_tokens: Positive
    """Tokens per forward pass, padding included."""
    max_tokens: Positive
    """Longer texts are truncated to so many tokens."""
    dtype: str
    """The scorer's data type, ``float32`` or ``bfloat16``."""


def main(teacher: str) -> None:
    settings, lock, stage = config.load(Perplexity, "perplexity"), model_locks.read("scorer"), f"perplexity@{teacher}"
    student_format, template = config.load(StudentFormat, "student_format"), template_of(lock)
    scorer = Scorer(lock, settings.dtype, template.tokenizer.pad_token_id or 0)
    with (
        record_metrics(f"metrics/perplexity/{teacher}.json", "torch", "transformers", device=device()) as (metrics, run),
        closing(Scores(f"perplexity-{teacher}", ROOT)) as scores,
        atomic_dir(f"data/perplexity/{teacher}") as folder,
    ):
        queries, traces = matching_parts("data/queries", f"data/traces/{teacher}")
        count, tokens = 0, 0
        for part, (asked, answered) in enumerate(zip(queries, traces, strict=True)):
            table = read_part(asked, QUERY)
            messages = dict(zip(table["id"].to_pylist(), table["messages"].to_pylist(), strict=True))
            rows = read_part(answered, TRACE).filter(pc.field("verdict") == PASS).to_pylist()
            dialogues = [(messages[row["query_id"]], response_of(row, student_format)) for row in rows]
            ids = [row.ids[: settings.max_tokens] for row in tokenize(template, dialogues)]
            found = perplexities(ids, scorer, scores, settings.batch_tokens, stage)
            columns = {name: [row[name] for row in rows] for name in ("query_id", "attempt")}
            write_part(pa.table(columns | {"perplexity": found}, PERPLEXITY), folder / part_name(part))
            count, tokens = count + len(rows), tokens + sum(map(len, ids))
        metrics.update(traces=count, tokens=tokens)
        run["scored"] = scores.added
        metrics["provenance"] = {"models": model_locks.brief(lock)}
    log(stage, f"{count} traces, {tokens} tokens; {run['scored']} scored now, the rest before")


if __name__ == "__main__":
    run_stage(main)
