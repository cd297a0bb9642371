"""parallel: the released data sets: the same queries for every teacher, one folder per teacher.

In the schema of the study's released data sets, a folder per category, with a card that states what is in it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distillery.core import config, model_locks
from distillery.core.chat import with_system
from distillery.core.config import Section
from distillery.core.errors import DataError
from distillery.core.files import atomic_dir, read_json, write_text
from distillery.core.progress import log
from distillery.core.response_format import StudentFormat, parts_of, response_of
from distillery.core.runner import map_parts, sum_counts
from distillery.core.schemas import CATEGORIES, CURATED, QUERY, SHARED
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import matching_parts, part_name, part_paths, read_part, write_part, write_rows
from distillery.core.teachers import keep_only, teacher_names
from distillery.corpus.arrow_text import combine_chunks

FOLDER = Path("data/parallel")
ROWS_AT_ONCE = 500
"""Rows in memory at a time: with their tests they can have a hundred kilobytes each."""
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
TURN = pa.struct(
    {
        "from": pa.string(),
        "value": pa.string(),
        "info": pa.struct({name: pa.type_for_alias(kind) for name, kind in INFO.items()}),
    }
)
RELEASED = pa.schema({"system": pa.string(), "conversations": pa.list_(TURN)})


@dataclass(frozen=True)
class Parallel(Section):
    """How the data sets are written."""

    files: Literal["parquet", "jsonl"]
    """Compressed parquet, or JSON lines, which take four times as much."""


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
    first = with_system(system_prompt, query["messages"])[0]
    return {"system": first["content"] if first["role"] == "system" else "", "conversations": turns}


def shared(curated: dict[str, pa.Table], window: int) -> pa.Table:
    """SHARED: the ids that every teacher answered, sorted, and whether every teacher's dialogue fits the window.

    A query trains every student or none, so that students learn from the same queries.
    """
    first, *others = curated.values()
    held = first
    for other in others:
        held = held.filter(pc.is_in(held["query_id"], value_set=combine_chunks(other["query_id"])))
    ids, trains = held["query_id"], np.ones(len(held), bool)
    for table in curated.values():
        trains &= (
            table["dialogue_tokens"].to_numpy()[pc.index_in(combine_chunks(ids), combine_chunks(table["query_id"])).to_numpy()]
            <= window
        )
    return pa.table([ids, pa.array(trains)], SHARED)


def card(teacher: str, counts: dict[str, int], facts: dict[str, Any], files: str) -> str:
    """The data set card: front matter that `datasets` loads by, then what a reader wants to know."""
    configs = "\n".join(
        f"  - config_name: {category}\n    data_files: {category}/*.{files}" for category, count in counts.items() if count
    )
    fields = "\n".join(f"      - name: {name}\n        dtype: {kind}" for name, kind in INFO.items())
    features = (
        "  features:\n  - name: system\n    dtype: string\n  - name: conversations\n    list:\n"
        "    - name: from\n      dtype: string\n    - name: value\n      dtype: string\n    - name: info\n      struct:\n"
    )
    infos = "\n".join(f"- config_name: {c}\n{features}{fields}" for c in ["default", *counts] if c == "default" or counts[c])
    rows = "\n".join(f"| {category} | {count} |" for category, count in counts.items())
    lines = "\n".join(f"- **{name}**: {value}" for name, value in facts.items())
    named = "\n".join(f"    - {category}/*.{files}" for category, count in counts.items() if count)
    return f"""---
configs:
  - config_name: default
    default: true
    data_files:
{named}
{configs}
dataset_info:
{infos}
tags:
- reasoning
- distillation
---

# Verified reasoning traces from {teacher}

All responses passed verification. Companion data sets contain other teachers' responses to the same queries.

| category | instances |
| --- | --- |
{rows}

{lines}
"""


def prompted(lock: model_locks.Lock) -> str:
    template = "its own chat template" if lock.template is None else f"the chat template {lock.template}"
    return template + (f", called with {json.dumps(lock.template_arguments)}" if lock.template_arguments else "")


def facts(teacher: str, teachers: list[str], ids: str) -> dict[str, Any]:
    """What the card says besides the counts: teachers, thresholds and provenance."""
    lock, about = model_locks.read(model_locks.teacher_role(teacher)), read_json(f"metrics/teachers/{teacher}.json")
    return {
        "teacher": f"{lock.id}, revision {lock.revision}",
        "how the teacher writes": lock.response_format,
        "how it was prompted": prompted(lock),
        "companion data sets": ", ".join(other for other in teachers if other != teacher) or "none",
        "verified by": json.dumps(config.load(dict[str, Any], "verify.rules")),
        "highest perplexity kept": about["max_perplexity"],
        "sampling": json.dumps(about["sampling"]),
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
    folder: Path, part: int, queries: pa.Table, traces: pa.Table, prompting: tuple[str, str], files: str
) -> dict[str, int]:
    """Writes one part of a teacher's data set, a file for each category that has rows; how many each has."""
    categories = combine_chunks(queries["category"]).take(places_of(traces, queries))
    counts = {}
    for category in CATEGORIES:
        chosen = traces.filter(pc.equal(categories, category))
        counts[category] = len(chosen)
        if len(chosen):
            (folder / category).mkdir(parents=True, exist_ok=True)
            path = (folder / category / part_name(part)).with_suffix(f".{files}")
            WRITERS[files](rows_of(queries, chosen, *prompting), path)
    return counts


def hash_of_ids(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in part_paths(folder):
        digest.update("".join(read_part(path, SHARED)["query_id"].to_pylist()).encode())
    return digest.hexdigest()[:16]


def parallel_part(
    queries: list[Path],
    curated: dict[str, list[Path]],
    window: int,
    prompting: tuple[str, str],
    files: str,
    folder: Path,
    part: int,
) -> dict[str, Any]:
    """Writes one part of every teacher's data set; the counts of its rows."""
    asked = read_part(queries[part], QUERY)
    answered = {teacher: read_part(paths[part], CURATED) for teacher, paths in curated.items()}
    common = shared(answered, window)
    write_part(common, folder / "ids" / part_name(part))
    for teacher, table in answered.items():
        chosen = table.filter(pc.is_in(table["query_id"], value_set=combine_chunks(common["query_id"])))
        counts = write_categories(folder / teacher, part, asked, chosen, prompting, files)
    held = {teacher: len(table) for teacher, table in answered.items()}
    return {"held": held, "categories": counts, "trained_on": pc.sum(common["trains"]).as_py() or 0}


def main() -> None:
    teachers, window = teacher_names(), config.load(int, "pack.window")
    prompting = config.load(str, "system_prompt"), config.load(StudentFormat, "student_format")
    files = config.load(Parallel, "parallel").files
    keep_only("data/curated", teachers)
    keep_only("metrics/teachers", teachers, ".json")
    keep_only("models/locks/teachers", teachers, ".json")
    with record_metrics("metrics/parallel.json", "pyarrow") as (metrics, _):
        queries, *answers = matching_parts("data/queries", *(f"data/curated/{teacher}" for teacher in teachers))
        curated = dict(zip(teachers, answers, strict=True))
        with atomic_dir(FOLDER) as folder:
            (folder / "ids").mkdir()
            work = partial(parallel_part, queries, curated, window, prompting, files, folder)
            results = map_parts("parallel", work, len(queries))
            held, counts = (sum_counts([part[name] for part in results]) for name in ("held", "categories"))
            instances, trained_on = sum(counts.values()), sum(part["trained_on"] for part in results)
            if not instances:
                raise DataError(f"data/curated: no query was answered by every teacher (curated traces: {held})")
            by_category = {category: counts[category] for category in CATEGORIES}
            ids = hash_of_ids(folder / "ids")
            for teacher in teachers:
                write_text(card(teacher, by_category, facts(teacher, teachers, ids), files), folder / teacher / "README.md")
        metrics.update(instances=instances, categories=by_category, curated={teacher: held[teacher] for teacher in teachers})
        metrics.update(over_long=instances - trained_on, trained_on=trained_on)
    log("parallel", f"{instances} queries answered by all of {', '.join(teachers)}: {by_category}; {trained_on} fit a window")


if __name__ == "__main__":
    run_stage(main)
