"""Words as hashes, and finding in many texts the few that share word n-grams with a benchmark.

A word is a run of letters and digits, after compatibility decomposition and case folding and without accents, so that
`é`, `E` and `e` are equal. A Han or kana character is a word of its own; `1,000` and `1{,}000` are the word `1000`. Of
LaTeX, equivalent spellings are equal (`\\dfrac12` and `\\frac{1}{2}`) and layout commands (`\\left`, `\\quad`,
`\\text`) are not words.

Words and n-grams are identified by 64-bit hashes; the chance of a collision among 10^12 pairs is 5 in 10^8.
"""

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit

from distillery.corpus.arrow_text import contents, decode, flat

POINTS = 0x30000
SEPARATOR, PART, ALONE, NOTHING = 0, 1, 2, 3
_ALONE = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FFFF))
LAYOUT = """left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr displaystyle textstyle limits nolimits quad qquad
    text textbf textit textrm mathrm mathbf mathit mathsf operatorname rm bf it boldsymbol hspace vspace hfill noindent
    emph underline"""
SPELLINGS = """dfrac frac tfrac frac cfrac frac dbinom binom tbinom binom leq le geq ge leqslant le geqslant ge neq ne
    to rightarrow ldots dots cdots dots dotsc dots dotsb dots lvert vert rvert vert mid vert degree circ"""
FIRST, PRIME = -3750763034362895579, 1099511628211
BASE = -7046029254386353131
BITS = 22


class Lexicon(NamedTuple):
    """The kernels' tables of characters and LaTeX commands."""

    kinds: np.ndarray
    """The kind of every code point below POINTS."""
    starts: np.ndarray
    """Where its folded code points begin in ``folded``."""
    folded: np.ndarray
    """Folded code points, concatenated; a 0 ends a word."""
    commands: np.ndarray
    """Hashes of the commands that have another spelling or are layout, sorted."""
    becomes: np.ndarray
    """The hash that each of them becomes; 0 for layout, which is not a word."""
    taking_digits: np.ndarray
    """Hashes of the two commands that take a digit each where no brace follows."""


def fold(char: str) -> str:
    """A character decomposed and lowercased until nothing changes; marks and format characters are dropped."""
    before = ""
    while char != before:
        before, char = char, unicodedata.normalize("NFKD", char).casefold()
    return "".join(c for c in char if unicodedata.category(c) not in ("Mn", "Me", "Cf"))


def is_standalone_char(char: str) -> bool:
    """Whether a character is a word of its own, Han or kana."""
    return char.isalnum() and any(low <= ord(char) <= high for low, high in _ALONE)


def folding() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``kinds``, ``starts`` and ``folded`` of the `Lexicon`."""
    kinds, starts, folded = np.zeros(POINTS, np.uint8), np.zeros(POINTS + 1, np.int32), []
    for point in range(POINTS):
        char = chr(point)
        plain = "" if 0xD800 <= point < 0xE000 else fold(char)
        if plain and all(map(is_standalone_char, plain)):
            kinds[point] = ALONE
        elif any(map(str.isalnum, plain)):
            kinds[point] = PART
        elif unicodedata.category(char) in ("Mn", "Me", "Cf"):
            kinds[point] = NOTHING
        raised = unicodedata.decomposition(char).startswith(("<super>", "<sub>"))
        folded += [0] if raised else []
        for c in plain:
            folded += [0, ord(c), 0] if is_standalone_char(c) else [ord(c) if c.isalnum() else 0]
        starts[point + 1] = len(folded)
    return kinds, starts, np.array(folded, np.int32)


@njit(cache=True, nogil=True)
def _mixed(value: int) -> int:
    value ^= (value >> 33) & 0x7FFFFFFF
    value *= -49064778989728563
    return value ^ ((value >> 33) & 0x7FFFFFFF)


@njit(cache=True, nogil=True)
def _hash(points: np.ndarray) -> int:
    value = FIRST
    for point in points:
        value = (value ^ point) * PRIME
    return _mixed(value)


def name_hash(name: str) -> int:
    return int(_hash(np.array([ord(c) for c in name.casefold()], np.int64)))


def commands() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``commands``, ``becomes`` and ``taking_digits`` of the `Lexicon`."""
    pairs = SPELLINGS.split()
    becomes = {name_hash(name): 0 for name in LAYOUT.split()}
    becomes |= {name_hash(a): name_hash(b) for a, b in zip(pairs[::2], pairs[1::2], strict=True)}
    known = np.array(sorted(becomes), np.int64)
    taking = np.array([name_hash("frac"), name_hash("binom")], np.int64)
    return known, np.array([becomes[key] for key in known.tolist()], np.int64), taking


@cache
def lexicon() -> Lexicon:
    return Lexicon(*folding(), *commands())


@njit(cache=True, nogil=True)
def _thousands(data, first, i, end):
    """Where a number that began at byte ``first`` continues after ``,``, ``{,}`` or ``,\\!`` at ``i``; ``i`` where it does not.

    A plain comma after an opening bracket, a sign or another comma does not continue it: ``(1,100)`` is a pair.
    """
    braced = i + 2 < end and data[i] == 123 and data[i + 1] == 44 and data[i + 2] == 125
    narrow = i + 2 < end and data[i] == 44 and data[i + 1] == 92 and data[i + 2] == 33
    listed = first > 0 and data[first - 1] in (40, 91, 123, 45, 44)
    if not braced and not narrow and (listed or data[i] != 44):
        return i
    after = i + 3 if braced or narrow else i + 1
    before, digits = 1, 0
    while i - before > first and 48 <= data[i - before - 1] <= 57:
        before += 1
    while after + digits < end and 48 <= data[after + digits] <= 57:
        digits += 1
    return after if before <= 3 and digits == 3 else i


@njit(cache=True, nogil=True)
def _words(data, start, end, lexicon, out, count):
    """Appends the words of one text to ``out`` from ``count`` on; the new count."""
    kinds, starts, folded, known, becomes, pairs = lexicon
    value, size, command = FIRST, 0, False
    first, number, apart = 0, False, 0
    i = start
    while i <= end:
        if number and i < end:
            i = _thousands(data, first, i, end)
        begins = i < end and data[i] == 92
        kind, point = SEPARATOR, 0
        if i < end:
            point, after = decode(data, i)
            kind = kinds[point] if point < POINTS else SEPARATOR
        else:
            after = i + 1
        letter = (65 <= point <= 90) or (97 <= point <= 122)
        digit = 48 <= point <= 57
        if size and (kind in (SEPARATOR, ALONE) or (command and not letter)):
            word = _mixed(value)
            if command:
                at = np.searchsorted(known, word)
                if at < len(known) and known[at] == word:
                    word = becomes[at]
                apart = 2 if word == pairs[0] or word == pairs[1] else 0
            if word != 0:
                out[count] = word
                count += 1
            value, size, command = FIRST, 0, False
        if not digit and not letter and point != 32:
            apart = 0
        first = first if size else i
        if kind in (ALONE, PART):
            for j in range(starts[point], starts[point + 1]):
                if folded[j]:
                    value = (value ^ folded[j]) * PRIME
                    size += 1
                elif size:
                    out[count] = _mixed(value)
                    count += 1
                    value, size = FIRST, 0
            if (kind == ALONE or apart) and size:
                apart = max(apart - 1, 0)
                out[count] = _mixed(value)
                count += 1
                value, size = FIRST, 0
        elif begins:
            command = i + 1 < end and (65 <= data[i + 1] <= 90 or 97 <= data[i + 1] <= 122)
        elif kind == SEPARATOR:
            command = False
        number = digit and (size == 1 or (number and size > 1))
        i = after
    return count


def words(text: str) -> np.ndarray:
    """The words of one text as hashes, int64, (words,)."""
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    out = np.empty(4 * len(data) + 20, np.int64)
    return out[: _words(data, 0, len(data), lexicon(), out, 0)].copy()


@njit(cache=True, nogil=True)
def sequence_hash(tokens: np.ndarray) -> int:
    """The hash of a whole sequence of words."""
    value = len(tokens)
    for token in tokens:
        value = _mixed(value * BASE + token)
    return value


@njit(cache=True, nogil=True)
def gram_hashes(tokens: np.ndarray, n: int) -> np.ndarray:
    """The hash of every n-gram of a sequence of words, int64, (words - n + 1,)."""
    count = max(len(tokens) - n + 1, 0)
    out = np.empty(count, np.int64)
    power = 1
    for _ in range(n):
        power *= BASE
    value = 0
    for i in range(len(tokens)):
        value = value * BASE + tokens[i]
        if i >= n:
            value -= power * tokens[i - n]
        if i >= n - 1:
            out[i - n + 1] = _mixed(value + n)
    return out


class Index(NamedTuple):
    """The index to search for: sorted n-gram hashes of each size, sorted hashes of whole sequences, and a bit filter."""

    sizes: np.ndarray
    grams: np.ndarray
    sequences: np.ndarray
    bits: np.ndarray


def index_of(grams: dict[int, np.ndarray], sequences: np.ndarray) -> Index:
    hashes = np.unique(np.concatenate([np.empty(0, np.int64), *grams.values()]))
    bits = np.zeros(1 << BITS, np.bool_)
    bits[hashes & ((1 << BITS) - 1)] = True
    return Index(np.array(sorted(grams), np.int64), hashes, np.unique(sequences.astype(np.int64)), bits)


@njit(cache=True, nogil=True)
def _suspects(data, borders, rows, lexicon, index, longest):
    sizes, grams, sequences, bits = index
    out = np.zeros(len(rows) - 1, np.bool_)
    buffer = np.empty(4 * longest + 20, np.int64)
    mask = len(bits) - 1
    for row in range(len(out)):
        count = 0
        for i in range(rows[row], rows[row + 1]):
            count = _words(data, borders[i], borders[i + 1], lexicon, buffer, count)
        tokens = buffer[:count]
        whole = sequence_hash(tokens)
        at = np.searchsorted(sequences, whole)
        out[row] = at < len(sequences) and sequences[at] == whole
        for n in sizes:
            if out[row]:
                break
            power = 1
            for _ in range(n):
                power *= BASE
            value = 0
            for i in range(count):
                value = value * BASE + tokens[i]
                if i >= n:
                    value -= power * tokens[i - n]
                if i >= n - 1:
                    gram = _mixed(value + n)
                    if bits[gram & mask]:
                        at = np.searchsorted(grams, gram)
                        if at < len(grams) and grams[at] == gram:
                            out[row] = True
                            break
    return out


def suspects(messages: pa.Array, index: Index) -> np.ndarray:
    """Which rows' messages, taken together, are a sequence of the index or share an n-gram with it; bool, (rows,)."""
    said, rows = contents(messages)
    data, borders = flat(said)
    longest = int((borders[rows[1:]] - borders[rows[:-1]]).max(initial=0))
    return _suspects(data, borders, rows, lexicon(), index, longest)
