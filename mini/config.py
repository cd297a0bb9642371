"""The small world's own settings, in mini/params.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from distillery.core import config
from distillery.core.config import NonNegative, Positive, PositiveFloat, Section

T = TypeVar("T")


@dataclass(frozen=True)
class Models(Section):
    """How the models are made."""

    seed: int
    """Seed of weights and samples."""
    system_prompt: str
    """What half of all training prompts open with."""
    hidden: Positive
    """Width."""
    layers: Positive
    """Depth."""
    batch: Positive
    """Samples per step."""
    learning_rate: PositiveFloat
    """The peak; before it warm-up, after it a cosine."""
    processes: Positive
    """Models that train in parallel."""
    steps: dict[str, Positive]
    """Optimizer steps of each role."""
    continues: dict[str, str]
    """The role whose finished model a role starts from: teachers of several styles share what they know."""


@dataclass(frozen=True)
class Corpus(Section):
    """How many queries to write, and how many of each kind of dirt to plant among them."""

    seed: int
    """Seed of everything that is drawn."""
    queries: Positive
    """Good queries."""
    duplicates: NonNegative
    """Repeated queries, some with other white space."""
    urls: NonNegative
    """Queries that hold a link."""
    tables: NonNegative
    """Queries that hold a table."""
    garbage: NonNegative
    """Queries that are empty, truncated or full of symbols."""
    twins: NonNegative
    """Benchmark questions, as they are or lightly changed."""


@dataclass(frozen=True)
class Benchmark(Section):
    """One benchmark."""

    kind: str
    """The kind of problem, a name in mini/corpus.py."""
    levels: dict[str, Positive]
    """Questions of each level."""


def load(kind: type[T], section: str) -> T:
    """Reads one section of mini/params.yaml."""
    return config.load(kind, section, Path("mini/params.yaml"))
