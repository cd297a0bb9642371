"""Verification settings, and the locks of the models that they need."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from distillery.core import model_locks
from distillery.core.config import Positive, PositiveFloat, Section
from distillery.core.errors import ConfigError
from distillery.core.model_locks import Lock
from distillery.core.schemas import Category
from distillery.verification.judge import JudgeSettings
from distillery.verification.reward_verifier import RewardSettings
from distillery.verification.sandbox.sandbox import Limits


@dataclass(frozen=True)
class Rule(Section):
    """How responses of one kind are verified."""

    verifier: str
    """A name in `distillery.verification.registry`."""
    threshold: Annotated[float, Ge(0), Le(1)]
    """The lowest score at which a response passes."""


@dataclass(frozen=True)
class VerifyParams(Section):
    """How responses are verified."""

    rules: dict[Category, Rule]
    """The rule of each category."""
    timeout: PositiveFloat
    """Seconds per response for mathematics and constraints; what takes longer is inconclusive."""
    processes: Positive
    """Processes that verify in parallel, and sandboxes."""
    sandbox: Limits
    """Limits of programs."""
    judge: JudgeSettings | None
    """How the judge runs; null where no category needs one."""
    reward: RewardSettings | None
    """How the reward model runs; null where no category needs one."""


@dataclass(frozen=True)
class Roles:
    """The locks of the models that verify, None where ``verify`` has no settings for them."""

    judge: Lock | None = None
    reward: Lock | None = None


NO_ROLES = Roles()


def roles_of(settings: VerifyParams) -> Roles:
    """Reads the locks that the settings need. Raises ConfigError where a role has settings and no model."""
    judge = _lock_of("judge") if settings.judge else None
    return Roles(judge, _lock_of("reward") if settings.reward else None)


def _lock_of(role: str) -> Lock:
    lock = model_locks.read_optional(role)
    if lock is None:
        raise ConfigError(f"params.yaml: assets.{role}: null, but verify.{role} has settings; name its model, or set both null")
    return lock
