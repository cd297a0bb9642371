"""Which benchmarks are evaluated, and how each is asked and verified."""

import hashlib
from dataclasses import dataclass
from typing import Any

from distillery.core import config
from distillery.core.config import NonNegative, Positive, Section


@dataclass(frozen=True)
class Task(Section):
    """One benchmark."""

    task: str
    """Its lm-eval task file."""
    samples: NonNegative
    """Samples per question; 0 switches the benchmark off: it is not even downloaded."""
    verifier: str
    """The verifier, by its name in `distillery.verification.registry`; only samples with the full score pass."""
    questions: Positive | None = None
    """At most so many of its questions, as if drawn at random, and always the same; null for all."""

    def chosen(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The questions that are asked, in their order."""
        ids = sorted((row["id"] for row in rows), key=lambda key: hashlib.sha256(key.encode()).digest())
        drawn = set(ids[: self.questions])
        return [row for row in rows if row["id"] in drawn]


def benchmarks_by_samples() -> dict[str, int]:
    """Samples per question of every benchmark, from the settings."""
    return {name: task.samples for name, task in config.load(dict[str, Task], "evaluate.benchmarks").items()}


def enabled_benchmarks() -> list[str]:
    return [name for name, samples in benchmarks_by_samples().items() if samples]
