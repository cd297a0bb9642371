"""The ledger: every completion that was ever generated, and every verdict on it, kept outside the pipeline's outputs.

DVC deletes a stage's outputs before it runs the stage; the ledger stays. A completion is looked up by its request's
key; `valid` says whether it still holds under another ``max_tokens`` or context. Only an index is held in memory,
texts are read on demand. Several runs may share a ledger, on a network file system too: link ``.ledger`` to
a folder that all of them see.

``python -m distillery.generation.ledger_cli OWNER`` shows what one holds; with ``--compact`` it merges its files into one.
"""

import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.core.errors import DataError
from distillery.core.journal import Journal, RecordLocation
from distillery.generation.config import Sampling
from distillery.generation.engine import Completion

ROOT = Path(os.environ.get("DVC_ROOT", ".")) / ".ledger"
LOOK_AGAIN = 0.25


@dataclass(frozen=True, slots=True)
class Entry:
    """A completion without its text, which is at ``place``. ``seconds`` is its share of the engine's time."""

    place: RecordLocation
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    attempt: int
    seconds: float


def valid(entry: Entry | Completion, sampling: Sampling, context: int) -> bool:
    """Whether generating again would give the same under ``max_tokens`` and a model's ``context``, both in tokens.

    A completion that ended by itself is valid where it fits, a truncated one where it would be truncated at the same place.
    """
    room = min(sampling.max_tokens, context - entry.prompt_tokens)
    if entry.finish_reason == "length":
        return entry.completion_tokens == room
    return entry.completion_tokens <= room


class Ledger:
    """The completions of one owner (a teacher, a student, a judge), readable at once and appended to as they arrive."""

    def __init__(self, owner: str, root: Path = ROOT):
        self.journal = Journal(root / owner)
        self.entries: dict[str, list[Entry]] = defaultdict(list)
        self.looked = 0.0
        self.fresh: set[str] = set()
        self.look()
        self.fresh.clear()

    def look(self) -> None:
        """Reads what other writers added since the last call; ``fresh`` holds the keys of all such completions.

        Raises DataError at a line of another version.
        """
        for line, place in self.journal.refresh():
            record = _parse(line, self.journal.path_of(place.writer))
            if record is not None:
                key = record.pop("key")
                self.entries[key].append(Entry(place, **record))
                self.fresh.add(key)
        self.looked = time.monotonic()

    def find(self, key: str, sampling: Sampling, context: int) -> Entry | None:
        """A stored completion that is still valid; of several, the shortest, then the first by text."""
        held = [entry for entry in self.entries.get(key, ()) if valid(entry, sampling, context)]
        if len(held) < 2:
            return held[0] if held else None
        return min(held, key=lambda entry: (entry.completion_tokens, self.completion(key, entry).text))

    def find_again(self, key: str, sampling: Sampling, context: int) -> Entry | None:
        """The same; if not found, reads first what other writers added, unless that was done just before."""
        entry = self.find(key, sampling, context)
        if entry is None and time.monotonic() - self.looked > LOOK_AGAIN:
            self.look()
            entry = self.find(key, sampling, context)
        return entry

    def completion(self, key: str, entry: Entry) -> Completion:
        """The completion with its text, read from the ledger."""
        record = json.loads(self.journal.fetch(entry.place))
        names = ("text", "finish_reason", "prompt_tokens", "completion_tokens", "engine")
        return Completion(key, *(record[name] for name in names))

    def add(self, completion: Completion, attempt: int = 1, seconds: float = 0.0) -> Entry:
        """Stores a completion; it survives a kill once this returns."""
        about = {"attempt": attempt, "seconds": round(seconds, 4)}
        fields = {name: value for name, value in vars(completion).items() if name != "text"}
        place = self.journal.append(fields | about | {"text": completion.text})
        entry = Entry(
            place, completion.finish_reason, completion.prompt_tokens, completion.completion_tokens, attempt, about["seconds"]
        )
        self.entries[completion.key].append(entry)
        return entry

    def close(self) -> None:
        self.journal.close()


def _parse(line: bytes, path: Path) -> dict[str, Any] | None:
    """A completion's fields but for text and engine; None for a line that a kill truncated.

    The text comes last and is the bulk of a line, so the line is parsed without it.
    """
    head, found, text = line.partition(b', "text": "')
    try:
        record = json.loads(head + b"}" if found and text.endswith(b'"}\n') else line)
    except ValueError:
        return None
    wanted = {"key", "finish_reason", "prompt_tokens", "completion_tokens", "engine", "attempt", "seconds"}
    if not found or not isinstance(record, dict) or record.keys() != wanted:
        raise DataError(f"{path}: not a completion of this version; move the file away to generate its completions again")
    del record["engine"]
    return record
