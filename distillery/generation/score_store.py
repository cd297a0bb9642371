"""Scores that a model gave to texts, kept next to the completions, so that no text is scored twice."""

import hashlib
import json
from pathlib import Path
from typing import Any

from distillery.core.journal import Journal, New
from distillery.core.record_file import Layout

LAYOUT = Layout((("score", "<f8"),))


def key_of(*about: Any) -> str:
    """The fingerprint of all that a score depends on, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


class Scores:
    """The scores of one owner, by their keys; one survives a kill once `add` returns."""

    def __init__(self, owner: str, root: Path):
        self.journal = Journal(root / owner, LAYOUT, of_json)

    def find(self, key: str) -> float | None:
        held = self.journal.find(key)
        return held[0].fields[0] if held else None

    def add(self, key: str, score: float) -> None:
        self.journal.append(key, (score,), b"")

    def close(self) -> None:
        self.journal.close()


def of_json(line: bytes) -> New | None:
    """A score as the first version stored it; None for a truncated line."""
    try:
        record = json.loads(line)
        return New(record["key"], (float(record["score"]),), b"")
    except (ValueError, TypeError, KeyError):
        return None
