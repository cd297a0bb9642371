"""python -m distillery.verification.measure LABELS.jsonl [OUT.json]: how far the judge and the reward model can be trusted.

A row is one of ``python -m distillery.verification`` with ``label``: true (or "pass") where the response is right or good,
false (or "fail") where it is not. Thresholds and models are those of params.yaml. The result, by default
conf/agreement.json, names the models and the file by their hashes; the report shows it.
"""

import hashlib
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from distillery.core import config
from distillery.core.errors import ConfigError, DataError, EngineError
from distillery.core.files import scan_json_lines, write_json
from distillery.core.model_locks import brief
from distillery.core.schemas import PASS, UNKNOWN
from distillery.core.stage import run_stage
from distillery.core.text_table import format_table
from distillery.verification.__main__ import item_of_rollout, settings_for, verify_all
from distillery.verification.agreement import HEAD, Judged, agreement, table_rows
from distillery.verification.config import VerifyParams, roles_of
from distillery.verification.registry import VERIFIERS
from distillery.verification.rollouts import rollout_of
from distillery.verification.router import Router
from distillery.verification.verdict import Item, Verdict

OUT = Path("conf/agreement.json")
LABELS = {True: True, False: False, "pass": True, "fail": False}


def read(path: Path) -> tuple[list[Item], list[bool]]:
    """Items and their labels. Raises DataError, naming file and line, where a row is none."""
    items, labels = [], []
    for number, scanned in enumerate(scan_json_lines(path)):
        label = scanned.checked().get("label")
        if not isinstance(label, bool | str) or label not in LABELS:
            raise DataError(f'{scanned.where}: \'label\' must be true or false (or "pass" or "fail"), not {label!r}')
        items.append(item_of_rollout(rollout_of(scanned.checked(), scanned.where), str(number)))
        labels.append(LABELS[label])
    if not items:
        raise DataError(f"{path}: no rows")
    return items, labels


def verdicts_of(route: Router, items: list[Item]) -> list[bool | None]:
    found: dict[int, Verdict] = dict(verify_all(route, iter(items)))
    return [None if found[i].verdict == UNKNOWN else found[i].verdict == PASS for i in range(len(items))]


def swapped(route: Router, items: list[Item]) -> dict[str, bool | None]:
    """By key, the verdicts with reference and answer in each other's place, where a judge is always asked."""
    asks = {kind for kind, rule in route.rules.items() if VERIFIERS[rule.verifier].judge == "always"}
    pairs = [item for item in items if item.category in asks and item.answer and item.ground_truth]
    turned = [replace(item, key=str(i), answer=item.ground_truth, ground_truth=item.answer) for i, item in enumerate(pairs)]
    return dict(zip((item.key for item in pairs), verdicts_of(route, turned), strict=True))


def measure(route: Router, items: list[Item], labels: list[bool], seed: int) -> dict[str, Any]:
    """`agreement` by category, with the verifier that decides there and what its verdicts depend on."""
    passed, turned = verdicts_of(route, items), swapped(route, items)
    rows: dict[str, list[Judged]] = {}
    for item, label, verdict in zip(items, labels, passed, strict=True):
        judged = Judged(label, verdict, len(item.answer or ""), turned.get(item.key))
        rows.setdefault(item.category, []).append(judged)
    names = {category: route.rules[category].verifier for category in rows}
    return {
        category: {"verifier": names[category], "version": route.versions[names[category]]} | agreement(found, seed)
        for category, found in sorted(rows.items())
    }


def main(*arguments: str) -> None:
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        sys.exit("usage: python -m distillery.verification.measure LABELS.jsonl [OUT.json]")
    source, out = Path(arguments[0]), Path(arguments[1]) if len(arguments) == 2 else OUT
    try:
        items, labels = read(source)
        settings = settings_for(config.load(VerifyParams, "verify"), {item.category for item in items})
        roles, prompts = roles_of(settings), config.load(str, "prompts")
        with closing(Router(settings, roles, prompts)) as route:
            categories = measure(route, items, labels, config.load(int, "seed"))
    except (DataError, ConfigError, EngineError) as error:
        sys.exit(f"measure: {error}")
    models = brief(*(lock for lock in (roles.judge, roles.reward) if lock))
    labelled = {"file": str(source), "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    write_json({"labels": labelled, "models": models, "categories": categories}, out)
    print("\n".join(format_table(HEAD, table_rows(categories))))
    print(f"measure: {len(items)} labelled responses, in {out}")


if __name__ == "__main__":
    run_stage(main)
