"""benchmarks: converts every benchmark to one format, one JSON line per question with its answer or tests."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

from pydantic import StringConstraints

from distillery.core import config
from distillery.core.chat import UNWRITABLE
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import atomic_dir, write_json_lines
from distillery.core.progress import log
from distillery.core.stage import record_metrics, run_stage
from distillery.core.teachers import check_names
from distillery.corpus.livecodebench import cases_of
from distillery.corpus.sources import Origin, pinned, scan
from distillery.evaluation.benchmarks import benchmarks_by_samples
from distillery.evaluation.model_values import OVERALL

FOLDER = Path("data/benchmarks")
MOST_CHOICES = 9
"""Wrong options: with the right one, as many as there are letters that `verification.choice_verifier` reads."""


Day = Annotated[str, StringConstraints(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")]


@dataclass(frozen=True)
class Source(Origin):
    """Where a benchmark comes from, and which of its columns are what."""

    question: str
    """The column of the question."""
    answer: str | None
    """The column of the right answer; null where ``tests`` or ``constraints`` decide."""
    difficulty: str | None
    """The column of the level; null where there is none."""
    cluster: str | None = None
    """The column that questions made from one template share: they count as one where differences are tested."""
    choices: tuple[str, ...] = ()
    """Columns of wrong options: the question lists them with the answer, in an order of its own, and its letter is right."""
    constraints: tuple[str, ...] = ()
    """IFEval's columns of constraints and their arguments, or one that holds both."""
    tests: tuple[str, ...] = ()
    """Columns of test cases, in LiveCodeBench's form or ours."""
    metadata: str | None = None
    """LiveCodeBench's column that names the function to call."""
    starter: str | None = None
    """The column of code that the prompt begins the program with."""
    date: str | None = None
    """The column of the day on which a question was published."""
    since: Day = "0000"
    """The first day that counts, an ISO date."""
    until: Day = "9999"
    """The last day that counts, an ISO date."""


def rows_of(name: str, source: Source) -> list[dict[str, Any]]:
    """The unchanged rows, without those of other dates. Raises DataError at the first that cannot be read."""
    rows = []
    for scanned in scan(source, f"benchmarks.{name}.source"):
        row = scanned.checked()
        if source.date is None or source.since <= str(row.get(source.date))[:10] <= source.until:
            rows.append(row)
    return rows


def unify(name: str, source: Source, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Questions as {id, question, options, answer, difficulty, tests, constraints, starter}, all strings.

    Of answer, tests and constraints all but one are null. Options stand apart from the question, which is what queries are
    compared with. Raises DataError where a question can't be scored.
    """
    check(name, source)
    check_columns(name, source, rows)
    unified = []
    for number, row in enumerate(rows, 1):
        where = f"benchmark {name}: {source.source}:{number}"
        for column in filter(None, (source.question, source.answer, *source.choices, *source.constraints)):
            if row.get(column) is None or str(row[column]).strip() == "":
                raise DataError(f"{where}: no {column!r}; every question needs one to be scored")
        for column in filter(None, (source.question, source.answer, *source.choices)):
            if not isinstance(row[column], str | int | float) or isinstance(row[column], bool) or row[column] != row[column]:
                raise DataError(f"{where}: {column}: text or a number is needed, not {row[column]!r:.80}")
        about = {field: str(row.get(column) or "") if column else "" for field, column in _shown(source)}
        key, answer = f"{name}-{number:04}", None if source.answer is None else str(row[source.answer])
        about["options"] = ""
        if source.choices:
            about["options"], answer = choices_of(key, str(answer), [str(row[column]) for column in source.choices], where)
        try:
            constraints = constraints_of(source, row)
        except ValueError as error:
            raise DataError(f"{where}: {' or '.join(source.constraints)}: not JSON: {error}") from None
        question = {"id": key, **about, "answer": answer, "tests": tests_of(source, row, where), "constraints": constraints}
        if any(UNWRITABLE.search(text) for text in question.values() if text):
            raise DataError(f"{where}: null byte or lone surrogate in the text")
        unified.append(question)
    if not unified:
        raise DataError(f"benchmark {name}: {source.source}: no questions")
    return unified


def check(name: str, source: Source) -> None:
    """Raises ConfigError for columns that cannot work together."""
    key = f"params.yaml: benchmarks.{name}"
    if sum(map(bool, (source.answer, source.tests, source.constraints))) != 1:
        raise ConfigError(f"{key}: needs one of answer, tests and constraints")
    if source.choices and (source.answer is None or len(source.choices) > MOST_CHOICES):
        raise ConfigError(f"{key}.choices: needs an answer, and at most {MOST_CHOICES} columns of wrong options")
    if source.date is None and (source.since, source.until) != ("0000", "9999"):
        raise ConfigError(f"{key}: since and until need `date`, the column of the day")
    if len(source.constraints) > 2:
        raise ConfigError(f"{key}.constraints: takes IFEval's two columns, or one that holds both")


def check_columns(name: str, source: Source, rows: list[dict[str, Any]]) -> None:
    """Raises ConfigError where no row has a column that the settings name."""
    there = {column for row in rows for column in row}
    one = ("question", "answer", "difficulty", "cluster", "metadata", "starter", "date")
    named = [*(getattr(source, each) for each in one), *source.choices, *source.constraints, *source.tests]
    for column in filter(None, named):
        if rows and column not in there:
            raise ConfigError(f"params.yaml: benchmarks.{name}: no column {column!r}; there are {', '.join(sorted(there))}")


def _shown(source: Source) -> tuple[tuple[str, str | None], ...]:
    named = ("question", "difficulty", "cluster", "starter")
    return tuple((name, getattr(source, name)) for name in named)


def choices_of(key: str, right: str, wrong: list[str], where: str) -> tuple[str, str]:
    """Options, one per line, in an order that depends on the question alone; and the right one's letter."""
    right, *wrong = (" ".join(each.split()) for each in (right, *wrong))
    options = sorted({right, *wrong}, key=lambda option: hashlib.sha256(f"{key}\n{option}".encode()).digest())
    if len(options) != len(wrong) + 1:
        raise DataError(f"{where}: two of its options are the same")
    lettered = dict(zip(options, ascii_uppercase, strict=False))
    return "\n".join(f"({letter}) {option}" for option, letter in lettered.items()), lettered[right]


def constraints_of(source: Source, row: dict[str, Any]) -> str | None:
    """A question's constraints as JSON, as `verification.ifeval_verifier` reads them."""
    if not source.constraints:
        return None
    columns = [row[column] for column in source.constraints]
    read = [json.loads(each) if isinstance(each, str) else each for each in columns]
    if len(read) == 2:
        return json.dumps({"instruction_id_list": read[0], "kwargs": read[1]}, ensure_ascii=False)
    return columns[0] if isinstance(columns[0], str) else json.dumps(read[0], ensure_ascii=False)


def tests_of(source: Source, row: dict[str, Any], where: str) -> str | None:
    """A question's tests as JSON: one column in our form, or columns in LiveCodeBench's."""
    if not source.tests:
        return None
    columns = [row.get(column) for column in source.tests]
    try:
        if len(columns) == 1 and isinstance(columns[0], str) and columns[0].lstrip().startswith("{"):
            json.loads(columns[0])
            return columns[0]
        return cases_of(columns, row.get(source.metadata) if source.metadata else None)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {' or '.join(source.tests)}: {error}") from None


def chosen() -> dict[str, Source]:
    """The benchmarks that are not switched off. Raises ConfigError where none is, or one that `evaluate` names is missing."""
    samples = benchmarks_by_samples()
    listed = config.load(dict[str, Source], "benchmarks")
    check_names("benchmarks", list(listed))
    if OVERALL in listed:
        raise ConfigError(f"params.yaml: benchmarks.{OVERALL}: this is the name of their mean; take another")
    for name, source in listed.items():
        check(name, source)
    if missing := sorted(samples.keys() - listed.keys()):
        raise ConfigError(f"params.yaml: benchmarks.{missing[0]}: missing, but evaluate.benchmarks names it")
    if not any(samples.values()):
        raise ConfigError("params.yaml: evaluate.benchmarks: no benchmark has samples; switch at least one on")
    return {name: source for name, source in listed.items() if samples.get(name, 1)}


def main() -> None:
    sources = {name: pinned(source) for name, source in chosen().items()}
    with record_metrics("metrics/benchmarks.json", "datasets") as (metrics, _):
        tables = {name: unify(name, source, rows_of(name, source)) for name, source in sources.items()}
        with atomic_dir(FOLDER) as folder:
            for name, rows in tables.items():
                write_json_lines(rows, folder / f"{name}.jsonl")
        metrics["questions"] = {name: len(rows) for name, rows in tables.items()}
        metrics["provenance"] = {"sources": {name: str(source) for name, source in sources.items()}}
    log("benchmarks", ", ".join(f"{name} {len(rows)}" for name, rows in tables.items()))


if __name__ == "__main__":
    run_stage(main)
