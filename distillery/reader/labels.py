"""Labels of removed rows, given by people: how precise each rule is."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from distillery.core.errors import DataError

RIGHT, WRONG = "right", "wrong"
PATH = Path("conf/labels.jsonl")
"""One label per line: the row's ``id`` and ``rule``, and ``label``, which is right or wrong; a later line counts."""


def read(path: Path = PATH) -> dict[str, dict[str, Any]]:
    """The last label of each row, by its id. Raises DataError for a line that is none."""
    found = {}
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        try:
            row = json.loads(line)
            known = {name: row[name] for name in ("id", "rule", "label")}
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}, line {number}: no label; each has id, rule and label") from None
        if known["label"] not in (RIGHT, WRONG, None):
            raise DataError(f"{path}, line {number}: label {known['label']!r} is neither {RIGHT} nor {WRONG}")
        found[known["id"]] = known
    return {key: row for key, row in found.items() if row["label"]}


def add(row: dict[str, Any], path: Path = PATH) -> None:
    """Adds a label; None as the label takes the last one back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def precision_rows(labels: dict[str, dict[str, Any]], confidence: float = 0.95) -> list[list[str]]:
    """Rule, labelled rows, and the share of them that was rightly removed, with its Wilson interval."""
    from scipy.stats import binomtest

    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in labels.values():
        counts[row["rule"]][row["label"] == RIGHT] += 1
    rows = []
    for rule, (wrong, right) in sorted(counts.items()):
        found = binomtest(right, right + wrong).proportion_ci(confidence, "wilson")
        share = f"{100 * right / (right + wrong):.0f} % [{100 * found.low:.0f}, {100 * found.high:.0f}]"
        rows.append([rule, str(right + wrong), share])
    return rows
