"""analyse: how the arms' data sets differ: categories by instance and by token, lengths, perplexities, attempts."""

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
from distillery.core.arms import Arm, arms
from distillery.core.config import Section
from distillery.core.files import atomic_dir, write_csv
from distillery.core.progress import log
from distillery.core.schemas import CATEGORIES, CURATED, PASS, QUERY, TAKEN
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import matching_parts, read_part
from distillery.core.teachers import keep_only, teacher_names
from distillery.corpus.arrow_text import combine_chunks
from distillery.corpus.token_shards import attempt_keys

ABOUT = pa.schema([QUERY.field(name) for name in ("id", "category")])
COLUMNS = ("response_tokens", "perplexity", "attempt")
READ = pa.schema([CURATED.field(name) for name in ("query_id", "teacher", "verdict", *COLUMNS)])
QUANTILES = {"p05": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "p95": 0.95}


@dataclass(frozen=True)
class Analyse(Section):
    """How lengths are shown."""

    spans: tuple[int, ...]
    """The borders, in response tokens, of the length histogram."""

    def __post_init__(self) -> None:
        if not self.spans or sorted(set(self.spans)) != list(self.spans):
            raise ValueError(f"spans: borders must rise, got {list(self.spans)}")


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
    """The columns of one arm's data set that figures are made of, one number per trace each."""

    categories: np.ndarray
    response_tokens: np.ndarray
    perplexity: np.ndarray
    attempt: np.ndarray


def describe(rows: Gathered, spans: tuple[int, ...]) -> dict[str, Any]:
    """The figures of one arm's data set."""
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


def gather(
    queries: Path, curated: dict[str, Path], takes: dict[str, Path], described: dict[str, Arm]
) -> tuple[dict[str, Gathered], Counter[str]]:
    """One part's columns of each arm, and how what the teachers solved overlaps."""
    asked = read_part(queries, ABOUT)
    known = pc.index_in(asked["category"], value_set=pa.array(CATEGORIES)).to_numpy().astype(np.int8)
    tables = {teacher: read_part(path, READ) for teacher, path in curated.items()}
    gathered = {}
    for name, path in takes.items():
        held = pa.concat_tables([tables[teacher] for teacher in described[name].teachers])
        chosen = held.take(pc.index_in(trace_keys(read_part(path, TAKEN)), trace_keys(held)))
        row = pc.index_in(combine_chunks(chosen["query_id"]), combine_chunks(asked["id"])).to_numpy()
        gathered[name] = Gathered(known[row], *(chosen[column].to_numpy() for column in COLUMNS))
    return gathered, overlap({teacher: solved_by(table) for teacher, table in tables.items()})


def trace_keys(table: pa.Table) -> pa.Array:
    """The key of each trace, one string per row: its query, attempt and teacher."""
    return combine_chunks(pc.binary_join_element_wise(attempt_keys(table), combine_chunks(table["teacher"]), "-"))


def solved_by(table: pa.Table) -> pa.Array:
    """The queries of which a teacher has a verified trace."""
    return pc.unique(combine_chunks(table.filter(pc.field("verdict") == PASS)["query_id"]))


def together(parts: list[Gathered]) -> Gathered:
    return Gathered(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Gathered)))


def tables(found: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The figures as flat tables to plot."""
    return {
        "categories": [
            {"arm": t, "category": c, "instances": d["instances"][c], "tokens": d["tokens"][c]}
            for t, d in found.items()
            for c in CATEGORIES
        ],
        "histogram": [
            {"arm": t, "span": span, "traces": count, "math": d["histogram_math"][span]}
            for t, d in found.items()
            for span, count in d["histogram"].items()
        ],
        "boxes": [
            {"arm": t, "measure": measure} | d[measure]
            for t, d in found.items()
            for measure in ("response_tokens", "perplexity")
        ],
    }


def main() -> None:
    settings = config.load(Analyse, "analyse")
    teachers, described = teacher_names(), arms()
    keep_only("data/curated", teachers)
    with record_metrics("metrics/analysis.json", "numpy") as (metrics, _):
        folders = [*(f"data/curated/{teacher}" for teacher in teachers), *(f"data/arms/{name}" for name in described)]
        queries, *tables_of = matching_parts("data/queries", *folders)
        parts: dict[str, list[Gathered]] = {name: [] for name in described}
        solved: Counter[str] = Counter()
        for part in range(len(queries)):
            here = [paths[part] for paths in tables_of]
            curated = dict(zip(teachers, here, strict=False))
            takes = dict(zip(described, here[len(teachers) :], strict=True))
            found_here, overlapping = gather(queries[part], curated, takes, described)
            solved += overlapping
            for name, columns in found_here.items():
                parts[name].append(columns)
        found = {name: describe(together(parts[name]), settings.spans) for name in described}
        with atomic_dir("data/analysis") as folder:
            for name, rows in tables(found).items():
                write_csv(rows, folder / f"{name}.csv")
        metrics.update(found)
        only = {teacher: solved[f"only {teacher}"] for teacher in teachers}
        metrics["overlap"] = {"by_all": solved["by_all"], "by_any": solved["by_any"], "only": only}
    for name, figures in found.items():
        tokens, perplexity = figures["response_tokens"]["mean"], figures["perplexity"]["mean"]
        log("analyse", f"{name}: mean {tokens:.1f} tokens, mean perplexity {perplexity:.2f}")


if __name__ == "__main__":
    run_stage(main)
