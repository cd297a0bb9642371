"""python -m distillery.verification SOURCE [OUT.jsonl]: a verdict for every response, whoever made it.

SOURCE is a JSON lines or parquet file, a folder of them, or a data set on the hub; `rollouts` lists the forms of rows. Our own
has ``category``, ``text`` (or ``response``), and its reference: ``ground_truth``, ``test_cases`` or ``constraints``, and for
chat ``messages``; docs/examples/responses.jsonl has one of each category. Thresholds, limits and models are params.yaml's.
Verdicts are written next to the file, one line per row, in the order of the rows; rows that cannot be read come last. Where
rows carry a verdict of their own, the summary says how often ours differ.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from distillery.core import config
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import write_json_lines
from distillery.core.progress import Progress
from distillery.core.response_parts import answer_part
from distillery.core.schemas import FAIL, PASS, UNKNOWN
from distillery.core.stage import run_stage
from distillery.core.text_table import format_table
from distillery.verification.config import VerifyParams, roles_of
from distillery.verification.rollouts import Rollout, read, rollout_of
from distillery.verification.router import Router
from distillery.verification.verdict import Item, Verdict, item_of

IN_FLIGHT, MOST_NAMED = 2000, 5


def item_of_rollout(rollout: Rollout, key: str) -> Item:
    """A rollout as an item; its reference in other forms than text is written as JSON."""
    return item_of(key, rollout.fields, answer_part(rollout.text))


def readable(source: str) -> tuple[list[tuple[str, Rollout]], list[tuple[str, str]]]:
    """The rollouts of a source, and the rows that are none, each with where it stands and why."""
    found, unread = [], []
    for where, row in read(source):
        try:
            found.append((where, rollout_of(row, where)))
        except DataError as error:
            unread.append((where, str(error).removeprefix(f"{where}: ")))
    return found, unread


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


Judgement = tuple[str, bool | None, Verdict]
"""A response's category, whether it is said to be right, and our verdict."""


def summary(rows: list[Judgement]) -> Iterator[str]:
    """Verdicts by category; how they differ from those that rows carry; the most frequent reasons of inconclusive ones."""
    by_category: dict[str, list[Judgement]] = defaultdict(list)
    for row in rows:
        by_category[row[0]].append(row)
    yield from format_table(HEAD, [[category, *map(str, counts_of(of))] for category, of in sorted(by_category.items())])
    for reason, count in Counter(verdict.reason for _, _, verdict in rows if verdict.verdict == UNKNOWN).most_common(5):
        yield f"inconclusive {count}: {reason}"


HEAD = ["category", "pass", "fail", "inconclusive", "said right, fails", "said wrong, passes"]


def counts_of(rows: list[Judgement]) -> list[int]:
    """The columns of `HEAD` but the first."""
    verdicts = Counter(verdict.verdict for _, _, verdict in rows)
    differ = Counter((claimed, verdict.verdict) for _, claimed, verdict in rows)
    return [verdicts[PASS], verdicts[FAIL], verdicts[UNKNOWN], differ[True, FAIL], differ[False, PASS]]


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


def place_of(source: str) -> Path:
    """Where verdicts go: next to a file or folder; for a data set on the hub into the working directory, under its name."""
    path = Path(source)
    name = f"{path.stem if path.suffix == '.jsonl' else path.name}.verdicts.jsonl"
    return path.with_name(name) if path.exists() else Path(name)


def main(source: str, out: str | None = None) -> None:
    to = Path(out) if out else place_of(source)
    if not to.parent.is_dir() or to.is_dir():
        raise DataError(f"{to}: no file can be written there")
    if to.exists() and Path(source).exists() and to.samefile(source):
        raise ConfigError(f"{to}: verdicts would replace the responses; give another file")
    rows, unread = readable(source)
    if not rows:
        raise DataError(
            f"{source}: no rows" if not unread else f"{unread[0][0]}: {unread[0][1]}; nor can any other row be read"
        )
    items = [item_of_rollout(rollout, str(i)) for i, (_, rollout) in enumerate(rows)]
    route = open_router(settings_for(config.load(VerifyParams, "verify"), {item.category for item in items}))
    for notice in route.notices:
        print(f"verification: {notice}")
    try:
        verdicts = dict(verify_all(route, iter(items)))
    finally:
        route.close()
    lines = [
        {"row": where, "category": rollout.fields["category"], "said_right": rollout.claimed} | asdict(verdicts[i])
        for i, (where, rollout) in enumerate(rows)
    ]
    lines += [{"row": where, "verdict": UNKNOWN, "reason": why} for where, why in unread]
    write_json_lines(lines, to)
    judged = [(each.fields["category"], each.claimed, verdicts[i]) for i, (_, each) in enumerate(rows)]
    print("\n".join(summary(judged)))
    for where, why in unread[:MOST_NAMED]:
        print(f"not read: {where}: {why}")
    print(f"verification: {len(rows)} verdicts in {to}; {len(unread)} rows cannot be read")


if __name__ == "__main__":
    run_stage(main)
