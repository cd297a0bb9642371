"""Verdicts kept in the ledger: verifying 1.89 million programs again would take days.

A verdict is looked up by what it depends on: the verifier's version, the query with its reference, and the
answer. The score is kept and the threshold is not, so changing a threshold re-verifies nothing. Inconclusive verdicts
are kept for the record and never reused.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from time import time

from distillery.core.journal import Journal, parse_record
from distillery.verification.verdict import Item, Verdict

KEPT = ("score", "verdict", "reason", "verifier", "certain", "seconds")


def key_of(version: str, item: Item) -> str:
    """The fingerprint of all that a verdict depends on, 32 hexadecimal digits."""
    about = [version, item.category, item.messages, item.ground_truth, item.test_cases, item.constraints, item.answer]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


class Verdicts:
    """The verdicts of one owner; ``item.key`` is recorded, so that the ledger can report the verdict on a completion."""

    def __init__(self, owner: str, root: Path):
        self.journal = Journal(root / owner / "verdicts")
        self.known: dict[str, Verdict] = {}
        self.recorded: dict[str, str] = {}
        for line, _ in self.journal.refresh():
            if record := parse_record(line):
                self.recorded[record["completion"]] = record["key"]
                if record["score"] is not None:
                    self.known[record["key"]] = Verdict(**{name: record[name] for name in KEPT})

    def find(self, key: str) -> Verdict | None:
        return self.known.get(key)

    def add(self, key: str, item: Item, verdict: Verdict) -> None:
        """Stores a verdict, and the completion that it was reached on, once."""
        if key in self.known and self.recorded.get(item.key) == key:
            return
        if verdict.score is not None:
            self.known[key] = verdict
        self.recorded[item.key] = key
        self.journal.append({"key": key, "completion": item.key, "category": item.category, "at": time()} | asdict(verdict))

    def close(self) -> None:
        self.journal.close()
