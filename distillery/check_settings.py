"""``python -m distillery.check_settings``: reads every section of params.yaml as its stage will, before any stage runs.

So a mistake in the settings of a late stage is found before the early ones are paid for. All mistakes are listed at once.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from distillery.core import config
from distillery.core.arms import Arm, arms
from distillery.core.config import NonNegative, PositiveFloat
from distillery.core.errors import ConfigError, UserError
from distillery.core.formats import StudentFormat
from distillery.core.runner import Runner
from distillery.core.stage import run_stage
from distillery.core.teachers import teacher_names
from distillery.corpus.sources import Origin
from distillery.evaluation.pilot import Pilot
from distillery.generation.config import EngineSettings, Sampling
from distillery.training.config import Train
from distillery.verification.config import VerifyParams
from distillery.verification.distiller import Distill
from distillery.verification.registry import entry_of
from distillery.verification.sandbox.packages import folders_of
from stages import assets, benchmarks, evaluate, train
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
    "runner": Runner,
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
TEACHER: dict[str, Any] = {
    "model": Model | None,
    "traces": Origin | None,
    "sampling": Sampling,
    "engine": EngineSettings,
    "max_perplexity": PositiveFloat,
}


def kinds() -> dict[str, Any]:
    """What every section of params.yaml is read as, the teachers' included."""
    of_teachers = {f"teacher.{name}": dict[str, Any] for name in teacher_names()}
    there = config.read_params().get("teacher") or {}
    complete = [name for name in teacher_names() if isinstance(there.get(name), dict)]
    return SECTIONS | of_teachers | {f"teacher.{name}.{key}": kind for name in complete for key, kind in TEACHER.items()}


def mistakes() -> Iterator[str]:
    """One line per mistake, within sections first, then between them."""
    found = [line for key, kind in kinds().items() for line in wrong(partial(config.load, kind, key))]
    if not found:
        found = [line for rule in RULES for line in wrong(rule)]
    yield from dict.fromkeys(found)


def wrong(action: Callable[[], object]) -> Iterator[str]:
    """The lines of the error that an action raises."""
    try:
        action()
    except UserError as error:
        yield from str(error).splitlines()


def check_arms() -> None:
    """Raises ConfigError where an arm, described ones that are not used included, cannot be what it says."""
    described, traces = arms(), config.load(Distill, "distill").traces
    for name, arm in (described | config.load(dict[str, Arm], "arm")).items():
        if strange := sorted(set(arm.teachers) - set(teacher_names())):
            raise ConfigError(f"params.yaml: arm.{name}.teachers: {strange[0]!r} is none of {', '.join(teacher_names())}")
        if arm.per_query > traces * len(arm.teachers):
            raise ConfigError(
                f"params.yaml: arm.{name}.per_query: {arm.per_query} of each query, but distill.traces is {traces}"
            )
    if (wanted := config.load(Headline, "headline").arm) not in described:
        raise ConfigError(f"params.yaml: headline.arm: {wanted!r} is none of the arms {', '.join(described)}")


def check_models() -> None:
    """Raises ConfigError where a role or teacher has no model, two, or one whose template or format does not exist."""
    roles = config.load(dict[str, Model | None], "assets")
    if strange := sorted(roles.keys() - {*assets.NEEDED, *assets.OPTIONAL}):
        near = config.suggestion(strange[0], [*assets.NEEDED, *assets.OPTIONAL])
        raise ConfigError(f"params.yaml: assets.{strange[0]}: unknown role{near}")
    for role in assets.NEEDED:
        config.load(Model, f"assets.{role}")
    verify = config.load(VerifyParams, "verify")
    for role, settings in (("judge", verify.judge), ("reward", verify.reward)):
        if settings and not roles.get(role):
            raise ConfigError(
                f"params.yaml: assets.{role}: null, but verify.{role} has settings; name its model, or set both null"
            )
    for name in teacher_names():
        model, traces = (config.load(TEACHER[key], f"teacher.{name}.{key}") for key in ("model", "traces"))
        assets.check_teacher(f"teacher.{name}", model, traces)
        roles[f"teacher {name}"] = model
    for role, model in roles.items():
        if model:
            assets.check_chat(role, model)


def check_lengths() -> None:
    """Raises ConfigError where a teacher may not answer as long as it is asked to."""
    for name in teacher_names():
        engine, sampling = (config.load(TEACHER[key], f"teacher.{name}.{key}") for key in ("engine", "sampling"))
        if sampling.max_tokens >= engine.max_model_len:
            most = f"engine.max_model_len, {engine.max_model_len}, which has to hold the prompt, too"
            raise ConfigError(f"params.yaml: teacher.{name}.sampling.max_tokens: {sampling.max_tokens} does not fit {most}")


def check_verifiers() -> None:
    """Raises ConfigError where a verifier is unknown, or lacks the judge or reward model that it needs."""
    verify = config.load(VerifyParams, "verify")
    for category, rule in verify.rules.items():
        key = f"verify.rules.{category}.verifier"
        if entry_of(rule.verifier, key).judge == "always" and verify.judge is None:
            raise ConfigError(f"params.yaml: {key}: {rule.verifier} needs a judge; give verify.judge its settings")
        if rule.verifier == "reward" and verify.reward is None:
            raise ConfigError(f"params.yaml: {key}: reward needs a reward model; give verify.reward its settings")
    if any(rule.verifier == "code" for rule in verify.rules.values()):
        folders_of(verify.sandbox.packages)
    evaluate.verify_settings(verify, config.load(evaluate.Evaluate, "evaluate"))


def check_files() -> None:
    """Raises ConfigError where a file of the project's own that a setting names is missing."""
    enabled = config.load(evaluate.Evaluate, "evaluate").enabled
    named = {f"evaluate.benchmarks.{name}.task": task.task for name, task in enabled.items()}
    named["train.deepspeed"] = config.load(Train, "train").deepspeed
    if (study := config.load(Report, "report").study) is not None:
        named["report.study"] = study
    for key, path in named.items():
        if not Path(path).is_file():
            raise ConfigError(f"params.yaml: {key}: {path}: no such file")
    if (world := Path(config.load(str, "world"))).suffix != ".json" and not world.exists():
        raise ConfigError(f"params.yaml: world: {world}: no such file or folder; it holds the local files that DVC watches")
    if not Path(config.load(str, "prompts")).is_dir():
        raise ConfigError(f"params.yaml: prompts: {config.load(str, 'prompts')}: no such folder")


def check_training() -> None:
    """Raises ConfigError where batches do not divide. A scheduler may write the file of hosts when the training begins."""
    if (settings := config.load(Train, "train")).hostfile is None:
        train.check(settings)


RULES = (check_arms, check_models, check_lengths, check_verifiers, check_files, check_training, benchmarks.chosen)
"""What cannot be wrong within one section."""


def check() -> None:
    """Raises ConfigError that lists everything wrong with params.yaml."""
    if found := list(mistakes()):
        raise ConfigError("\n".join(found))


def main() -> None:
    check()
    print(f"settings: {config.PARAMS} has all sections, and every value is within its bounds")


if __name__ == "__main__":
    run_stage(main)
