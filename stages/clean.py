"""clean: removes duplicates and unsuitable queries. Every removed row is kept with its reason.

The rules, in this order, over the user's and assistant's texts of a query together:

- ``turns``: turns do not alternate from user to user.
- ``empty``: fewer characters than ``min_characters``.
- ``unicode_ratio``: more than that share of the characters is neither letter, digit, mark, punctuation, space nor a sign
  of mathematics.
- ``incomplete``: an odd number of code fences, the last of which opens a block; outside code, more ``\\begin{`` than
  ``\\end{`` or the other way, ``\\[`` or ``\\(`` without its other half, or an odd number of ``$$`` with LaTeX; or an
  end in mid-sentence: on a comma, an opening bracket that is not a smiley, or a word that no sentence ends on (and, or, but,
  the, an, then, because).
- ``url``, ``table`` (Markdown, HTML, LaTeX, tab-separated), ``image`` (embedded, a file's name, or "shown in the figure"
  without one drawn in Asymptote or TikZ), each outside code.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Le
from numba import njit

from distillery.core import config
from distillery.core.config import NonNegative, Section
from distillery.core.errors import DataError
from distillery.core.files import atomic_dir
from distillery.core.progress import in_words, log
from distillery.core.runner import map_parts, sum_counts
from distillery.core.schemas import QUERY, REJECTED_QUERY
from distillery.core.stage import record_metrics, run_stage
from distillery.core.tables import part_name, part_paths, read_part, write_part
from distillery.corpus.arrow_text import ODD, SPACE, as_before, classes, combine_chunks, decode, flat, joined, out_of_turn

CODE = r"(?s)```.*?(?:```|\z)|~~~.*?(?:~~~|\z)|`[^`\n]*`"
OPEN_FENCE = r"(?s)```[^\n`]*\n(?:[^`]|`{1,2}(?:[^`]|\z))*\z"
URL = r"(?i)(?:https?|ftp)://[^\s]|\bwww\.[\w-]+\.\w{2,}"
TABLE = "|".join(
    (
        r"(?m:^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?[ \t]*$)",
        r"(?i:<table\b)",
        r"\\begin\{(?:tabular|tabularx|longtable)[*]?\}",
        r"(?m:(?:^[^\t\n]+(?:\t[^\t\n]+){2,}$\n?){2,})",
    )
)
_FILE = r"\b[\w-]+\.(?:png|jpe?g|gif|svg|webp|bmp|tiff?)\b"
EMBEDDED = rf"(?i)!\[[^\]\n]*\]\([^)\n]+\)|<img\b|\\includegraphics\b|data:image/|{_FILE}"
_PICTURE = r"(?:figure|diagram|image|picture|photo|photograph|illustration|drawing)s?"
SHOWN = "|".join(
    (
        rf"(?i)\b(?:shown|depicted|pictured|illustrated)\s+(?:in|on|by)\s+(?:the|this)\s+(?:\w+\s+)?{_PICTURE}\b",
        rf"\b(?:in|see|from|refer to|consider|look at)\s+(?:the|this)\s+{_PICTURE}\s+(?:shown\s+)?(?:below|above|at right)\b",
        rf"\bthe\s+(?:following|accompanying|attached)\s+{_PICTURE}\b",
        r"(?:\A|[^例比譬])如[右左下上]?图(?:所示|中|[，,。：:\d])|[下上右左]图(?:所示|中|[，,。：:])|(?:\A|[，。；、\s])图中",
    )
)
SUSPECT = "|".join(
    (
        r"(?i)://|\bwww\.|-[ \t:]*\||\|[ \t:]*-|<table|\\begin\{|\t|!\[|<img|\\includegraphics|data:image",
        r"\.(?:png|jpe?g|gif|svg|webp|bmp|tif)",
    )
)
PICTURED = r"(?i)figure|diagram|image|picture|photo|illustration|drawing|图"
DRAWN = r"\[asy\]|```asy|\\begin\{(?:tikzpicture|tikzcd|asy|asypicture)\}"
JOINING = ("and", "or", "but", "the", "an", "then", "because")
MID_SENTENCE = rf"(?:[,，、（{{]|(?:\A|[^:;=-])\(|(?:\A|[\s(（,;:])(?:{'|'.join(JOINING)}))\s*\z"
REASONS = ("turns", "empty", "unicode_ratio", "incomplete", "url", "table", "image", "duplicate")
LONGEST_END = 64


@dataclass(frozen=True)
class Clean(Section):
    """Requirements on queries."""

    max_unicode_ratio: Annotated[float, Ge(0), Le(1)]
    """The highest share of characters that are not letters, digits, marks, punctuation, spaces or signs of mathematics."""
    min_characters: NonNegative
    """The shortest query, in characters, white space at the ends left out."""


@njit(cache=True, nogil=True)
def measured(data: np.ndarray, borders: np.ndarray, flags: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each text's characters, those without outer white space, and the odd ones: three arrays of int64, (texts,)."""
    rows = len(borders) - 1
    characters, inner, odd = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    for row in range(rows):
        i, first, last = borders[row], -1, -1
        while i < borders[row + 1]:
            point, i = decode(data, i)
            flag = flags[point]
            if flag != SPACE:
                first = characters[row] if first < 0 else first
                last = characters[row]
                odd[row] += flag == ODD
            characters[row] += 1
        inner[row] = last - first + 1 if first >= 0 else 0
    return characters, inner, odd


@njit(cache=True, nogil=True)
def unbalanced(data: np.ndarray, borders: np.ndarray) -> np.ndarray:
    """Which texts of LaTeX lack a half of ``\\[ \\]``, ``\\( \\)``, ``\\begin{ \\end{`` or ``$$ $$``; bool, (texts,)."""
    out = np.zeros(len(borders) - 1, np.bool_)
    for row in range(len(out)):
        i, end = borders[row], borders[row + 1]
        display = inline = environments = dollars = 0
        while i < end - 1:
            byte, after = data[i], data[i + 1]
            if byte == 92:  # a backslash, which is read with the byte after it
                display += (after == 91) - (after == 93)
                inline += (after == 40) - (after == 41)
                if after == 98 and end - i > 6 and data[i + 2] == 101 and data[i + 3] == 103 and data[i + 6] == 123:
                    environments += 1
                if after == 101 and end - i > 4 and data[i + 2] == 110 and data[i + 3] == 100 and data[i + 4] == 123:
                    environments -= 1
                i += 2
            elif byte == 36 and after == 36:
                dollars += 1
                i += 2
            else:
                i += 1
        out[row] = display != 0 or inline != 0 or environments != 0 or dollars % 2 == 1
    return out


def found(texts: pa.Array, pattern: str) -> np.ndarray:
    """Which texts a pattern (RE2) matches somewhere; bool, (texts,)."""
    return pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)


def within(texts: pa.Array, some: np.ndarray, pattern: str) -> np.ndarray:
    """The same, looked for only in ``some`` of the texts: a slow pattern where a quick one found something."""
    hit = np.zeros(len(texts), bool)
    hit[some] = found(texts.filter(pa.array(some)), pattern) if some.any() else False
    return hit


def ends(texts: pa.Array) -> pa.Array:
    return pc.utf8_slice_codeunits(pc.utf8_rtrim_whitespace(texts), -LONGEST_END)


def without_code(texts: pa.Array) -> pa.Array:
    """The texts with code replaced by a space."""
    marked = pc.match_substring_regex(texts, "`|~~~")
    prose = pc.replace_substring_regex(texts.filter(marked), CODE, " ")
    return pc.replace_with_mask(texts, marked, prose)


def incomplete(texts: pa.Array, prose: pa.Array) -> np.ndarray:
    """Which texts are incomplete; the module's docstring has the rule."""
    fences = pc.count_substring(texts, "```").to_numpy(zero_copy_only=False) % 2 == 1
    fences = within(texts, fences, OPEN_FENCE)
    latex = found(prose, r"\\[\[\]()be]|\$\$.*\\[a-zA-Z]|\\[a-zA-Z].*\$\$")
    open_latex = np.zeros(len(texts), bool)
    open_latex[latex] = unbalanced(*flat(prose.filter(pa.array(latex)))) if latex.any() else False
    return fences | open_latex | found(ends(texts), MID_SENTENCE)


def reasons(messages: pa.Array, settings: Clean) -> np.ndarray:
    """Why each row is removed, as an index into REASONS; -1 where it is kept, duplicates not considered; int8, (rows,)."""
    texts = pc.replace_substring(joined(messages), "\r\n", "\n")
    prose = without_code(texts)
    characters, inner, odd = measured(*flat(texts), classes())
    suspect, shown = found(prose, SUSPECT), found(prose, PICTURED) & ~found(texts, DRAWN)
    rules = {
        "turns": out_of_turn(messages),
        "empty": inner < settings.min_characters,
        "unicode_ratio": odd > settings.max_unicode_ratio * characters,
        "incomplete": incomplete(texts, prose),
        "url": within(prose, suspect, URL),
        "table": within(prose, suspect, TABLE),
        "image": within(prose, suspect, EMBEDDED) | within(prose, shown, SHOWN),
    }
    why = np.full(len(texts), -1, np.int8)
    for name in reversed(rules):
        why[rules[name]] = REASONS.index(name)
    return why


@njit(cache=True, nogil=True)
def mark_duplicates(same: np.ndarray, why: np.ndarray, duplicate: int) -> None:
    """Of equal rows, which are adjacent (``same``: as the one before), all after the first one kept are duplicates."""
    kept = False
    for row in range(len(why)):
        kept = kept and same[row]
        if kept:
            why[row] = duplicate
        kept = kept or why[row] < 0


def clean(queries: pa.Table, settings: Clean) -> tuple[pa.Table, pa.Table]:
    """Splits queries, sorted by id, into kept and rejected; of equal queries the first that passes is kept."""
    why = reasons(combine_chunks(queries["messages"]), settings)
    mark_duplicates(as_before(queries["id"]), why, REASONS.index("duplicate"))
    rejected = queries.filter(pa.array(why >= 0))
    names = pa.array(REASONS).take(pa.array(why[why >= 0]))
    return queries.filter(pa.array(why < 0)), rejected.append_column("reason", names).cast(REJECTED_QUERY)


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}


def clean_part(settings: Clean, sources: list[Path], kept_to: Path, rejected_to: Path, part: int) -> dict[str, Any]:
    """Cleans one part; the counts of its rows."""
    kept, rejected = clean(read_part(sources[part], QUERY), settings)
    write_part(kept, kept_to / part_name(part))
    write_part(rejected, rejected_to / part_name(part))
    return {"kept": len(kept), "rejected": counts(rejected["reason"])}


def main() -> None:
    settings = config.load(Clean, "clean")
    with record_metrics("metrics/clean.json", "numba", "pyarrow") as (metrics, _):
        sources = part_paths("data/raw")
        with atomic_dir("data/clean") as kept_to, atomic_dir("data/rejected/clean") as rejected_to:
            results = map_parts("clean", partial(clean_part, settings, sources, kept_to, rejected_to), len(sources))
            kept, rejected = sum(part["kept"] for part in results), sum_counts([part["rejected"] for part in results])
            if not kept:
                raise DataError(f"data/raw: no query is left after cleaning (rejected: {rejected})")
        metrics.update(kept=kept, rejected=rejected)
    log("clean", f"kept {kept} of {kept + sum(rejected.values())}; removed {in_words(rejected)}")


if __name__ == "__main__":
    run_stage(main)
