"""clean: drops duplicates and queries that no teacher should be asked. Every dropped row is kept with its reason."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any

from stages import params, provenance
from stages.params import Section
from stages.provenance import say
from stages.tables import QUERY, REJECTED_QUERY, DataError, read, write

_URL = re.compile(r"(?:https?|ftp)://\S|\bwww\.[\w-]+\.\w{2,}", re.IGNORECASE)
_TABLES = (
    re.compile(r"^[ \t]*\|?[ \t]*:?-{3,}:?[ \t]*(?:\|[ \t]*:?-{3,}:?[ \t]*)+\|?[ \t]*$", re.MULTILINE),
    re.compile(r"<table\b", re.IGNORECASE),
    re.compile(r"\\begin\{(?:tabular|longtable)[*x]?\}"),
    re.compile(r"(?:^[^\t\n]+(?:\t[^\t\n]+){2,}$\n?){2,}", re.MULTILINE),
)
_SIGNS = {"Sm", "Sc", "Sk"}
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Clean(Section):
    """``max_unicode_ratio``: highest share of characters that are no letter, digit, mark, space or sign of mathematics."""

    max_unicode_ratio: float
    min_characters: int


def odd_share(text: str) -> float:
    """The share of characters that prose, mathematics and code in any script have no use for."""
    odd = sum(not c.isspace() and unicodedata.category(c)[0] in "SC" and unicodedata.category(c) not in _SIGNS for c in text)
    return odd / max(len(text), 1)


def incomplete(text: str) -> bool:
    """Cut off: an open code fence, an open LaTeX environment, or an end on a joining sign or word."""
    if text.count("```") % 2 or text.count("\\begin{") != text.count("\\end{"):
        return True
    return bool(re.search(r"(?:[,(\[{]|\b(?:and|or|the|of|then|with))\s*\Z", text))


def reason(text: str, settings: Clean) -> str | None:
    """Why a query's text is dropped, or None. Code fences may hold URLs, prose may not."""
    prose = _CODE.sub(" ", text)
    if len(text.strip()) < settings.min_characters:
        return "empty"
    if odd_share(text) > settings.max_unicode_ratio:
        return "unicode_ratio"
    if incomplete(text):
        return "incomplete"
    if _URL.search(prose):
        return "url"
    if any(table.search(prose) for table in _TABLES):
        return "table"
    return None


def out_of_turn(messages: list[dict[str, str]]) -> bool:
    """Whether the turns, but for a system prompt, do not alternate from user to user: nobody could answer that."""
    roles = [message["role"] for message in messages if message["role"] != "system"]
    return len(roles) % 2 == 0 or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles))


def clean(queries: list[dict[str, Any]], settings: Clean) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Splits queries into kept and rejected, both sorted by id; of equal queries the first is kept."""
    kept: dict[str, dict[str, Any]] = {}
    rejected = []
    for query in queries:
        text = "\n".join(message["content"] for message in query["messages"])
        why = "duplicate" if query["id"] in kept else "turns" if out_of_turn(query["messages"]) else reason(text, settings)
        if why:
            rejected.append(query | {"reason": why})
        else:
            kept[query["id"]] = query
    by_id = lambda query: query["id"]  # noqa: E731
    return sorted(kept.values(), key=by_id), sorted(rejected, key=by_id)


def main() -> None:
    settings = params.load(Clean, "clean")
    with provenance.record("metrics/clean.json", "pyarrow") as metrics:
        queries = read("data/raw", QUERY).to_pylist()
        kept, rejected = clean(queries, settings)
        counts = dict(sorted(Counter(row["reason"] for row in rejected).items()))
        if not kept:
            raise DataError(f"data/raw: no query is left after cleaning ({len(queries)} came in; rejected: {counts})")
        write(kept, "data/clean", QUERY)
        write(rejected, "data/rejected/clean", REJECTED_QUERY)
        metrics.update(kept=len(kept), rejected=counts)
    say("clean", f"kept {len(kept)} of {len(queries)}; dropped {counts}")


if __name__ == "__main__":
    provenance.run(main)
