"""analyse: how the teachers' data sets differ: categories by instance and by token, lengths, perplexities, attempts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distillery.core import config
from distillery.core.config import Section
from distillery.core.errors import ConfigError
from distillery.core.files import atomic_dir, write_csv
from distillery.core.progress import log
from distillery.core.schemas import CATEGORIES, CURATED, QUERY, SHARED
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import matching_parts, read_part
from distillery.core.teachers import keep_only, teacher_names
from distillery.corpus.arrow_text import combine_chunks

ABOUT = pa.schema([QUERY.field(name) for name in ("id", "category")])
FIGURES = pa.schema([CURATED.field(name) for name in ("query_id", "response_tokens", "perplexity", "attempt")])
QUANTILES = {"p05": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "p95": 0.95}


@dataclass(frozen=True)
class Analyse(Section):
    """How lengths are shown."""

    spans: tuple[int, ...]
    """The borders, in response tokens, of the length histogram."""


def span_names(borders: tuple[int, ...]) -> list[str]:
    inner = [f"{a}-{b - 1}" for a, b in pairwise(borders)]
    return [f"<{borders[0]}", *inner, f">={borders[-1]}"]


def span_counts(lengths: np.ndarray, spans: tuple[int, ...]) -> dict[str, int]:
    """How many of the lengths fall into each span."""
    counts = np.bincount(np.digitize(lengths, spans), minlength=len(spans) + 1).tolist()
    return dict(zip(span_names(spans), counts, strict=True))


def spread(values: np.ndarray) -> dict[str, float]:
    """Quantiles and mean, as a box plot shows them."""
    figures = {name: np.quantile(values, q) for name, q in QUANTILES.items()} | {"mean": np.mean(values)}
    return {name: round(float(figure), 4) for name, figure in figures.items()}


def entropy(counts: Iterable[int]) -> float:
    """How evenly a histogram is spread, in bits."""
    shares = np.array([count for count in counts if count], float)
    shares /= shares.sum()
    return round(float(-(shares * np.log2(shares)).sum()), 4)


@dataclass
class Gathered:
    """The columns of one teacher's data set that figures are made of, one number per trace each."""

    categories: np.ndarray
    response_tokens: np.ndarray
    perplexity: np.ndarray
    attempt: np.ndarray


def describe(rows: Gathered, spans: tuple[int, ...]) -> dict[str, Any]:
    """The figures of one teacher's data set."""
    size = len(CATEGORIES)
    instances = np.bincount(rows.categories, minlength=size).tolist()
    tokens = np.bincount(rows.categories, rows.response_tokens, size).astype(int).tolist()
    histogram = span_counts(rows.response_tokens, spans)
    mathematics = rows.response_tokens[rows.categories == CATEGORIES.index("math")]
    return {
        "instances": dict(zip(CATEGORIES, instances, strict=True)),
        "tokens": dict(zip(CATEGORIES, tokens, strict=True)),
        "response_tokens": spread(rows.response_tokens),
        "length_entropy_bits": entropy(histogram.values()),
        "perplexity": spread(rows.perplexity),
        "mean_attempts": round(float(rows.attempt.mean()), 4),
        "histogram": histogram,
        "histogram_math": span_counts(mathematics, spans),
    }


def overlap(solved: dict[str, pa.Array]) -> Counter[str]:
    """What all teachers solved, what any did, and what only one of them did, by name."""
    every = pc.value_counts(pa.concat_arrays(list(solved.values())))
    ids, times = every.field("values"), every.field("counts")
    alone = ids.filter(pc.equal(times, 1))
    counts = Counter(by_all=pc.sum(pc.equal(times, len(solved))).as_py() or 0, by_any=len(ids))
    for teacher, held in solved.items():
        counts[f"only {teacher}"] = pc.sum(pc.is_in(held, value_set=alone)).as_py() or 0
    return counts


def gather(queries: Path, curated: dict[str, Path], ids: Path) -> tuple[dict[str, Gathered], Counter[str]]:
    """One part's columns of each teacher, of the queries that all share, and how what they solved overlaps."""
    asked, common = read_part(queries, ABOUT), combine_chunks(read_part(ids, SHARED)["query_id"])
    known = pc.index_in(asked["category"], value_set=pa.array(CATEGORIES)).to_numpy().astype(np.int8)
    tables = {teacher: read_part(path, FIGURES) for teacher, path in curated.items()}
    gathered = {}
    for teacher, table in tables.items():
        chosen = table.filter(pc.is_in(table["query_id"], value_set=common))
        row = pc.index_in(combine_chunks(chosen["query_id"]), combine_chunks(asked["id"])).to_numpy()
        gathered[teacher] = Gathered(known[row], *(chosen[name].to_numpy() for name in FIGURES.names[1:]))
    return gathered, overlap({teacher: combine_chunks(table["query_id"]) for teacher, table in tables.items()})


def together(parts: list[Gathered]) -> Gathered:
    return Gathered(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Gathered)))


def tables(found: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The figures as flat tables to plot."""
    return {
        "categories": [
            {"teacher": t, "category": c, "instances": d["instances"][c], "tokens": d["tokens"][c]}
            for t, d in found.items()
            for c in CATEGORIES
        ],
        "histogram": [
            {"teacher": t, "span": span, "traces": count, "math": d["histogram_math"][span]}
            for t, d in found.items()
            for span, count in d["histogram"].items()
        ],
        "boxes": [
            {"teacher": t, "measure": measure} | d[measure]
            for t, d in found.items()
            for measure in ("response_tokens", "perplexity")
        ],
    }


def main() -> None:
    settings = config.load(Analyse, "analyse")
    if not settings.spans or list(settings.spans) != sorted(set(settings.spans)):
        raise ConfigError(f"params.yaml: analyse.spans: borders must rise, got {list(settings.spans)}")
    teachers = teacher_names()
    keep_only("data/curated", teachers)
    with record_metrics("metrics/analysis.json", "numpy") as (metrics, _):
        folders = [f"data/curated/{teacher}" for teacher in teachers]
        queries, ids, *curated = matching_parts("data/queries", "data/parallel/ids", *folders)
        parts: dict[str, list[Gathered]] = {teacher: [] for teacher in teachers}
        solved: Counter[str] = Counter()
        for part in range(len(queries)):
            here = {teacher: paths[part] for teacher, paths in zip(teachers, curated, strict=True)}
            found_here, overlapping = gather(queries[part], here, ids[part])
            solved += overlapping
            for teacher, columns in found_here.items():
                parts[teacher].append(columns)
        found = {teacher: describe(together(parts[teacher]), settings.spans) for teacher in teachers}
        with atomic_dir("data/analysis") as folder:
            for name, rows in tables(found).items():
                write_csv(rows, folder / f"{name}.csv")
        metrics.update(found)
        only = {teacher: solved[f"only {teacher}"] for teacher in teachers}
        metrics["overlap"] = {"by_all": solved["by_all"], "by_any": solved["by_any"], "only": only}
    for teacher, figures in found.items():
        tokens, perplexity = figures["response_tokens"]["mean"], figures["perplexity"]["mean"]
        log("analyse", f"{teacher}: mean {tokens:.1f} tokens, mean perplexity {perplexity:.2f}")


if __name__ == "__main__":
    run_stage(main)
