"""parallel: the data sets that people take away: the same queries for every teacher, one folder a teacher.

JSON lines, one file a category, in the schema of the study's released data sets, with a card that states what is in it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages import locks, params, provenance
from stages.provenance import say
from stages.runner import each_part, total
from stages.tables import (
    CATEGORIES,
    CURATED,
    QUERY,
    SHARED,
    DataError,
    aligned,
    part_name,
    part_paths,
    read_part,
    whole_folder,
    write_part,
    write_text,
)
from stages.text import whole

FOLDER = Path("data/parallel")
ROWS_AT_ONCE = 500
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


def released(query: dict[str, Any], trace: dict[str, Any], system_prompt: str) -> dict[str, Any]:
    """One row in the released schema; the last turn's info describes the response, every turn's the query.

    A query's own system prompt follows the pipeline's, as it was asked.
    """
    about = {
        "source": query["source"],
        "category": query["category"],
        "ground_truth": query["ground_truth"],
        "test_case": query["test_cases"],
        "instruction_constrain": query["constraints"],
    }
    response = {
        "think_content": trace["think"],
        "answer_content": trace["answer"],
        "verify_score": trace["verify_score"],
        "model_name": trace["teacher"],
        "ppl": trace["perplexity"],
    }
    turns = [
        {"from": SPEAKERS[message["role"]], "value": message["content"], "info": about | dict.fromkeys(response)}
        for message in query["messages"]
        if message["role"] in SPEAKERS
    ]
    turns.append({"from": "assistant", "value": trace["text"], "info": about | response})
    own = [message["content"] for message in query["messages"] if message["role"] == "system"]
    return {"system": "\n\n".join(filter(None, [system_prompt, *own])), "conversations": turns}


def shared(curated: dict[str, pa.Table], window: int) -> pa.Table:
    """SHARED: the ids that every teacher answered, sorted, and whether every teacher's dialogue fits the window.

    A query trains every student or none, so that students learn from the same queries.
    """
    first, *others = curated.values()
    held = first
    for other in others:
        held = held.filter(pc.is_in(held["query_id"], value_set=whole(other["query_id"])))
    ids, trains = held["query_id"], np.ones(len(held), bool)
    for table in curated.values():
        trains &= table["dialogue_tokens"].to_numpy()[pc.index_in(whole(ids), whole(table["query_id"])).to_numpy()] <= window
    return pa.table([ids, pa.array(trains)], SHARED)


def card(teacher: str, counts: dict[str, int], facts: dict[str, Any]) -> str:
    """The data set card: front matter that `datasets` loads by, then what a reader wants to know."""
    configs = "\n".join(
        f"  - config_name: {category}\n    data_files: {category}.jsonl" for category, count in counts.items() if count
    )
    fields = "\n".join(f"      - name: {name}\n        dtype: {kind}" for name, kind in INFO.items())
    features = (
        "  features:\n  - name: system\n    dtype: string\n  - name: conversations\n    list:\n"
        "    - name: from\n      dtype: string\n    - name: value\n      dtype: string\n    - name: info\n      struct:\n"
    )
    infos = "\n".join(f"- config_name: {c}\n{features}{fields}" for c in ["default", *counts] if c == "default" or counts[c])
    rows = "\n".join(f"| {category} | {count} |" for category, count in counts.items())
    lines = "\n".join(f"- **{name}**: {value}" for name, value in facts.items())
    files = "\n".join(f"    - {category}.jsonl" for category, count in counts.items() if count)
    return f"""---
configs:
  - config_name: default
    default: true
    data_files:
{files}
{configs}
dataset_info:
{infos}
tags:
- reasoning
- distillation
---

# Verified reasoning traces from {teacher}

Every response in this data set verified. The same queries, answered by the other teachers, stand beside it.

| category | instances |
| --- | --- |
{rows}

{lines}
"""


def facts(teacher: str, ids: str) -> dict[str, Any]:
    """What the card tells beside the counts: teachers, thresholds and provenance."""
    lock = locks.read(f"teacher-{teacher}")
    beside = [other for other in params.load(list[str], "teachers") if other != teacher]
    return {
        "teacher": f"{lock.id}, revision {lock.revision}",
        "teachers beside it": ", ".join(beside),
        "verified by": json.dumps(params.load(dict[str, Any], "verify.rules")),
        "highest perplexity kept": params.load(float, f"teacher.{teacher}.max_perplexity"),
        "sampling": json.dumps(params.load(dict[str, Any], f"teacher.{teacher}.sampling")),
        "queries": f"hash of the ids {ids}",
    }


def rows_by_category(queries: pa.Table, traces: pa.Table, system_prompt: str) -> Iterator[tuple[str, str]]:
    """Each trace as (category, JSON line), a few hundred rows in memory at a time."""
    asked = queries.take(pc.index_in(whole(traces["query_id"]), whole(queries["id"])))
    for start in range(0, len(traces), ROWS_AT_ONCE):
        both = zip(*(table.slice(start, ROWS_AT_ONCE).to_pylist() for table in (asked, traces)), strict=True)
        for query, trace in both:
            yield query["category"], json.dumps(released(query, trace, system_prompt), ensure_ascii=False)


def write_lines(folder: Path, part: int, lines: Iterator[tuple[str, str]]) -> dict[str, int]:
    """Writes one part of each category's file; how many rows each got."""
    counts = dict.fromkeys(CATEGORIES, 0)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        files = {c: stack.enter_context((folder / piece(c, part)).open("w", encoding="utf-8")) for c in CATEGORIES}
        for category, line in lines:
            files[category].write(line + "\n")
            counts[category] += 1
    return counts


def piece(category: str, part: int) -> str:
    return f"{category}.jsonl.{part:05}"


def join_pieces(folder: Path, parts: int) -> None:
    """Makes one file a category out of the parts, in their order."""
    for category in CATEGORIES:
        with (folder / f"{category}.jsonl").open("wb") as whole_file:
            for path in (folder / piece(category, part) for part in range(parts)):
                with path.open("rb") as lines:
                    shutil.copyfileobj(lines, whole_file, 1 << 20)
                path.unlink()


def hash_of_ids(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in part_paths(folder):
        digest.update("".join(read_part(path, SHARED)["query_id"].to_pylist()).encode())
    return digest.hexdigest()[:16]


def main() -> None:
    teachers, window = params.load(list[str], "teachers"), params.load(int, "pack.window")
    system_prompt = params.load(str, "system_prompt")
    with provenance.record("metrics/parallel.json", "daft", "pyarrow") as metrics:
        queries, *answers = aligned("data/queries", *(f"data/curated/{teacher}" for teacher in teachers))
        curated = dict(zip(teachers, answers, strict=True))
        with whole_folder(FOLDER) as folder:
            (folder / "ids").mkdir()

            def work(part: int) -> dict[str, Any]:
                asked = read_part(queries[part], QUERY)
                answered = {teacher: read_part(paths[part], CURATED) for teacher, paths in curated.items()}
                common = shared(answered, window)
                write_part(common, folder / "ids" / part_name(part))
                for teacher, table in answered.items():
                    chosen = table.filter(pc.is_in(table["query_id"], value_set=whole(common["query_id"])))
                    counts = write_lines(folder / teacher, part, rows_by_category(asked, chosen, system_prompt))
                held = {teacher: len(table) for teacher, table in answered.items()}
                return {"held": held, "categories": counts, "trained_on": pc.sum(common["trains"]).as_py() or 0}

            said = each_part("parallel", work, len(queries))
            held, counts = total([part["held"] for part in said]), total([part["categories"] for part in said])
            instances, trained_on = sum(counts.values()), sum(part["trained_on"] for part in said)
            if not instances:
                raise DataError(f"data/curated: no query was answered by every teacher (curated traces: {held})")
            by_category = {category: counts[category] for category in CATEGORIES}
            ids = hash_of_ids(folder / "ids")
            for teacher in teachers:
                join_pieces(folder / teacher, len(queries))
                write_text(card(teacher, by_category, facts(teacher, ids)), folder / teacher / "README.md")
        metrics.update(instances=instances, categories=by_category, curated={teacher: held[teacher] for teacher in teachers})
        metrics.update(over_long=instances - trained_on, trained_on=trained_on)
    say("parallel", f"{instances} queries answered by all of {', '.join(teachers)}: {by_category}; {trained_on} fit a window")


if __name__ == "__main__":
    provenance.run(main)
