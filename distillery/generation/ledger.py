"""The ledger: every completion that was ever generated, and every verdict on it, kept outside the pipeline's outputs.

DVC deletes a stage's outputs before it runs the stage; the ledger stays. A completion is looked up by its request's
key; `valid` says whether it still holds under another ``max_tokens`` or context. Memory holds an index, texts are read on
demand, and a text that is damaged counts as never generated. Several runs may share a ledger, on a network file system too:
link ``.ledger`` to a folder that all of them see. `core.journal` says how it is stored, and what a crash can cost.

``python -m distillery.verification.ledger_cli OWNER`` shows what one holds; with ``--compact`` it merges its files.
"""

import json
import os
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distillery.core.journal import Journal, New
from distillery.core.journal_index import Record
from distillery.core.record_file import Layout, split
from distillery.generation.config import Sampling
from distillery.generation.engine import Completion

ROOT = Path(os.environ.get("DVC_ROOT", ".")) / ".ledger"
LOOK_AGAIN = 0.25
FINISH = ("stop", "length")
LAYOUT = Layout(
    (
        ("finish", "u1"),
        ("attempt", "<u4"),
        ("prompt_tokens", "<u4"),
        ("completion_tokens", "<u4"),
        ("seconds", "<f8"),
    )
)


class Entry(NamedTuple):
    """A completion without its text, which is at ``record``. ``seconds`` is its share of the engine's time."""

    finish_reason: str
    attempt: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    record: Record


def valid(entry: Entry | Completion, sampling: Sampling, context: int) -> bool:
    """Whether generating again would give the same under ``max_tokens`` and a model's ``context``, both in tokens.

    A completion that ended by itself is valid where it fits, a truncated one where it would be truncated at the same place.
    """
    room = min(sampling.max_tokens, context - entry.prompt_tokens)
    if entry.finish_reason == "length":
        return entry.completion_tokens == room
    return entry.completion_tokens <= room


class Ledger:
    """The completions of one owner (a teacher, a student, a judge), readable at once and appended to as they arrive.

    ``tokens`` and ``seconds`` of the engine are those of all of them, as far as this run has seen what others added.
    """

    def __init__(self, owner: str, root: Path = ROOT):
        self.journal = Journal(root / owner, LAYOUT, of_json)
        self.looked = time.monotonic()
        self.fresh: set[str] = set()
        rows = self.journal.index.rows
        self.tokens, self.seconds = int(rows["completion_tokens"].sum()), float(rows["seconds"].sum())

    def entries(self, key: str) -> list[Entry]:
        """Every completion of a request, valid or not."""
        return [entry_of(record) for record in self.journal.find(key)]

    def every(self) -> Iterator[tuple[str, Entry]]:
        """Every completion with its request's key."""
        return ((key, entry_of(record)) for key, record in self.journal.records())

    def seconds_of(self, keys: array) -> float:
        """Engine seconds of all completions of these requests, earlier truncated ones included; of a key its first half."""
        wanted, index = np.unique(np.array(keys, np.uint64)), self.journal.index
        rows, added = index.rows, index.added
        new = [split(key)[0] for key in added]
        fresh = [key for key, known in zip(added, np.isin(np.array(new, np.uint64), wanted), strict=True) if known]
        later = sum(entry_of(record).seconds for key in fresh for record in added[key])
        return float(rows["seconds"][np.isin(rows["high"], wanted)].sum()) + later

    def look(self) -> None:
        """Reads what other writers added since the last call; ``fresh`` holds the keys of all such completions."""
        for key, record in self.journal.refresh():
            self.fresh.add(key)
            self._count(entry_of(record))
        self.looked = time.monotonic()

    def find(self, key: str, sampling: Sampling, context: int) -> Completion | None:
        """A stored completion that is still valid; of several, the shortest, then the first by text."""
        held = [entry for entry in self.entries(key) if valid(entry, sampling, context)]
        least = min((entry.completion_tokens for entry in held), default=0)
        shortest = [entry for entry in held if entry.completion_tokens == least]
        found = [completion for entry in shortest if (completion := self.completion(key, entry))]
        if found:
            return min(found, key=lambda completion: completion.text)
        return self.find(key, sampling, context) if held else None  # those were damaged, and are gone

    def find_again(self, key: str, sampling: Sampling, context: int) -> Completion | None:
        """The same; if not found, reads first what other writers added, unless that was done just before."""
        found = self.find(key, sampling, context)
        if found is None and time.monotonic() - self.looked > LOOK_AGAIN:
            self.look()
            found = self.find(key, sampling, context)
        return found

    def completion(self, key: str, entry: Entry) -> Completion | None:
        """The completion with its text, read from the ledger; None where that is damaged."""
        payload = self.journal.payload(entry.record)
        if payload is None:
            return None
        engine, _, text = payload.decode("utf-8", "surrogatepass").partition("\n")
        return Completion(key, text, entry.finish_reason, entry.prompt_tokens, entry.completion_tokens, engine)

    def add(self, completion: Completion, attempt: int = 1, seconds: float = 0.0) -> Entry:
        """Stores a completion; it survives a kill once this returns."""
        entry = entry_of(self.journal.append(*record_of(completion, attempt, round(seconds, 4))))
        self._count(entry)
        return entry

    def _count(self, entry: Entry) -> None:
        self.tokens += entry.completion_tokens
        self.seconds += entry.seconds

    def close(self) -> None:
        self.journal.close()


def entry_of(record: Record) -> Entry:
    finish, attempt, prompt_tokens, completion_tokens, seconds = record.fields
    return Entry(FINISH[finish], attempt, prompt_tokens, completion_tokens, seconds, record)


def record_of(completion: Completion, attempt: int, seconds: float) -> New:
    tokens = (completion.prompt_tokens, completion.completion_tokens)
    payload = f"{completion.engine}\n{completion.text}".encode("utf-8", "surrogatepass")
    return New(completion.key, (FINISH.index(completion.finish_reason), attempt, *tokens, seconds), payload)


def of_json(line: bytes) -> New | None:
    """A completion as the first version stored it; None for a truncated line, and for an answer that was broken off."""
    try:
        record = json.loads(line)
        attempt, seconds = record.pop("attempt"), record.pop("seconds")
        completion = Completion(**record)
    except (ValueError, TypeError, KeyError):
        return None
    return record_of(completion, attempt, seconds) if completion.finish_reason in FINISH else None
