"""perplexity: perplexity and fit of each trace under the scorer (`generation.perplexity`); filtering happens in curate.

A text that the scorer's chat template rejects has none (not a number). All verified traces are scored, and with
``unverified`` first attempts whatever their verdict.
Every score goes into the ledger at once: a killed run resumes where it stopped; the scorer is loaded only where one is missing.
A score is kept by the token ids that it is of, and by the texts that these came from, so that what is known is not even
tokenised. The next part's texts are tokenised while the scorer works.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from distillery.core import config, model_locks
from distillery.core.batching import one_ahead
from distillery.core.chat_template import ChatTemplate
from distillery.core.codehash import hash_code
from distillery.core.config import ModelType, Positive, Section
from distillery.core.files import atomic_dir
from distillery.core.formats import StudentFormat
from distillery.core.progress import log
from distillery.core.response_parts import response_of
from distillery.core.schemas import PERPLEXITY, QUERY, TRACE
from distillery.core.stage import device, record_metrics, run_stage
from distillery.core.tables import matching_parts, part_name, read_part, write_part
from distillery.corpus.token_shards import candidates
from distillery.generation.ledger import ROOT
from distillery.generation.perplexity import UNKNOWN, Row, Scorer, find, keep, scored
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
    dtype: ModelType
    """The scorer's data type."""


class Part(NamedTuple):
    """The traces of one part: the keys of each score, and the token ids of those whose score is not known."""

    traces: pa.Table
    keys: list[tuple[str, str]]
    missing: list[int]
    rows: list[Row]


class Reader:
    """Prepares parts for scoring."""

    def __init__(self, settings: Perplexity, lock: model_locks.Lock, student_format: str, unverified: bool, scores: Scores):
        self.settings, self.scores, self.student_format, self.unverified = settings, scores, student_format, unverified
        self.template: ChatTemplate = template_of(lock)
        self.about = [lock.identity, student_format, settings.dtype, settings.max_tokens, hash_code(TOKENIZING)]

    def read(self, paths: tuple[Path, Path]) -> Part:
        """One part, from its queries and traces."""
        table = read_part(paths[0], QUERY)
        messages = dict(zip(table["id"].to_pylist(), table["messages"].to_pylist(), strict=True))
        traces = candidates(read_part(paths[1], TRACE), self.unverified)
        dialogues = [(messages[row["query_id"]], response_of(row, self.student_format)) for row in traces.to_pylist()]
        keys = [(key_of(*self.about, *dialogue), key_of("fit", *self.about, *dialogue)) for dialogue in dialogues]
        missing = [i for i, key in enumerate(keys) if find(self.scores, key) is None]
        tokenized = tokenize(self.template, [dialogues[i] for i in missing])
        rows = [Row(each.ids[: self.settings.max_tokens], each.prompt) for each in tokenized]
        return Part(traces.select(["query_id", "attempt"]), keys, missing, rows)


def tables(parts: Iterator[Part], scorer: Scorer, scores: Scores, batch_tokens: int, stage: str) -> Iterator[pa.Table]:
    """PERPLEXITY of each part."""
    for part in parts:
        for i, score in zip(part.missing, scored(part.rows, scorer, scores, batch_tokens, stage), strict=True):
            if not isnan(score.perplexity):
                keep(scores, part.keys[i], score)
        columns = zip(*(find(scores, key) or UNKNOWN for key in part.keys), strict=True) if part.keys else ((), ())
        table = part.traces
        for name, column in zip(("perplexity", "fit"), columns, strict=True):
            table = table.append_column(name, pa.array(column, pa.float64()))
        yield table.cast(PERPLEXITY)


def main(teacher: str) -> None:
    settings, lock, stage = config.load(Perplexity, "perplexity"), model_locks.read("scorer"), f"perplexity@{teacher}"
    student_format, unverified = config.load(StudentFormat, "student_format"), config.load(bool, "unverified")
    with (
        record_metrics(f"metrics/perplexity/{teacher}.json", "torch", "transformers", device=device()) as (metrics, run),
        closing(Scores(f"perplexity-{teacher}", ROOT)) as scores,
        atomic_dir(f"data/perplexity/{teacher}") as folder,
    ):
        reader = Reader(settings, lock, student_format, unverified, scores)
        scorer = Scorer(lock, settings.dtype, reader.template.tokenizer.pad_token_id or 0)
        paths = list(zip(*matching_parts("data/queries", f"data/traces/{teacher}"), strict=True))
        count = 0
        for number, part in enumerate(tables(one_ahead(reader.read, paths), scorer, scores, settings.batch_tokens, stage)):
            write_part(part, folder / part_name(number))
            count += len(part)
        metrics["traces"] = count
        run["scored"] = scorer.scored
        metrics["provenance"] = {"models": model_locks.brief(lock)}
    log(stage, f"{count} traces; {run['scored']} scored now, the rest before")


if __name__ == "__main__":
    run_stage(main)
