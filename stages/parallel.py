"""parallel: the data sets that people take away: the same queries for every teacher, one folder a teacher.

JSON lines, one file a category, in the schema of the study's released data sets, with a card that states what is in it.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from stages import locks, params, provenance
from stages.provenance import say
from stages.tables import CATEGORIES, CURATED, QUERY, DataError, read, whole_folder, write_json_lines, write_text

FOLDER = Path("data/parallel")
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
    """One row in the released schema; the last turn's info describes the response, every turn's the query."""
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
    return {"system": system_prompt, "conversations": turns}


def shared(curated: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The ids that every teacher answered, sorted."""
    answered = [{row["query_id"] for row in rows} for rows in curated.values()]
    return sorted(set.intersection(*answered))


def trainable(curated: dict[str, list[dict[str, Any]]], ids: list[str], window: int) -> list[str]:
    """The ids whose dialogue fits the window with every teacher's trace, so that students learn from the same queries."""
    over_long = {row["query_id"] for rows in curated.values() for row in rows if row["dialogue_tokens"] > window}
    return [key for key in ids if key not in over_long]


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


def facts(teacher: str, ids: list[str]) -> dict[str, Any]:
    """What the card tells beside the counts: teachers, thresholds and provenance."""
    lock = locks.read(f"teacher-{teacher}")
    beside = [other for other in params.load(list[str], "teachers") if other != teacher]
    return {
        "teacher": f"{lock.id}, revision {lock.revision}",
        "teachers beside it": ", ".join(beside),
        "verified by": json.dumps(params.load(dict[str, Any], "verify.rules")),
        "highest perplexity kept": params.load(float, f"teacher.{teacher}.max_perplexity"),
        "sampling": json.dumps(params.load(dict[str, Any], f"teacher.{teacher}.sampling")),
        "queries": f"hash of the ids {hashlib.sha256(''.join(ids).encode()).hexdigest()[:16]}",
    }


def by_category(queries: dict[str, Any], traces: list[dict[str, Any]], system_prompt: str) -> dict[str, list[dict[str, Any]]]:
    """Released rows by category, every category present."""
    rows: dict[str, list[dict[str, Any]]] = {category: [] for category in CATEGORIES}
    for trace in traces:
        query = queries[trace["query_id"]]
        rows[query["category"]].append(released(query, trace, system_prompt))
    return rows


def write_all(folder: Path, curated: dict[str, list[dict[str, Any]]], ids: list[str], queries: dict[str, Any]) -> None:
    """One folder a teacher with its categories and its card, and the ids that they share."""
    system_prompt, wanted = params.load(str, "system_prompt"), set(ids)
    write_json_lines(({"query_id": key} for key in ids), folder / "ids.jsonl")
    for teacher, traces in curated.items():
        rows = by_category(queries, [trace for trace in traces if trace["query_id"] in wanted], system_prompt)
        for category, lines in rows.items():
            write_json_lines(lines, folder / teacher / f"{category}.jsonl")
        counts = {category: len(lines) for category, lines in rows.items()}
        write_text(card(teacher, counts, facts(teacher, ids)), folder / teacher / "README.md")


def main() -> None:
    teachers = params.load(list[str], "teachers")
    with provenance.record("metrics/parallel.json", "pyarrow") as metrics:
        queries = {query["id"]: query for query in read("data/queries", QUERY).to_pylist()}
        curated = {teacher: read(f"data/curated/{teacher}", CURATED).to_pylist() for teacher in teachers}
        held = {teacher: len(rows) for teacher, rows in curated.items()}
        ids = shared(curated)
        if not ids:
            raise DataError(f"data/curated: no query was answered by every teacher (curated traces: {held})")
        to_train = trainable(curated, ids, params.load(int, "pack.window"))
        with whole_folder(FOLDER) as folder:
            write_all(folder, curated, ids, queries)
            write_json_lines(({"query_id": key} for key in to_train), folder / "train_ids.jsonl")
        counts = Counter(queries[key]["category"] for key in ids)
        metrics.update(instances=len(ids), categories={category: counts[category] for category in CATEGORIES}, curated=held)
        metrics.update(over_long=len(ids) - len(to_train), trained_on=len(to_train))
    say(
        "parallel", f"{len(ids)} queries answered by all of {', '.join(teachers)}: {dict(counts)}; {len(to_train)} fit a window"
    )


if __name__ == "__main__":
    provenance.run(main)
