"""``python -m distillery.check_settings``: reads every section of params.yaml as its stage will, before any stage runs.

So a mistake in the settings of a late stage is found before the early ones are paid for. All mistakes are listed at once.
"""

from collections.abc import Iterator
from typing import Any, Literal

from distillery.core import config
from distillery.core.arms import arms
from distillery.core.config import NonNegative, PositiveFloat
from distillery.core.errors import ConfigError
from distillery.core.response_format import StudentFormat
from distillery.core.stage import run_stage
from distillery.core.teachers import teacher_names
from distillery.corpus.sources import Origin
from distillery.evaluation.pilot import Pilot
from distillery.generation.config import EngineSettings, Sampling
from distillery.training.config import Train
from distillery.verification.config import VerifyParams
from distillery.verification.distiller import Distill
from stages import benchmarks, evaluate, train
from stages.analyse import Analyse
from stages.assets import Model
from stages.clean import Clean
from stages.collect import Collect
from stages.compare import Compare
from stages.constrain import Constrain
from stages.curate import Curate, Price
from stages.decontaminate import Decontaminate
from stages.forecast import Forecast
from stages.headline import Headline
from stages.pack import Pack
from stages.parallel import Parallel
from stages.perplexity import Perplexity
from stages.report import Report
from stages.similarity import Similarity

SECTIONS = {
    "seed": NonNegative,
    "prompts": str,
    "world": str,
    "system_prompt": str,
    "student_format": StudentFormat,
    "unverified": bool,
    "runner": Literal["native", "ray"],
    "price": Price,
    "assets": dict[str, Model | None],
    "benchmarks": dict[str, benchmarks.Source],
    "collect": Collect,
    "clean": Clean,
    "similarity": Similarity,
    "decontaminate": Decontaminate,
    "constrain": Constrain,
    "distill": Distill,
    "verify": VerifyParams,
    "perplexity": Perplexity,
    "curate": Curate,
    "parallel": Parallel,
    "pack": Pack,
    "train": Train,
    "evaluate": evaluate.Evaluate,
    "forecast": Forecast,
    "compare": Compare,
    "analyse": Analyse,
    "headline": Headline,
    "report": Report,
    "pilot": Pilot,
}
TEACHER = {
    "model": Model | None,
    "traces": Origin | None,
    "sampling": Sampling,
    "engine": EngineSettings,
    "max_perplexity": PositiveFloat,
}


def kinds() -> dict[str, Any]:
    """What every section of params.yaml is read as, the teachers' included."""
    of_teachers = {f"teacher.{name}.{key}": kind for name in teacher_names() for key, kind in TEACHER.items()}
    return SECTIONS | of_teachers


def mistakes() -> Iterator[str]:
    """One line per mistake."""
    for key, kind in kinds().items():
        try:
            config.load(kind, key)
        except ConfigError as error:
            yield str(error)


def check() -> None:
    """Raises ConfigError that lists everything wrong with params.yaml, or names what cannot work together."""
    if found := list(mistakes()):
        raise ConfigError("\n".join(found))
    described, wanted = arms(), config.load(Headline, "headline").arm
    if wanted not in described:
        raise ConfigError(f"params.yaml: headline.arm: {wanted!r} is none of the arms {', '.join(described)}")
    benchmarks.chosen()
    if (training := config.load(Train, "train")).hostfile is None:  # a scheduler may write the file when the training begins
        train.check(training)
    evaluate.verify_settings(config.load(VerifyParams, "verify"), config.load(evaluate.Evaluate, "evaluate"))


def main() -> None:
    check()
    print(f"settings: {config.PARAMS} has all sections, and every value is within its bounds")


if __name__ == "__main__":
    run_stage(main)
