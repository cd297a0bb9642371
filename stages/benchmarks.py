"""benchmarks: brings every benchmark into one form, a JSON line a question, each with its answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages import params, provenance
from stages.params import ParamsError
from stages.provenance import say
from stages.sources import Origin, pinned, scan
from stages.sources.livecodebench import cases_of
from stages.tables import DataError, whole_folder, write_json_lines

FOLDER = Path("data/benchmarks")


@dataclass(frozen=True)
class Source(Origin):
    """Where a benchmark comes from, and which of its columns are what.

    A question is scored by its ``answer``, or where that is null by ``tests``: columns in LiveCodeBench's form or ours,
    with ``metadata`` that names the function and ``starter`` code for the prompt. With a ``date`` column only questions
    from ``since`` to ``until`` are taken, both ISO dates and included.
    """

    question: str
    answer: str | None
    difficulty: str | None
    tests: tuple[str, ...] = ()
    metadata: str | None = None
    starter: str | None = None
    date: str | None = None
    since: str = "0000"
    until: str = "9999"


def rows_of(name: str, source: Source) -> list[dict[str, Any]]:
    """The rows as they are, those of other dates left out. Raises DataError at the first that cannot be read."""
    rows = []
    for _, row in scan(source, f"benchmarks.{name}.source"):
        if isinstance(row, DataError):
            raise row
        if source.date is None or source.since <= str(row.get(source.date))[:10] <= source.until:
            rows.append(row)
    return rows


def unify(name: str, source: Source, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Questions as {id, question, answer, difficulty, tests, starter}, all strings; of answer and tests one is null.

    Raises DataError where a question can't be scored.
    """
    if (source.answer is None) == (not source.tests):
        raise ParamsError(f"params.yaml: benchmarks.{name}: needs an answer or tests, and not both")
    unified = []
    for number, row in enumerate(rows, 1):
        where = f"benchmark {name}: {source.source}:{number}"
        for column in filter(None, (source.question, source.answer)):
            if row.get(column) is None or str(row[column]).strip() == "":
                raise DataError(f"{where}: no {column!r}; every question needs one to be scored")
        about = {field: str(row.get(column) or "") if column else "" for field, column in _shown(source)}
        answer = None if source.answer is None else str(row[source.answer])
        unified.append({"id": f"{name}-{number:04}", **about, "answer": answer, "tests": tests_of(source, row, where)})
    if not unified:
        raise DataError(f"benchmark {name}: {source.source}: no questions")
    return unified


def _shown(source: Source) -> tuple[tuple[str, str | None], ...]:
    return (("question", source.question), ("difficulty", source.difficulty), ("starter", source.starter))


def tests_of(source: Source, row: dict[str, Any], where: str) -> str | None:
    """A question's tests as JSON: one column in our form, or columns in LiveCodeBench's."""
    if not source.tests:
        return None
    columns = [row.get(column) for column in source.tests]
    if len(columns) == 1 and isinstance(columns[0], str) and columns[0].lstrip().startswith("{"):
        return columns[0]
    try:
        return cases_of(columns, row.get(source.metadata) if source.metadata else None)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {' or '.join(source.tests)}: {error}") from None


def main() -> None:
    sources = {name: pinned(source) for name, source in params.load(dict[str, Source], "benchmarks").items()}
    with provenance.record("metrics/benchmarks.json", "datasets") as metrics:
        tables = {name: unify(name, source, rows_of(name, source)) for name, source in sources.items()}
        with whole_folder(FOLDER) as folder:
            for name, rows in tables.items():
                write_json_lines(rows, folder / f"{name}.jsonl")
        metrics["questions"] = {name: len(rows) for name, rows in tables.items()}
        metrics["provenance"] = {"sources": {name: str(source) for name, source in sources.items()}}
    say("benchmarks", ", ".join(f"{name} {len(rows)}" for name, rows in tables.items()))


if __name__ == "__main__":
    provenance.run(main)
