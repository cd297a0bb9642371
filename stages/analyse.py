"""analyse: how the teachers' data sets differ: categories by instance and by token, lengths, perplexities, attempts."""

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from stages import params, provenance
from stages.params import Section
from stages.provenance import say
from stages.tables import CATEGORIES, CURATED, QUERY, read, read_json_lines, whole_folder

QUANTILES = {"p05": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "p95": 0.95}


@dataclass(frozen=True)
class Analyse(Section):
    """``spans``: the borders, in response tokens, of the length histogram."""

    spans: tuple[int, ...]


def span_names(borders: tuple[int, ...]) -> list[str]:
    inner = [f"{a}-{b - 1}" for a, b in pairwise(borders)]
    return [f"<{borders[0]}", *inner, f">={borders[-1]}"]


def spread(values: list[float]) -> dict[str, float]:
    """Quantiles and mean, as a box plot shows them."""
    figures = {name: np.quantile(values, q) for name, q in QUANTILES.items()} | {"mean": np.mean(values)}
    return {name: round(float(figure), 4) for name, figure in figures.items()}


def entropy(counts: Iterable[int]) -> float:
    """How evenly a histogram is spread, in bits."""
    shares = np.array([count for count in counts if count], float)
    shares /= shares.sum()
    return round(float(-(shares * np.log2(shares)).sum()), 4)


def describe(rows: list[dict[str, Any]], categories: dict[str, str], spans: tuple[int, ...]) -> dict[str, Any]:
    """The figures of one teacher's data set."""
    lengths = [row["response_tokens"] for row in rows]
    instances = Counter(categories[row["query_id"]] for row in rows)
    tokens: Counter[str] = Counter()
    for row in rows:
        tokens[categories[row["query_id"]]] += row["response_tokens"]
    histogram = np.bincount(np.digitize(lengths, spans), minlength=len(spans) + 1).tolist()
    return {
        "instances": {category: instances[category] for category in CATEGORIES},
        "tokens": {category: tokens[category] for category in CATEGORIES},
        "response_tokens": spread(lengths),
        "length_entropy_bits": entropy(histogram),
        "perplexity": spread([row["perplexity"] for row in rows]),
        "mean_attempts": round(float(np.mean([row["attempt"] for row in rows])), 4),
        "histogram": dict(zip(span_names(spans), histogram, strict=True)),
    }


def overlap(solved: dict[str, set[str]]) -> dict[str, Any]:
    """What all teachers solved, and what only one of them did."""
    only = {t: len(ids - set().union(*(o for u, o in solved.items() if u != t))) for t, ids in solved.items()}
    return {"by_all": len(set.intersection(*solved.values())), "by_any": len(set().union(*solved.values())), "only": only}


def tables(found: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The figures as flat tables to plot."""
    return {
        "categories": [
            {"teacher": t, "category": c, "instances": d["instances"][c], "tokens": d["tokens"][c]}
            for t, d in found.items()
            for c in CATEGORIES
        ],
        "histogram": [
            {"teacher": t, "span": span, "traces": count} for t, d in found.items() for span, count in d["histogram"].items()
        ],
        "boxes": [
            {"teacher": t, "measure": measure} | d[measure]
            for t, d in found.items()
            for measure in ("response_tokens", "perplexity")
        ],
    }


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    settings = params.load(Analyse, "analyse")
    teachers = params.load(list[str], "teachers")
    with provenance.record("metrics/analysis.json", "numpy") as metrics:
        categories = {query["id"]: query["category"] for query in read("data/queries", QUERY).to_pylist()}
        shared = {row["query_id"] for row in read_json_lines("data/parallel/ids.jsonl")}
        curated = {teacher: read(f"data/curated/{teacher}", CURATED).to_pylist() for teacher in teachers}
        found = {
            teacher: describe([row for row in rows if row["query_id"] in shared], categories, settings.spans)
            for teacher, rows in curated.items()
        }
        with whole_folder("data/analysis") as folder:
            for name, rows in tables(found).items():
                write_csv(rows, folder / f"{name}.csv")
        metrics.update(found)
        metrics["overlap"] = overlap({teacher: {row["query_id"] for row in rows} for teacher, rows in curated.items()})
    for teacher, figures in found.items():
        lengths, surprise = figures["response_tokens"]["mean"], figures["perplexity"]["mean"]
        say("analyse", f"{teacher}: mean {lengths:.1f} tokens, mean perplexity {surprise:.2f}")


if __name__ == "__main__":
    provenance.run(main)
