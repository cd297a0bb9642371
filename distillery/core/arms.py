"""Arms: what each student learns from.

``arms`` in params.yaml names them. A teacher's name is an arm without further settings: that teacher's first verified trace
of every query. Others are described under ``arm``, one line each:

    arms: [adaptive, plain, both, short]
    arm:
      both: {teachers: [adaptive, plain], per_query: 2}
      short: {teachers: [adaptive], take: shortest, tokens: equal}
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Le, MinLen

from distillery.core import config
from distillery.core.config import Positive, Section
from distillery.core.errors import ConfigError
from distillery.core.teachers import check_names, teacher_names


@dataclass(frozen=True)
class Arm(Section):
    """Which traces one student learns from. All arms learn from queries that every teacher answered."""

    teachers: Annotated[tuple[str, ...], MinLen(1)]
    """Whose traces; with several teachers, each query's traces come from all of them."""
    take: Literal["first", "shortest", "longest", "best_fit"] = "first"
    """Which of a query's traces are taken before others; of several teachers' first ones, a random one. ``best_fit``: those
    with the highest mean log probability per response token under the scorer (GRAPE, arXiv 2502.04194)."""
    per_query: Positive = 1
    """Traces per query, fewer where there are fewer; raise ``distill.traces`` to have more."""
    verified: bool = True
    """Whether only verified traces count; without, a teacher's first attempt is taken, whatever its verdict. Needs
    ``unverified: true``."""
    share: Annotated[float, Gt(0), Le(1)] = 1.0
    """The share of the queries, drawn by ``seed``; a smaller share is part of a larger one."""
    tokens: Positive | Literal["equal"] | None = None
    """At most so many response tokens, by fewer queries, but one; ``equal``: as many as the smallest such arm."""

    def __post_init__(self) -> None:
        if len(set(self.teachers)) < len(self.teachers):
            raise ValueError(f"teachers: must differ, got {list(self.teachers)}; per_query takes several traces of one")


def arm_names() -> list[str]:
    """The names under ``arms``. Raises ConfigError where there is none, or one is invalid."""
    return check_names("arms", config.load(list[str], "arms"))


def arms() -> dict[str, Arm]:
    """Every arm. Raises ConfigError where one is no teacher and has no description, or names teachers that do not exist."""
    teachers, described = teacher_names(), config.load(dict[str, Arm], "arm")
    found = {}
    for name in arm_names():
        if name not in described and name not in teachers:
            raise ConfigError(f"params.yaml: arms: {name!r} is no teacher; describe it under `arm`, or take it out")
        if name in described and name in teachers:
            raise ConfigError(f"params.yaml: arm.{name}: a teacher has this name; call the arm something else")
        found[name] = described.get(name) or Arm((name,))
        for teacher in found[name].teachers:
            if teacher not in teachers:
                raise ConfigError(f"params.yaml: arm.{name}.teachers: {teacher!r} is none of {', '.join(teachers)}")
        if not found[name].verified and not config.load(bool, "unverified"):
            raise ConfigError(f"params.yaml: arm.{name}.verified: false needs unverified: true, which keeps such traces")
    return found
