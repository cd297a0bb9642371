"""python -m distillery.verification FILE.jsonl [OUT.jsonl]: a verdict for every response in a file.

A row has ``category``, ``text`` (or ``response``), and its reference: ``ground_truth``, ``test_cases`` or
``constraints``, and for chat ``messages``. docs/examples/responses.jsonl has one of each category. Thresholds, limits
and models are those of params.yaml. Verdicts are written next to the file, one line per row, in the order of the rows.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from distillery.core import config
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import ScannedRow, scan_json_lines, write_json_lines
from distillery.core.progress import Progress
from distillery.core.response_format import answer_part
from distillery.core.schemas import CATEGORIES, UNKNOWN
from distillery.core.stage import run_stage
from distillery.verification.config import VerifyParams, roles_of
from distillery.verification.router import Router
from distillery.verification.verdict import Item, Verdict, item_of

IN_FLIGHT = 2000


def item_in(scanned: ScannedRow, key: str) -> Item:
    """A row as an item. Raises DataError, naming file and line, where something is missing."""
    row, where = scanned.checked(), scanned.where
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


def verify_all(route: Router, items: Iterator[Item]) -> Iterator[tuple[int, Verdict]]:
    """(row, verdict) in any order, with progress; only a few items are in memory at a time."""
    progress = Progress("verification", "responses")
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
        progress.update(finished)
    while waiting:
        for key, verdict in route.poll(0.1):
            waiting -= 1
            yield int(key), verdict


def summary(rows: list[tuple[str, Verdict]]) -> Iterator[str]:
    """One line per category, then the most frequent reasons for inconclusive verdicts."""
    by_category: dict[str, Counter[str]] = defaultdict(Counter)
    for category, verdict in rows:
        by_category[category][verdict.verdict] += 1
    for category, counts in sorted(by_category.items()):
        yield f"{category:10} {counts['pass']:7} pass {counts['fail']:7} fail {counts[UNKNOWN]:7} inconclusive"
    for reason, count in Counter(verdict.reason for _, verdict in rows if verdict.verdict == UNKNOWN).most_common(5):
        yield f"inconclusive {count}: {reason}"


def settings_for(settings: VerifyParams, categories: set[str]) -> VerifyParams:
    """The settings that these categories need. Raises ConfigError where one has no rule."""
    if strangers := sorted(categories - settings.rules.keys()):
        raise ConfigError(f"params.yaml: verify.rules.{strangers[0]}: missing, and the file has such rows")
    rules = {category: rule for category, rule in settings.rules.items() if category in categories}
    wanted = {rule.verifier for rule in rules.values()}
    settings = replace(settings, rules=rules, judge=settings.judge if wanted & {"math", "science"} else None)
    return replace(settings, reward=settings.reward if "reward" in wanted else None)


def open_router(settings: VerifyParams) -> Router:
    """A router with the models that models/locks names; without these it runs without any and says so.

    Raises ConfigError where a verifier needs a model that is missing.
    """
    try:
        return Router(settings, roles_of(settings), config.load(str, "prompts"))
    except DataError as error:
        print(f"verification: no judge and no reward model: {error}")
        return Router(replace(settings, judge=None, reward=None))


def main(*arguments: str) -> None:
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        sys.exit("usage: python -m distillery.verification FILE.jsonl [OUT.jsonl]")
    source = Path(arguments[0])
    out = Path(arguments[1]) if len(arguments) == 2 else source.with_suffix(".verdicts.jsonl")
    try:
        if source.is_dir() or not out.parent.is_dir():
            raise DataError(f"{source}: a folder, not a file" if source.is_dir() else f"{out.parent}: no such folder")
        rows = list(scan_json_lines(source))
        items = [item_in(scanned, str(i)) for i, scanned in enumerate(rows)]
        if not items:
            raise DataError(f"{source}: no rows")
        route = open_router(settings_for(config.load(VerifyParams, "verify"), {item.category for item in items}))
    except (DataError, ConfigError) as error:
        sys.exit(f"verification: {error}")
    for notice in route.notices:
        print(f"verification: {notice}")
    try:
        verdicts = dict(verify_all(route, iter(items)))
    finally:
        route.close()
    lines = (int(scanned.where.rpartition(":")[2]) for scanned in rows)
    write_json_lines(({"line": line} | asdict(verdicts[i]) for i, line in enumerate(lines)), out)
    print("\n".join(summary([(item.category, verdicts[i]) for i, item in enumerate(items)])))
    print(f"verification: {len(items)} verdicts in {out}")


if __name__ == "__main__":
    run_stage(main)
