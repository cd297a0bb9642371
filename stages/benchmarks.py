"""benchmarks: brings every benchmark into one form, a JSON line a question, each with its answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages import params, provenance
from stages.params import Section
from stages.provenance import say
from stages.sources import scan
from stages.tables import DataError, whole_folder, write_json_lines

FOLDER = Path("data/benchmarks")


@dataclass(frozen=True)
class Source(Section):
    """Where a benchmark comes from: a JSON-lines path or a hub id, and which of its columns are what."""

    source: str
    revision: str | None
    split: str
    question: str
    answer: str
    difficulty: str | None


def rows_of(name: str, source: Source) -> list[dict[str, Any]]:
    """The rows as they are. Raises DataError at the first that cannot be read."""
    rows = []
    for _, row in scan(source.source, source.split, source.revision, f"benchmarks.{name}.source"):
        if isinstance(row, DataError):
            raise row
        rows.append(row)
    return rows


def unify(name: str, source: Source, rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Questions as {id, question, answer, difficulty}, all strings. Raises DataError where an answer is missing."""
    unified = []
    for number, row in enumerate(rows, 1):
        for column in (source.question, source.answer):
            if row.get(column) is None or str(row[column]).strip() == "":
                where = f"benchmark {name}: {source.source}:{number}"
                raise DataError(f"{where}: no {column!r}; every question needs one to be scored")
        level = str(row.get(source.difficulty, "")) if source.difficulty else ""
        question, answer = str(row[source.question]), str(row[source.answer])
        unified.append({"id": f"{name}-{number:04}", "question": question, "answer": answer, "difficulty": level})
    if not unified:
        raise DataError(f"benchmark {name}: {source.source}: no questions")
    return unified


def main() -> None:
    sources = params.load(dict[str, Source], "benchmarks")
    with provenance.record("metrics/benchmarks.json", "datasets") as metrics:
        tables = {name: unify(name, source, rows_of(name, source)) for name, source in sources.items()}
        with whole_folder(FOLDER) as folder:
            for name, rows in tables.items():
                write_json_lines(rows, folder / f"{name}.jsonl")
        metrics["questions"] = {name: len(rows) for name, rows in tables.items()}
    say("benchmarks", ", ".join(f"{name} {len(rows)}" for name, rows in tables.items()))


if __name__ == "__main__":
    provenance.run(main)
