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
    """The verifier, by its name in `distillery.verification.registry`; only samples with the full score pass."""


@dataclass(frozen=True)
class Evaluate(Section):
    """How every model is evaluated."""

    engine: EngineSettings
    """The engine. In a server's ``model``, ``{name}`` stands for the student's name, or for ``base``."""
    sampling: Sampling
    """Sampling settings; the same for all models."""
    benchmarks: dict[str, Task]
    """Every benchmark, by its name under ``benchmarks``."""
    suffix: str
    """Text appended to every mathematics question."""
    judge: JudgeSettings | None
    """How the judge runs; null where no benchmark's verifier needs one."""
