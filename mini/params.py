"""The small world's own settings, in mini/params.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stages import params
from stages.params import Section

T = TypeVar("T")


@dataclass(frozen=True)
class Models(Section):
    """How the models are made: ``steps`` gives each role its optimizer steps; ``batch`` is in samples."""

    seed: int
    system_prompt: str
    hidden: int
    layers: int
    batch: int
    learning_rate: float
    processes: int
    steps: dict[str, int]


@dataclass(frozen=True)
class Corpus(Section):
    """How many queries to write, and how many of each kind of dirt to plant among them."""

    seed: int
    queries: int
    duplicates: int
    urls: int
    tables: int
    garbage: int
    twins: int


@dataclass(frozen=True)
class Benchmark(Section):
    """One benchmark: the kind of problem, and how many questions of each level."""

    kind: str
    levels: dict[str, int]


def load(kind: type[T], section: str) -> T:
    """Reads one section of mini/params.yaml."""
    return params.load(kind, section, Path("mini/params.yaml"))
