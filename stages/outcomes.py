"""outcomes: how often each metric of the forecast ordered two arms as their students' scores did.

data/outcomes.json is a table of all arms that were trained in this project, which git keeps: every run adds its arms, and
replaces those that it trained again. Arms are compared where they share base, benchmarks and the queries of the forecast.

Pairs of the same arms are not independent: the interval counts as many of them as there are arms, less one in each group.
"""

import hashlib
import json
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy import stats

from distillery.core import config, model_locks
from distillery.core.arms import arm_names
from distillery.core.files import read_json, write_json
from distillery.core.progress import log
from distillery.core.stage import record_metrics, run_stage
from distillery.core.teachers import keep_only
from distillery.evaluation.forecast_metrics import HIGHER

TABLE = Path("data/outcomes.json")
OVERALL, SIGNIFICANT = "overall", ("higher", "lower")
Row = dict[str, Any]


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def rows_of(compared: dict[str, Any], forecast: dict[str, Any]) -> list[Row]:
    """A row per arm of this run: what was forecast, how its students scored, and which other arms they differ from."""
    base = model_locks.read("base")
    arms = arm_names()
    conditions = read_json(f"metrics/evaluate/{arms[0]}.json")["conditions"]
    group = digest(
        [base.weights, conditions, config.load(dict[str, Any], "forecast"), forecast["queries"], config.load(int, "seed")]
    )
    keys = {arm: digest([group, Path(f"data/packed/{arm}/sha256").read_text()]) for arm in arms}
    rows = []
    for arm in arms:
        overall = compared["models"][arm][OVERALL]["pass@1"]
        differs = [
            keys[other] for other in arms if other != arm and verdict(compared["differences"], arm, other) in SIGNIFICANT
        ]
        rows.append(
            {
                "key": keys[arm],
                "group": group,
                "arm": arm,
                "base": base.id,
                "seeds": compared["training"]["seeds"][arm],
                "score": overall["mean"],
                "sd_between_seeds": overall["sd_between_seeds"],
                "differs_from": sorted(differs),
                "forecast": {name: each["arms"][arm]["mean"] for name, each in forecast["metrics"].items() if each["ranking"]},
            }
        )
    return rows


def verdict(differences: dict[str, Any], one: str, other: str) -> str:
    found = differences.get(f"{one} - {other}") or differences[f"{other} - {one}"]
    return str(found[OVERALL]["pass@1"]["verdict"])


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """The table with new rows in place of old ones of the same arm and conditions, by group and key."""
    by_key = {row["key"]: row for row in (*old, *new)}
    return sorted(by_key.values(), key=lambda row: (row["group"], row["key"]))


def agreement(table: list[Row], metric: str, better: str) -> dict[str, Any]:
    """How many pairs a metric orders as their scores are: of all that have it, and of those that differ significantly."""
    having = [row for row in table if metric in row["forecast"]]
    names = {row["group"] for row in having}
    groups = {name: [row for row in having if row["group"] == name] for name in names}
    counts = {"pairs": 0, "right": 0, "significant": 0, "significant_right": 0}
    for rows in groups.values():
        for a, b in combinations(rows, 2):
            guess, truth = a["forecast"][metric] - b["forecast"][metric], a["score"] - b["score"]
            right = (guess if better == HIGHER else -guess) * truth > 0
            significant = b["key"] in a["differs_from"]
            for name, holds in (("pairs", True), ("right", right), ("significant", significant)):
                counts[name] += holds
            counts["significant_right"] += significant and right
    free = sum(len(rows) - 1 for rows in groups.values() if len(rows) > 1)
    return counts | interval(counts["right"], counts["pairs"], free)


def interval(right: int, pairs: int, free: int) -> dict[str, float | None]:
    """The share of pairs that are right, with Wilson's interval of 95 % as if ``free`` of them were independent."""
    if not pairs:
        return {"share": None, "low": None, "high": None}
    found = stats.binomtest(round(right / pairs * free), free).proportion_ci(0.95, "wilson")
    return {"share": round(right / pairs, 4), "low": round(float(found.low), 4), "high": round(float(found.high), 4)}


def conclusion(agreements: dict[str, Any], arms: int, earlier: int) -> str:
    """What can be said of the metrics: which are better than chance, with a confidence of 95 %, if any."""
    known = [name for name, each in agreements.items() if each["low"] is not None and each["low"] > 0.5]
    over = f"over {arms} arms{f', {earlier} of them of earlier runs' if earlier else ''}"
    if known:
        return f"{over.capitalize()}, these metrics order arms significantly better than chance: {', '.join(known)}."
    return f"Nothing can be concluded of the forecast yet: {over}, no metric is significantly better than chance."


def main() -> None:
    compared, forecast = read_json("metrics/compare.json"), read_json("metrics/forecast.json")
    keep_only("data/packed", arm_names())
    with record_metrics("metrics/outcomes.json", "scipy") as (metrics, _):
        own = rows_of(compared, forecast)
        table = merged(read_json(TABLE) if TABLE.exists() else [], own)
        earlier = len({row["key"] for row in table} - {row["key"] for row in own})
        write_json(table, TABLE)
        metrics["arms"] = len(table)
        ranked = {name: each["better"] for name, each in forecast["metrics"].items() if each["ranking"]}
        metrics["agreement"] = {name: agreement(table, name, better) for name, better in ranked.items()}
        metrics["conclusion"] = conclusion(metrics["agreement"], len(table), earlier)
    log("outcomes", metrics["conclusion"])


if __name__ == "__main__":
    run_stage(main)
