"""Evaluation settings: benchmarks, and how samples are drawn and verified."""

from dataclasses import dataclass

from distillery.core.config import Positive, Section
from distillery.generation.config import EngineSettings, Sampling
from distillery.verification.judge import JudgeSettings


@dataclass(frozen=True)
class Task(Section):
    """One benchmark."""

    task: str
    """Its lm-eval task file."""
    samples: Positive
    """Samples per question."""
    verifier: str
    """What decides whether a sample is right, by its name in `distillery.verification.registry`; all of it must be."""


@dataclass(frozen=True)
class Evaluate(Section):
    """How every model is evaluated."""

    engine: EngineSettings
    """What generates. In a server's ``model``, ``{name}`` stands for the student's name, or for ``base``."""
    sampling: Sampling
    """How it samples; the same for all models."""
    benchmarks: dict[str, Task]
    """Every benchmark, by its name under ``benchmarks``."""
    suffix: str
    """What follows every question of mathematics."""
    judge: JudgeSettings | None
    """How the judge runs; null where no benchmark's verifier needs one."""
