"""perplexity: perplexity of each verified trace under the scorer, over query and response; filtering happens in curate.

A text that the scorer's chat template rejects has none (not a number).
Every score goes into the ledger at once: a killed run resumes where it stopped; the scorer is loaded only where one is missing.
A score is kept by the token ids that it is of, and by the texts that these came from, so that what is known is not even
tokenised. The next part's texts are tokenised while the scorer works.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from distillery.core import config, model_locks
from distillery.core.batching import one_ahead
from distillery.core.chat_template import ChatTemplate
from distillery.core.codehash import hash_code
from distillery.core.config import Positive, Section
from distillery.core.files import atomic_dir
from distillery.core.progress import log
from distillery.core.response_format import StudentFormat, response_of
from distillery.core.schemas import PASS, PERPLEXITY, QUERY, TRACE
from distillery.core.stage import device, record_metrics, run_stage
from distillery.core.tables import matching_parts, part_name, read_part, write_part
from distillery.generation.ledger import ROOT
from distillery.generation.perplexity import Scorer, perplexities
from distillery.generation.score_store import Scores, key_of
from distillery.training.tokenization import template_of, tokenize

TOKENIZING = ("distillery.core.chat", "distillery.core.chat_template", "distillery.training.tokenization")
"""What the token ids of a text depend on besides the tokenizer."""


@dataclass(frozen=True)
class Perplexity(Section):
    """How traces are scored."""

    batch_tokens: Positive
    """Tokens per forward pass, padding included."""
    max_tokens: Positive
    """Longer texts are truncated to so many tokens."""
    dtype: str
    """The scorer's data type, ``float32`` or ``bfloat16``."""


class Part(NamedTuple):
    """The verified traces of one part: the key of each score, and the token ids of those whose score is not known."""

    traces: pa.Table
    keys: list[str]
    missing: list[int]
    ids: list[list[int]]


class Reader:
    """Prepares parts for scoring."""

    def __init__(self, settings: Perplexity, lock: model_locks.Lock, student_format: str, scores: Scores):
        self.settings, self.scores, self.student_format = settings, scores, student_format
        self.template: ChatTemplate = template_of(lock)
        self.about = [lock.identity, student_format, settings.dtype, settings.max_tokens, hash_code(TOKENIZING)]

    def read(self, paths: tuple[Path, Path]) -> Part:
        """One part, from its queries and traces."""
        table = read_part(paths[0], QUERY)
        messages = dict(zip(table["id"].to_pylist(), table["messages"].to_pylist(), strict=True))
        traces = read_part(paths[1], TRACE).filter(pc.field("verdict") == PASS)
        dialogues = [(messages[row["query_id"]], response_of(row, self.student_format)) for row in traces.to_pylist()]
        keys = [key_of(*self.about, *dialogue) for dialogue in dialogues]
        missing = [i for i, key in enumerate(keys) if self.scores.find(key) is None]
        tokenized = tokenize(self.template, [dialogues[i] for i in missing])
        ids = [row.ids[: self.settings.max_tokens] for row in tokenized]
        return Part(traces.select(["query_id", "attempt"]), keys, missing, ids)


def scored(parts: Iterator[Part], scorer: Scorer, scores: Scores, batch_tokens: int, stage: str) -> Iterator[pa.Table]:
    """PERPLEXITY of each part."""
    for part in parts:
        for i, value in zip(part.missing, perplexities(part.ids, scorer, scores, batch_tokens, stage), strict=True):
            if not isnan(value):
                scores.add(part.keys[i], value)
        known = [scores.find(key) for key in part.keys]
        yield part.traces.append_column("perplexity", pa.array([nan if value is None else value for value in known])).cast(
            PERPLEXITY
        )


def main(teacher: str) -> None:
    settings, lock, stage = config.load(Perplexity, "perplexity"), model_locks.read("scorer"), f"perplexity@{teacher}"
    student_format = config.load(StudentFormat, "student_format")
    with (
        record_metrics(f"metrics/perplexity/{teacher}.json", "torch", "transformers", device=device()) as (metrics, run),
        closing(Scores(f"perplexity-{teacher}", ROOT)) as scores,
        atomic_dir(f"data/perplexity/{teacher}") as folder,
    ):
        reader = Reader(settings, lock, student_format, scores)
        scorer = Scorer(lock, settings.dtype, reader.template.tokenizer.pad_token_id or 0)
        paths = list(zip(*matching_parts("data/queries", f"data/traces/{teacher}"), strict=True))
        count = 0
        for number, part in enumerate(scored(one_ahead(reader.read, paths), scorer, scores, settings.batch_tokens, stage)):
            write_part(part, folder / part_name(number))
            count += len(part)
        metrics["traces"] = count
        run["scored"] = scorer.scored
        metrics["provenance"] = {"models": model_locks.brief(lock)}
    log(stage, f"{count} traces; {run['scored']} scored now, the rest before")


if __name__ == "__main__":
    run_stage(main)
