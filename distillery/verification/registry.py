"""Every verifier by its name: how it is opened, and what its verdicts depend on.

A verdict in the ledger is found by its verifier's version. That version is a hash of the code in ``code``, the versions of
``packages`` and what ``settings`` gives; a changed error message elsewhere re-verifies nothing.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from distillery.core.codehash import digest, hash_code
from distillery.core.errors import ConfigError
from distillery.core.model_locks import Lock
from distillery.verification import ifeval_verifier, math_verifier
from distillery.verification.choice_verifier import ChoiceVerifier
from distillery.verification.code_verifier import CodeVerifier
from distillery.verification.config import VerifyParams
from distillery.verification.ifeval_verifier import IFBENCH, IfVerifier
from distillery.verification.judge import Judge
from distillery.verification.majority import LoneAnswer
from distillery.verification.math_verifier import MathVerifier
from distillery.verification.process_pool import Pool
from distillery.verification.reward_verifier import RewardSettings, RewardVerifier
from distillery.verification.science_verifier import ScienceVerifier
from distillery.verification.verdict import Verifier


@dataclass(frozen=True)
class Resources:
    """What verifiers share: settings, processes that can be killed, the judge, the reward model.

    ``all_tests_count``: a program passes only if all its tests do, so that the first failure ends its verification.
    """

    settings: VerifyParams
    pool: Pool
    judge: Judge | None = None
    reward: Lock | None = None
    all_tests_count: bool = False


def nothing(_: Resources) -> list[Any]:
    return []


def judge_settings(resources: Resources) -> list[Any]:
    judge = resources.judge
    return [judge.revision, asdict(judge.sampling), judge.prompts] if judge else []


def sandbox_settings(resources: Resources) -> list[Any]:
    return [asdict(resources.settings.sandbox), resources.all_tests_count]


def reward_model(resources: Resources) -> tuple[Lock, RewardSettings]:
    """Raises ConfigError where the reward model has no settings or no model."""
    if resources.settings.reward is None or resources.reward is None:
        raise ConfigError(
            "params.yaml: verify.reward: null, but a rule names the verifier reward; give it settings and a model"
        )
    return resources.reward, resources.settings.reward


def reward_settings(resources: Resources) -> list[Any]:
    lock, settings = reward_model(resources)
    return [lock.revision, asdict(settings.outputs), settings.max_tokens]


@dataclass(frozen=True)
class Entry:
    """One verifier. ``judge`` says whether it asks one: to confirm a fail (``fallback``), or for every verdict."""

    open: Callable[[Resources], Verifier]
    code: tuple[str, ...]
    packages: tuple[str, ...] = ()
    settings: Callable[[Resources], list[Any]] = nothing
    judge: Literal["never", "fallback", "always"] = "never"
    prepare: Callable[[], Any] | None = None
    """Called once in every process of the pool, so that imports do not count towards a response's time."""

    def version(self, resources: Resources) -> str:
        """What a verdict depends on besides the query and the answer, as a hash.

        Raises ConfigError where a package that only this verifier needs is not installed.
        """
        try:
            versions = [version(package) for package in self.packages]
        except PackageNotFoundError as missing:
            how = "pip install --no-deps -r requirements/ifbench.txt"
            raise ConfigError(f"a verifier needs {missing.name}, which is not installed: {how}") from None
        return digest([hash_code(self.code), versions, self.settings(resources)])


HERE = __package__
JUDGED = (f"{HERE}.judge", f"{HERE}.futures")
MATHEMATICS = tuple(f"{HERE}.{name}" for name in ("math_compare", "math_text", "math_verifier"))
PROGRAMS = tuple(
    f"{HERE}.{name}" for name in ("code_blocks", "code_tests", "code_verifier", "output_comparison", "program_check")
)
SANDBOX = tuple(f"{HERE}.sandbox.{name}" for name in ("cgroups", "packages", "sandbox", "seccomp", "session"))
INSIDE = tuple(
    f"{HERE}.sandbox.inside.{name}" for name in ("server", "children", "programs", "stand_ins", "together", "values")
)

VERIFIERS: dict[str, Entry] = {
    "math": Entry(
        lambda resources: MathVerifier(resources.pool, resources.judge),
        (*MATHEMATICS, *JUDGED),
        ("math-verify",),
        judge_settings,
        "fallback",
        math_verifier.prepare,
    ),
    "choice": Entry(lambda _: ChoiceVerifier(), (f"{HERE}.choice_verifier", f"{HERE}.math_text")),
    "science": Entry(
        lambda resources: ScienceVerifier(resources.judge),
        (f"{HERE}.science_verifier", f"{HERE}.choice_verifier", *MATHEMATICS, *JUDGED),
        settings=judge_settings,
        judge="always",
    ),
    "if": Entry(
        lambda resources: IfVerifier(resources.pool),
        (f"{HERE}.ifeval_verifier",),
        ("lm-eval",),
        prepare=ifeval_verifier.checkers,
    ),
    "ifbench": Entry(
        lambda resources: IfVerifier(resources.pool, IFBENCH),
        (f"{HERE}.ifeval_verifier",),
        ("lighteval", "spacy", "syllapy", "emoji"),
        prepare=partial(ifeval_verifier.checkers, IFBENCH),
    ),
    "code": Entry(
        lambda resources: CodeVerifier(resources.settings.sandbox, resources.settings.processes, resources.all_tests_count),
        (*PROGRAMS, *SANDBOX, *INSIDE),
        settings=sandbox_settings,
    ),
    "majority": Entry(lambda _: LoneAnswer(), (f"{HERE}.majority", f"{HERE}.math_text", f"{HERE}.futures")),
    "reward": Entry(
        lambda resources: RewardVerifier(*reward_model(resources)),
        (f"{HERE}.reward_verifier", "distillery.core.batching"),
        ("transformers",),
        reward_settings,
    ),
}


def entry_of(name: str, key: str) -> Entry:
    """The verifier of a name that the setting ``key`` gives. Raises ConfigError where there is none."""
    if name not in VERIFIERS:
        raise ConfigError(f"params.yaml: {key}: {name!r} is none of {', '.join(sorted(VERIFIERS))}")
    return VERIFIERS[name]
