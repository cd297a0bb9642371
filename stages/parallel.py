"""parallel: what every arm learns from, and the released data sets: the same queries for every arm, one folder per arm.

data/arms names the traces that each arm takes (`distillery.core.arms`), data/shared the queries that every teacher answered.
The released data sets have the schema of the study's, a folder per category, with a card that states what is in them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from distillery.core import config, model_locks
from distillery.core.arms import Arm, arms
from distillery.core.chat import with_system
from distillery.core.config import Section
from distillery.core.errors import DataError
from distillery.core.files import atomic_dir, read_json, write_text
from distillery.core.formats import StudentFormat
from distillery.core.progress import log
from distillery.core.response_parts import parts_of, response_of
from distillery.core.runner import map_parts, sum_counts
from distillery.core.schemas import CATEGORIES, CURATED, QUERY, TAKEN
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import matching_parts, part_name, part_paths, read_part, write_part, write_rows
from distillery.core.teachers import keep_only, teacher_names
from distillery.corpus.arm_selection import Drawn, is_cut, limits, shared, sum_tokens, taken, within
from distillery.corpus.arrow_text import combine_chunks
from distillery.corpus.data_card import Contents, card

RELEASED_TO, ARMS, COMMON = "data/parallel", "data/arms", "data/shared"
ROWS_AT_ONCE = 500
"""Rows in memory at a time: with their tests they can have a hundred kilobytes each."""
VERIFIED = {
    True: "All responses passed verification.",
    False: "Some responses did not pass verification; `verify_score` tells.",
}
SPEAKERS = {"user": "human", "assistant": "assistant"}
INFO = {
    "source": "string",
    "category": "string",
    "ground_truth": "string",
    "test_case": "string",
    "instruction_constrain": "string",
    "think_content": "string",
    "answer_content": "string",
    "verify_score": "float64",
    "model_name": "string",
    "ppl": "float64",
}
MESSAGE = pa.struct([(name, pa.string()) for name in ("role", "content", "reasoning_content")])
TURN = pa.struct(
    {
        "from": pa.string(),
        "value": pa.string(),
        "info": pa.struct({name: pa.type_for_alias(kind) for name, kind in INFO.items()}),
    }
)
RELEASED = pa.schema({"system": pa.string(), "messages": pa.list_(MESSAGE), "conversations": pa.list_(TURN)})


@dataclass(frozen=True)
class Parallel(Section):
    """How the data sets are written."""

    files: Literal["parquet", "jsonl", "both"]
    """Compressed parquet, JSON lines, which take four times as much, or both."""
    language: tuple[str, ...] = ("en",)
    """What the queries are written in, for the cards: ISO 639 codes."""

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("parquet", "jsonl") if self.files == "both" else (self.files,)


def released(query: dict[str, Any], trace: dict[str, Any], system_prompt: str, student_format: str) -> dict[str, Any]:
    """One row in the released schema; the last turn's info describes query and response.

    The other turns have none: tests can have a megabyte, and the study's data sets repeat them in every turn. A query's
    own system prompt follows the pipeline's, as in the request.
    """
    thought, answer = parts_of(trace)
    info = {
        "source": query["source"],
        "category": query["category"],
        "ground_truth": query["ground_truth"],
        "test_case": query["test_cases"],
        "instruction_constrain": query["constraints"],
        "think_content": thought,
        "answer_content": answer,
        "verify_score": trace["verify_score"],
        "model_name": trace["teacher"],
        "ppl": trace["perplexity"],
    }
    turns: list[dict[str, Any]] = [
        {"from": SPEAKERS[message["role"]], "value": message["content"], "info": None}
        for message in query["messages"]
        if message["role"] in SPEAKERS
    ]
    turns.append({"from": "assistant", "value": response_of(trace, student_format), "info": info})
    asked = with_system(system_prompt, query["messages"])
    messages = [message | {"reasoning_content": None} for message in asked]
    messages.append({"role": "assistant", "content": trace["text"] if answer is None else answer, "reasoning_content": thought})
    system = asked[0]["content"] if asked[0]["role"] == "system" else ""
    return {"system": system, "messages": messages, "conversations": turns}


def prompted(lock: model_locks.Lock) -> str:
    template = "its own chat template" if lock.template is None else f"the chat template {lock.template}"
    return template + (f", called with {json.dumps(lock.template_arguments)}" if lock.template_arguments else "")


def facts(name: str, all_arms: dict[str, Arm], ids: str) -> dict[str, Any]:
    """What the card says besides the counts: teachers, thresholds and provenance."""
    arm, found = all_arms[name], dict[str, Any]()
    for teacher in arm.teachers:
        lock, about = model_locks.read(model_locks.teacher_role(teacher)), read_json(f"metrics/teachers/{teacher}.json")
        found |= {
            f"teacher {teacher}": f"{lock.id}, revision {lock.revision}",
            f"how {teacher} writes": lock.response_format,
            f"how {teacher} was prompted": prompted(lock),
            f"sampling of {teacher}": json.dumps(about["sampling"]),
            f"highest perplexity kept of {teacher}": about["max_perplexity"],
        }
    chosen = {key: value for key, value in asdict(arm).items() if key != "teachers"}
    return found | {
        "traces taken": json.dumps(chosen),
        "companion data sets": ", ".join(other for other in all_arms if other != name) or "none",
        "verified by": json.dumps(config.load(dict[str, Any], "verify.rules")),
        "queries": f"hash of the ids {ids}",
    }


def rows_of(queries: pa.Table, traces: pa.Table, *prompting: str) -> Iterator[dict[str, Any]]:
    """The released rows of traces, whose queries are among ``queries``; ``prompting`` is as in `released`."""
    for start in range(0, len(traces), ROWS_AT_ONCE):
        here = traces.slice(start, ROWS_AT_ONCE)
        asked = queries.take(places_of(here, queries))
        yield from (released(*both, *prompting) for both in zip(asked.to_pylist(), here.to_pylist(), strict=True))


def places_of(traces: pa.Table, queries: pa.Table) -> pa.Array:
    return pc.index_in(combine_chunks(traces["query_id"]), combine_chunks(queries["id"]))


def write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> None:
    write_rows(rows, path, RELEASED, ROWS_AT_ONCE)


def write_lines(rows: Iterator[dict[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


WRITERS: dict[str, Callable[[Iterator[dict[str, Any]], Path], None]] = {"parquet": write_parquet, "jsonl": write_lines}


def write_categories(
    folder: Path, part: int, queries: pa.Table, traces: pa.Table, prompting: tuple[str, str], kinds: Iterable[str]
) -> dict[str, int]:
    """Writes one part of an arm's data set, files for each category that has rows; how many each has."""
    categories = combine_chunks(queries["category"]).take(places_of(traces, queries))
    counts = {}
    for category in CATEGORIES:
        chosen = traces.filter(pc.equal(categories, category))
        counts[category] = len(chosen)
        if len(chosen):
            (folder / category).mkdir(parents=True, exist_ok=True)
            for kind in kinds:
                path = (folder / category / part_name(part)).with_suffix(f".{kind}")
                WRITERS[kind](rows_of(queries, chosen, *prompting), path)
    return counts


def hash_of_ids(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in part_paths(folder):
        digest.update("".join(read_part(path, TAKEN)["query_id"].to_pylist()).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Selection:
    """Selects every arm's traces part by part."""

    arms: dict[str, Arm]
    queries: list[Path]
    curated: dict[str, list[Path]]
    window: int
    seed: int
    settings: Parallel
    prompting: tuple[str, str]
    """The system prompt and the students' format, as in `released`."""

    def read(self, part: int) -> tuple[dict[str, pa.Table], pa.Table]:
        """The teachers' curated traces, and SHARED of them."""
        curated = {teacher: read_part(paths[part], CURATED) for teacher, paths in self.curated.items()}
        return curated, shared(curated, self.window)

    def draw_part(self, part: int) -> dict[str, pa.Table]:
        """What each arm that is cut takes of a part, uncut."""
        curated, common = self.read(part)
        return {
            name: taken(arm, curated, common, self.window, self.seed).select(["query_id", "response_tokens", "trains", "order"])
            for name, arm in self.arms.items()
            if is_cut(arm)
        }

    def last_drawn(self) -> dict[str, int]:
        """For each arm that is cut, the last place in the draw that it takes."""
        chosen = {name: arm for name, arm in self.arms.items() if is_cut(arm)}
        drawn = {name: Drawn() for name in chosen}
        for tables in map_parts("parallel: draw", self.draw_part, len(self.queries)) if chosen else ():
            for name, table in tables.items():
                drawn[name].add(table)
        return limits(chosen, drawn)

    def write_part(self, last: dict[str, int], folders: tuple[Path, Path, Path], part: int) -> dict[str, Any]:
        """Writes one part of every data set; the counts of its rows."""
        data_sets, arms_to, common_to = folders
        asked = read_part(self.queries[part], QUERY)
        curated, common = self.read(part)
        write_part(common, common_to / part_name(part))
        counts = {}
        for name, arm in self.arms.items():
            chosen = taken(arm, curated, common, self.window, self.seed)
            if name in last:
                chosen = within(chosen, last[name])
            (arms_to / name).mkdir(exist_ok=True)
            write_part(chosen.select(TAKEN.names).cast(TAKEN), arms_to / name / part_name(part))
            rows = write_categories(data_sets / name, part, asked, chosen, self.prompting, self.settings.kinds)
            sources = Counter(asked["source"].take(places_of(chosen, asked)).to_pylist())
            counts[name] = {"categories": rows, "sources": dict(sources), "trains": sum_tokens([chosen])}
        held = {teacher: len(table) for teacher, table in curated.items()}
        return {"held": held, "arms": counts, "shared": len(common), "trained_on": pc.sum(common["trains"]).as_py() or 0}


def arm_metrics(results: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Traces, queries and response tokens that an arm trains on, and its rows by category."""
    found = [part["arms"][name] for part in results]
    categories = sum_counts([each["categories"] for each in found])
    trains = sum_counts([each["trains"] for each in found])
    return trains | {"categories": {category: categories[category] for category in CATEGORIES}}


def sources_of(results: list[dict[str, Any]], name: str) -> dict[str, int]:
    """How many of an arm's rows come from each source, by name."""
    return dict(sorted(sum_counts([part["arms"][name]["sources"] for part in results]).items()))


def main() -> None:
    licences = {name: each.get("license") for name, each in config.load(dict[str, Any], "collect.sources").items()}
    teachers, chosen = teacher_names(), arms()
    settings, window = config.load(Parallel, "parallel"), config.load(int, "pack.window")
    prompting = config.load(str, "system_prompt"), config.load(StudentFormat, "student_format")
    keep_only("data/curated", teachers)
    keep_only("metrics/teachers", teachers, ".json")
    keep_only("models/locks/teachers", teachers, ".json")
    with record_metrics("metrics/parallel.json", "pyarrow") as (metrics, _):
        queries, *answers = matching_parts("data/queries", *(f"data/curated/{teacher}" for teacher in teachers))
        curated = dict(zip(teachers, answers, strict=True))
        selection = Selection(chosen, queries, curated, window, config.load(int, "seed"), settings, prompting)
        last = selection.last_drawn()
        with atomic_dir(RELEASED_TO) as data_sets, atomic_dir(ARMS) as arms_to, atomic_dir(COMMON) as common_to:
            work = partial(selection.write_part, last, (data_sets, arms_to, common_to))
            results = map_parts("parallel", work, len(queries))
            held = sum_counts([part["held"] for part in results])
            instances, trained_on = (sum(part[name] for part in results) for name in ("shared", "trained_on"))
            if not instances:
                raise DataError(f"data/curated: no query was answered by every teacher (curated traces: {held})")
            if not trained_on:
                raise DataError(f"params.yaml: pack.window: none of {instances} queries has traces that fit {window} tokens")
            by_arm = {name: arm_metrics(results, name) for name in chosen}
            for name, found in by_arm.items():
                details = facts(name, chosen, hash_of_ids(arms_to / name))
                held_by = Contents(found["categories"], sources_of(results, name), licences)
                about = (held_by, details, RELEASED, list(settings.language), settings.kinds[0])
                text = card(name, VERIFIED[chosen[name].verified], *about)
                write_text(text, data_sets / name / "README.md")
        metrics.update(instances=instances, curated={teacher: held[teacher] for teacher in teachers})
        metrics.update(over_long=instances - trained_on, trained_on=trained_on, arms=by_arm)
    log("parallel", f"{instances} queries answered by all of {', '.join(teachers)}; {trained_on} fit a window")
    for name, found in by_arm.items():
        log("parallel", f"{name}: trains on {found['traces']} traces, {found['response_tokens']} response tokens")


if __name__ == "__main__":
    run_stage(main)
