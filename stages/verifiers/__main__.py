"""python -m stages.verifiers FILE.jsonl [OUT.jsonl]: a verdict for every response of a file.

A row has ``category``, ``text`` (or ``response``), and what says what is right: ``ground_truth``, ``test_cases`` or
``constraints``, and for chat ``messages``. docs/examples/responses.jsonl has one of each category. Thresholds, limits
and models are those of params.yaml. Verdicts are written a line a row, in the order of the rows, beside the file.
"""

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stages import params
from stages.params import ParamsError
from stages.tables import CATEGORIES, DataError, scan_json_lines, write_json_lines
from stages.verifiers import UNKNOWN, Item, Verdict, answer_part, item_of
from stages.verifiers.route import Route, VerifyParams, roles_of

IN_FLIGHT = 2000


def item_in(row: dict[str, Any] | DataError, key: str, where: str) -> Item:
    """A row as an item. Raises DataError, naming file and line, where something is missing."""
    if isinstance(row, DataError):
        raise row
    text = row.get("text", row.get("response"))
    if not isinstance(text, str):
        raise DataError(f"{where}: no 'text' (the response), or it is no text")
    if row.get("category") not in CATEGORIES:
        raise DataError(f"{where}: category {row.get('category')!r} is none of {', '.join(CATEGORIES)}")
    turns = row.get("messages") or []
    if not isinstance(turns, list) or not all(
        isinstance(t, dict) and isinstance(t.get("content"), str) and "role" in t for t in turns
    ):
        raise DataError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'")
    for field in ("test_cases", "constraints", "ground_truth"):
        if row.get(field) is not None and not isinstance(row[field], str):
            row[field] = json.dumps(row[field])
    return item_of(key, row, answer_part(text))


def verify_all(route: Route, items: Iterator[Item]) -> Iterator[tuple[int, Verdict]]:
    """(row, verdict) in any order, with progress; few items are held at a time."""
    began = last = time.monotonic()
    waiting = finished = 0
    for item in items:
        route.submit(item)
        waiting += 1
        while waiting:
            ready = route.poll(0.1 if waiting >= IN_FLIGHT else 0.0)
            for key, verdict in ready:
                yield int(key), verdict
            waiting, finished = waiting - len(ready), finished + len(ready)
            if waiting < IN_FLIGHT:
                break
        if time.monotonic() - last > 5:
            last = time.monotonic()
            print(f"verifiers: {finished} verified, {finished / (last - began):.0f} a second", flush=True)
    while waiting:
        for key, verdict in route.poll(0.1):
            waiting -= 1
            yield int(key), verdict


def summary(rows: list[tuple[str, Verdict]]) -> Iterator[str]:
    """A line a category, then why what could not be told could not."""
    by_category: dict[str, Counter[str]] = defaultdict(Counter)
    for category, verdict in rows:
        by_category[category][verdict.verdict] += 1
    for category, counts in sorted(by_category.items()):
        yield f"{category:10} {counts['pass']:7} pass {counts['fail']:7} fail {counts[UNKNOWN]:7} unknown"
    for reason, count in Counter(verdict.reason for _, verdict in rows if verdict.verdict == UNKNOWN).most_common(5):
        yield f"could not tell {count}: {reason}"


def open_route(settings: VerifyParams, categories: set[str]) -> Route:
    """A route for the categories of a file. Without models in models/locks it does without them, and says so.

    Raises ParamsError where a category has no rule, or needs a model that is not there.
    """
    if strangers := sorted(categories - settings.rules.keys()):
        raise ParamsError(f"params.yaml: verify.rules.{strangers[0]}: missing, and the file has such rows")
    rules = {category: rule for category, rule in settings.rules.items() if category in categories}
    wanted = {rule.verifier for rule in rules.values()}
    settings = replace(settings, rules=rules, judge=settings.judge if wanted & {"math", "science"} else None)
    settings = replace(settings, reward=settings.reward if "reward" in wanted else None)
    try:
        return Route(settings, roles_of(settings), params.load(str, "prompts"))
    except DataError as error:
        print(f"verifiers: no judge and no reward model: {error}")
        return Route(replace(settings, judge=None, reward=None))


def main(*arguments: str) -> None:
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        sys.exit("usage: python -m stages.verifiers FILE.jsonl [OUT.jsonl]")
    source = Path(arguments[0])
    out = Path(arguments[1]) if len(arguments) == 2 else source.with_suffix(".verdicts.jsonl")
    try:
        if source.is_dir() or not out.parent.is_dir():
            raise DataError(f"{source}: a folder, not a file" if source.is_dir() else f"{out.parent}: no such folder")
        rows = list(scan_json_lines(source))
        items = [item_in(row, str(i), f"{source}:{line}") for i, (line, row) in enumerate(rows)]
        if not items:
            raise DataError(f"{source}: no rows")
        route = open_route(params.load(VerifyParams, "verify"), {item.category for item in items})
    except (DataError, ParamsError) as error:
        sys.exit(f"verifiers: {error}")
    for notice in route.notices:
        print(f"verifiers: {notice}")
    try:
        verdicts = dict(verify_all(route, iter(items)))
    finally:
        route.close()
    write_json_lines(({"line": line} | asdict(verdicts[i]) for i, (line, _) in enumerate(rows)), out)
    print("\n".join(summary([(item.category, verdicts[i]) for i, item in enumerate(items)])))
    print(f"verifiers: {len(items)} verdicts in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
