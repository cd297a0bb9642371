"""python -m distillery.verification.inspect_traces SOURCE [REVISION [SPLIT]]: what a data set of traces is worth, before a run.

SOURCE is a file, a folder, or a data set on the hub. Of its first rows it says how many can be read and why not the others,
in which formats their responses are, in how many thought and answer are found, and how the answers verify where the rows
name their reference. `make inspect DATA=... LIMIT=...`; nothing is written.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from distillery.core import config
from distillery.core.chat import get_path
from distillery.core.errors import ConfigError, DataError
from distillery.core.formats import format_of
from distillery.core.response_parts import columns_of, parts_of
from distillery.core.schemas import CATEGORIES
from distillery.core.stage import run_stage
from distillery.core.text_table import format_table
from distillery.generation.released_traces import Released, read_source
from distillery.verification.__main__ import open_router, settings_for, summary, verify_all
from distillery.verification.config import VerifyParams
from distillery.verification.verdict import Item, item_of

LIMIT = 1000
FIELDS = {
    "category": ("category", "conversations.-1.info.category", "messages.-1.info.category", "domain"),
    "ground_truth": (
        "ground_truth",
        "conversations.-1.info.ground_truth",
        "messages.0.info.reference_answer",
        "expected_answer",
        "answer",
    ),
    "test_cases": ("test_cases", "conversations.-1.info.test_case", "messages.0.info.test_case"),
    "constraints": ("constraints", "conversations.-1.info.instruction_constrain"),
}
"""Where public data sets keep what a verifier needs; the first that a row has counts."""


def reference_of(row: dict[str, Any]) -> dict[str, Any]:
    """Category and reference of a row, category ``math`` where it names none of ours."""
    found = {
        name: next((v for path in paths if (v := get_path(row, path)) is not None), None) for name, paths in FIELDS.items()
    }
    if found["category"] not in CATEGORIES:
        found["category"] = "code" if found["test_cases"] else "math"
    return {name: value if value is None or isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def responses(rows: list[Released]) -> Iterator[tuple[Released, str, str | None, str | None]]:
    """Every response with its format, thought and answer."""
    for row in rows:
        for text in row.responses:
            name = format_of(text)
            yield row, name, *parts_of(columns_of(text, name))


def overview(rows: list[Released]) -> Iterator[str]:
    """What was read, what was not and why, and how the responses are written."""
    problems = Counter(row.problem for row in rows if row.problem)
    held = sum(len(row.responses) for row in rows)
    yield f"{len(rows) - problems.total()} of {len(rows)} rows are readable, with {held} responses"
    for problem, count in problems.most_common(5):
        yield f"{count} not: {problem}"
    counts = Counter[str]()
    for _, name, thought, answer in responses(rows):
        counts.update({name: 1, f"{name} thought": bool(thought), f"{name} answer": bool(answer)})
    names = [name for name, _ in counts.most_common() if f"{name} thought" in counts]
    table = [[name, *(str(counts[key]) for key in (name, f"{name} thought", f"{name} answer"))] for name in names]
    yield from format_table(["format", "responses", "with a thought", "with an answer"], table)


def items_of(rows: list[Released]) -> list[Item]:
    """The responses whose rows name what they are verified by."""
    items = []
    for number, (row, _, _, answer) in enumerate(responses(rows)):
        about = reference_of(row.row)
        if any(about[name] for name in ("ground_truth", "test_cases", "constraints")):
            items.append(item_of(str(number), about | {"messages": row.asked}, answer))
    return items


def verdicts(items: list[Item]) -> Iterator[str]:
    """How the responses verify, by category."""
    if not items:
        yield "no row names a reference, so nothing can be verified"
        return
    router = open_router(settings_for(config.load(VerifyParams, "verify"), {item.category for item in items}))
    category = {int(item.key): item.category for item in items}
    try:
        yield from summary([(category[key], None, verdict) for key, verdict in verify_all(router, iter(items))])
    finally:
        router.close()


def main(source: str = "", revision: str = "", split: str = "train", *others: str) -> None:
    if not source or others:
        sys.exit("usage: python -m distillery.verification.inspect_traces SOURCE [REVISION [SPLIT]]")
    limit = os.environ.get("LIMIT", str(LIMIT))
    try:
        if not limit.isdecimal() or not int(limit):
            raise ConfigError(f"LIMIT={limit}: a number of rows is needed")
        rows = list(islice(read_source(source, revision or None, split), int(limit)))
        if not rows:
            raise DataError(f"{source}: no rows")
        for lines in (overview(rows), verdicts(items_of(rows))):
            for line in lines:
                print(line)
    except (DataError, ConfigError) as error:
        sys.exit(f"inspect: {error}")


if __name__ == "__main__":
    run_stage(main)
