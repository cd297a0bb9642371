"""Evaluation settings: benchmarks, and how samples are drawn and verified."""

from dataclasses import dataclass

from distillery.core.config import Section
from distillery.evaluation.benchmarks import Task
from distillery.generation.config import EngineSettings, Sampling
from distillery.verification.judge import JudgeSettings


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

    @property
    def enabled(self) -> dict[str, Task]:
        """The benchmarks that are not switched off."""
        return {name: task for name, task in self.benchmarks.items() if task.samples}
