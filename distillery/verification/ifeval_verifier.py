"""Instruction following by programs, strict; the score is the share of constraints that hold.

The programs are lm-eval's for IFEval (arXiv 2311.07911), and lighteval's for IFBench (arXiv 2507.02833), which must be
installed for it: `pip install --no-deps -r requirements/ifbench.txt`.

Constraints are JSON, ``[{"id": "keywords:frequency", "kwargs": {"keyword": "sun", "frequency": 2}}, ...]``, or IFEval's
own ``{"instruction_id_list": [...], "kwargs": [...]}``, where the last may be JSON within JSON, or ``instruction_kwargs``.
"""

import inspect
import json
import logging
from concurrent.futures import Future
from functools import cache
from typing import Any

from distillery.verification.futures import done
from distillery.verification.process_pool import Pool
from distillery.verification.verdict import Item, Verdict, scored, unknown

NAME = "if"
IFEVAL, IFBENCH = "ifeval", "ifbench"
Constraint = dict[str, Any]


class ConstraintsError(ValueError):
    """Constraints that no checker accepts; the message says which and why."""


@cache
def checkers(suite: str = IFEVAL) -> dict[str, Any]:
    """A suite's checkers by id, made repeatable: language detection draws at random unless it is seeded."""
    logging.getLogger("nltk").setLevel(logging.ERROR)
    if suite == IFBENCH:
        return _ifbench()
    import langdetect
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    langdetect.DetectorFactory.seed = 0
    return INSTRUCTION_DICT


def _ifbench() -> dict[str, Any]:
    from lighteval.tasks.tasks.ifbench import instructions
    from lighteval.tasks.tasks.ifbench.instructions_registry import INSTRUCTION_DICT

    instructions.RESOURCES_DOWNLOADED = True  # else each process fetches word lists, and a model that no checker reads
    return dict(INSTRUCTION_DICT)


def constraints_of(text: str | None, suite: str = IFEVAL) -> list[Constraint]:
    """Reads constraints in either form. Raises ConstraintsError where there are none or a checker refuses one."""
    found = _parsed(text or "null")
    if isinstance(found, dict) and "instruction_id_list" in found:
        ids, kwargs = found["instruction_id_list"], found.get("kwargs") or found.get("instruction_kwargs")
        kwargs = _parsed(kwargs) if isinstance(kwargs, str) else kwargs
        if not isinstance(ids, list) or not isinstance(kwargs or [], list) or (kwargs and len(kwargs) != len(ids)):
            raise ConstraintsError("instruction_id_list and kwargs are not lists of one length")
        found = [{"id": each, "kwargs": given} for each, given in zip(ids, kwargs or [{}] * len(ids), strict=True)]
    if not isinstance(found, list) or not found:
        raise ConstraintsError("the query has no constraints")
    for constraint in found:
        check_signature(constraint, suite)
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConstraintsError(f"constraints are not JSON: {error}") from None


def check_signature(constraint: Any, suite: str = IFEVAL) -> None:
    """Raises ConstraintsError unless a checker with this id accepts these arguments and needs no random ones."""
    name = constraint.get("id") if isinstance(constraint, dict) else constraint
    if not isinstance(constraint, dict) or not isinstance(name, str) or name not in checkers(suite):
        raise ConstraintsError(f"no {suite} checker {name!r}")
    if not isinstance(constraint.get("kwargs") or {}, dict):
        raise ConstraintsError(f"{name}: kwargs are no object: {constraint['kwargs']!r}")
    given = arguments(constraint)
    checker = checkers(suite)[name](name)
    parameters = inspect.signature(checker.build_description).parameters
    wanted = {each for each, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    if extra := given.keys() - wanted:
        raise ConstraintsError(f"{name} takes no {sorted(extra)[0]!r}")
    if missing := wanted - given.keys():
        raise ConstraintsError(f"{name} needs {sorted(missing)[0]!r}, which it would else draw at random")
    try:
        checker.build_description(**given)
    except Exception as error:
        raise ConstraintsError(f"{name} refuses {given}: {error}") from None


def arguments(constraint: Constraint) -> dict[str, Any]:
    """A constraint's arguments; data sets write null, or nothing, for those of other checkers."""
    return {key: value for key, value in (constraint.get("kwargs") or {}).items() if value not in (None, "", [])}


def holds(constraint: Constraint, answer: str, suite: str = IFEVAL) -> bool:
    """Whether a response satisfies a constraint. An empty response satisfies none."""
    checker = checkers(suite)[constraint["id"]](constraint["id"])
    checker.build_description(**arguments(constraint))
    return bool(answer.strip()) and bool(checker.check_following(answer))


def check(text: str, answer: str, suite: str = IFEVAL) -> Verdict:
    """The verdict on one response. Runs in a process of the pool: a checker may take long."""
    try:
        constraints = constraints_of(text, suite)
    except ConstraintsError as error:
        return unknown(NAME, str(error), hopeless=True)
    kept = [holds(constraint, answer, suite) for constraint in constraints]
    broken = next((f"; not {each['id']}" for each, held in zip(constraints, kept, strict=True) if not held), "")
    return scored(NAME, sum(kept) / len(kept), f"{sum(kept)} of {len(kept)} constraints hold{broken}")


class IfVerifier:
    """Checks constraints of a suite in the pool."""

    def __init__(self, pool: Pool, suite: str = IFEVAL):
        self.pool, self.suite = pool, suite

    def verify(self, item: Item) -> "Future[Verdict]":
        if not item.constraints:
            return done(unknown(NAME, "the query has no constraints", hopeless=True))
        return self.pool.run(NAME, check, item.constraints, item.answer, self.suite)

    def close(self) -> None: ...
