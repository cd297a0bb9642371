"""Which benchmarks are evaluated, and how each is asked and verified."""

from dataclasses import dataclass

from distillery.core import config
from distillery.core.config import NonNegative, Section


@dataclass(frozen=True)
class Task(Section):
    """One benchmark."""

    task: str
    """Its lm-eval task file."""
    samples: NonNegative
    """Samples per question; 0 switches the benchmark off: it is not even downloaded."""
    verifier: str
    """The verifier, by its name in `distillery.verification.registry`; only samples with the full score pass."""


def benchmarks_by_samples() -> dict[str, int]:
    """Samples per question of every benchmark, from the settings."""
    return {name: task.samples for name, task in config.load(dict[str, Task], "evaluate.benchmarks").items()}


def enabled_benchmarks() -> list[str]:
    return [name for name, samples in benchmarks_by_samples().items() if samples]
