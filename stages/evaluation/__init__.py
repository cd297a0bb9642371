"""What an evaluation is: benchmarks, samples, how they are drawn."""

from dataclasses import dataclass

from stages.engines import EngineSettings, Sampling
from stages.params import Section


@dataclass(frozen=True)
class Task(Section):
    """How one benchmark is asked: its lm-eval task file and how many samples a question."""

    task: str
    samples: int


@dataclass(frozen=True)
class Evaluate(Section):
    """``suffix`` follows every question of mathematics; ``sampling`` and ``engine`` hold for all models alike.

    Where the engine is a server, ``{name}`` in its ``model`` stands for the student's name, or for ``base``.
    """

    engine: EngineSettings
    sampling: Sampling
    benchmarks: dict[str, Task]
    suffix: str
