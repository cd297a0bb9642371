"""Verdicts kept in the ledger: verifying 1.89 million programs again would take days.

A verdict is looked up by what it depends on: the verifier's version, the query with its reference, and the
answer. The score is kept and the threshold is not, so changing a threshold re-verifies nothing. Inconclusive verdicts
are kept for the record and never reused.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import NamedTuple

from distillery.core.journal import Journal, New
from distillery.core.journal_index import Record
from distillery.core.record_file import Layout, joined, split
from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.verification.verdict import Item, Verdict

KINDS = (UNKNOWN, FAIL, PASS)
LAYOUT = Layout(
    (
        ("completion_high", "<u8"),
        ("completion_low", "<u8"),
        ("kind", "u1"),
        ("certain", "u1"),
        ("score", "<f8"),
        ("seconds", "<f8"),
        ("at", "<f8"),
    )
)


class About(NamedTuple):
    """A stored verdict's fields. ``completion`` was the first to get it, in two halves; ``at`` is in seconds since 1970."""

    completion_high: int
    completion_low: int
    kind: int
    certain: int
    score: float
    seconds: float
    at: float


def key_of(version: str, item: Item) -> str:
    """The fingerprint of all that a verdict depends on, 32 hexadecimal digits."""
    digest = item.digest(version)
    digest.update(json.dumps(item.answer).encode())
    return digest.hexdigest()[:32]


def key_of_first_version(version: str, item: Item) -> str:
    """The fingerprint by which the first version stored verdicts."""
    about = [version, item.category, item.messages, item.ground_truth, item.test_cases, item.constraints, item.answer]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


class Verdicts:
    """The verdicts of one owner; ``item.key`` is recorded, so that the ledger can report the verdict on a completion."""

    def __init__(self, owner: str, root: Path):
        self.journal = Journal(root / owner / "verdicts", LAYOUT, of_json)

    def find(self, version: str, item: Item) -> Verdict | None:
        """The conclusive verdict on an item."""
        return self._conclusive(key_of(version, item)) or self._conclusive(key_of_first_version(version, item))

    def add(self, version: str, item: Item, verdict: Verdict) -> None:
        """Stores a verdict, and the completion that it was reached on, once."""
        key, completion = key_of(version, item), completion_of(item.key)
        for record in self.journal.find(key):
            about = About(*record.fields)
            if KINDS[about.kind] == verdict.verdict != UNKNOWN and (about.completion_high, about.completion_low) == completion:
                return
        self.journal.append(*record_of(key, completion, verdict, time()))

    def last(self) -> Iterator[tuple[str, str]]:
        """Every completion's key with its last verdict."""
        records = sorted((About(*record.fields) for _, record in self.journal.records()), key=lambda about: about.at)
        return iter({joined(about.completion_high, about.completion_low): KINDS[about.kind] for about in records}.items())

    def close(self) -> None:
        self.journal.close()

    def _conclusive(self, key: str) -> Verdict | None:
        for record in self.journal.find(key):
            if About(*record.fields).kind != KINDS.index(UNKNOWN) and (found := self._verdict(record)):
                return found
        return None

    def _verdict(self, record: Record) -> Verdict | None:
        payload = self.journal.payload(record)
        if payload is None:
            return None
        about = About(*record.fields)
        score = None if math.isnan(about.score) else about.score
        words = json.loads(payload)
        return Verdict(
            score, KINDS[about.kind], words["reason"], words["verifier"], certain=bool(about.certain), seconds=about.seconds
        )


def record_of(key: str, completion: tuple[int, int], verdict: Verdict, at: float) -> New:
    score = math.nan if verdict.score is None else verdict.score
    fields = About(*completion, KINDS.index(verdict.verdict), verdict.certain, score, verdict.seconds, at)
    return New(key, tuple(fields), json.dumps({"reason": verdict.reason, "verifier": verdict.verifier}).encode())


def completion_of(key: str) -> tuple[int, int]:
    """A completion's key in two halves; zeros for what was not filed under a completion."""
    try:
        return split(key)
    except ValueError:
        return 0, 0


def of_json(line: bytes) -> New | None:
    """A verdict as the first version stored it; None for a truncated line."""
    try:
        record = json.loads(line)
        kept = {name: record[name] for name in ("score", "verdict", "reason", "verifier", "certain", "seconds")}
        return record_of(record["key"], completion_of(record["completion"]), Verdict(**kept), record.get("at", 0.0))
    except (ValueError, TypeError, KeyError):
        return None
