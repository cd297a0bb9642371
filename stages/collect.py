"""collect: brings every query source into one table; nothing is judged here except whether a row can be read."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages import params, provenance
from stages.params import Section
from stages.provenance import say
from stages.sources import scan
from stages.tables import CATEGORIES, QUERY, DataError, write

RAW = Path("data/raw")
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Source(Section):
    """One source: a JSON-lines path, or a hub id with a pinned revision. ``columns`` maps our names to the source's."""

    source: str
    revision: str | None
    split: str
    category: str | None
    columns: dict[str, str]


@dataclass(frozen=True)
class Collect(Section):
    """``malformed`` says whether a row that cannot be read stops the run or is skipped and counted."""

    malformed: Literal["stop", "skip"]
    sources: dict[str, Source]


def canonical(messages: Messages) -> str:
    """The text that a query is known by: Unicode NFC, runs of white space as one space."""
    turns = [[m["role"], re.sub(r"\s+", " ", unicodedata.normalize("NFC", m["content"])).strip()] for m in messages]
    return json.dumps(turns, ensure_ascii=True)


def identify(messages: Messages) -> str:
    """A query's id: the hash of its canonical messages, 32 hexadecimal digits."""
    return hashlib.sha256(canonical(messages).encode()).hexdigest()[:32]


def as_messages(value: Any) -> Messages:
    """A prompt or a list of messages as messages. Raises ValueError where it is neither."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise ValueError("messages must be a text or a list that is not empty")
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise ValueError("every message needs a role and a content, both text")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def as_text(value: Any) -> str | None:
    """Free-form fields as text: a string as it is, anything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_query(row: dict[str, Any], name: str, source: Source) -> dict[str, Any]:
    """One row in the QUERY schema. Raises ValueError saying what is wrong with it."""

    def get(field: str) -> Any:
        return row.get(source.columns.get(field, field))

    messages = as_messages(get("messages"))
    category = source.category or get("category")
    if category not in CATEGORIES:
        raise ValueError(f"category {category!r} is none of {', '.join(CATEGORIES)}")
    fields = {field: as_text(get(field)) for field in ("difficulty", "ground_truth", "test_cases", "constraints")}
    fields["source"] = as_text(get("source")) or name
    for text in (*(message["content"] for message in messages), *fields.values()):
        if text and _UNWRITABLE.search(text):
            raise ValueError("null byte or lone surrogate in the text")
    return {"id": identify(messages), "messages": messages, "category": category} | fields


def collect(sources: dict[str, Source], malformed: str) -> tuple[list[dict[str, Any]], Counter[str]]:
    """All queries in the order of their sources, and counts; a bad row raises DataError unless it may be skipped."""
    queries: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for name, source in sources.items():
        for where, row in scan(source.source, source.split, source.revision, f"collect.sources.{name}.source"):
            try:
                queries.append(as_query(_whole(row), name, source))
                counts[name] += 1
            except ValueError as error:
                problem = str(error) if isinstance(row, DataError) else f"{where}: {error}"
                if malformed == "stop":
                    raise DataError(f"{problem}; mend it, or set collect.malformed to skip") from None
                say("collect", f"skipped {problem}")
                counts["malformed"] += 1
    return queries, counts


def _whole(row: dict[str, Any] | DataError) -> dict[str, Any]:
    if isinstance(row, DataError):
        raise row
    return row


def main() -> None:
    settings = params.load(Collect, "collect")
    with provenance.record("metrics/collect.json", "datasets", "pyarrow") as metrics:
        queries, counts = collect(settings.sources, settings.malformed)
        write(queries, RAW, QUERY)
        metrics["queries"] = len(queries)
        metrics["sources"] = {name: counts[name] for name in settings.sources}
        metrics["malformed"] = counts["malformed"]
    say("collect", f"{len(queries)} queries, {counts['malformed']} rows could not be read")


if __name__ == "__main__":
    provenance.run(main)
