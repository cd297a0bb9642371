"""Scores that a model gave to texts, kept next to the completions, so that no text is scored twice."""

import hashlib
import json
from pathlib import Path
from typing import Any

from distillery.core.journal import Journal, parse_record


def key_of(*about: Any) -> str:
    """The fingerprint of all that a score depends on, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


class Scores:
    """The scores of one owner, by their keys; each is on disk when `add` returns."""

    def __init__(self, owner: str, root: Path):
        self.journal = Journal(root / owner)
        records = filter(None, (parse_record(line) for line, _ in self.journal.refresh()))
        self.known: dict[str, float] = {record["key"]: record["score"] for record in records}

    def add(self, key: str, score: float) -> None:
        self.known[key] = score
        self.journal.append({"key": key, "score": score})

    def close(self) -> None:
        self.journal.close()
