"""Which benchmark question a query repeats, and in which words.

Two steps. A run of ``ngram`` words in common makes a question a candidate (of ``short_ngram`` for questions with fewer
words, all its words for those with fewer still). Then the overlap decides: the share of the question's words, or of the
query's where that is larger, that lie in common 3-grams. So a query is found that is a question with other names and
numbers, its first half, or holds it among other text, and one is not that shares a phrase with it.

What does not tell one question from another does not count: figure code, reminders in brackets, lists of short lettered
options, and 3-grams that ``COMMON`` questions share ("relatively prime positive integers"). Measured on real questions in
docs/log.md.
"""

import re
from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

import numpy as np

from distillery.corpus.word_ngrams import Index, gram_hashes, index_of, sequence_hash, words

SHORTEST = 4
OVERLAP_NGRAM = 3
COMMON = 5
FEWEST_WORDS = 6
"""A shorter text's overlap is a share of so many words: two or three in common are no evidence."""
TELLING_WORDS = 20
"""A text with fewer words beside its figure is about the figure, whose code then counts."""
LONGEST_SHOWN = 2000
FIGURE = re.compile(
    r"\[asy\](?:(?!\[/?asy\]).)*\[/asy\]|\\begin\{(asy|tikzpicture)\}(?:(?!\\(?:begin|end)\{(?:asy|tikzpicture)\}).)*\\end\{\1\}",
    re.S | re.I,
)
NOTE = re.compile(r"\((?:reminder|note|recall|hint)\b(?:[^()]|\([^()]*\)){0,500}\)", re.I)
OPTIONS = re.compile(r"(?:(?:\\\w+\{)?\([A-H]\)[^()\n]{0,40}){3,}")
CUT = "\0"


class Found(NamedTuple):
    """Why a query is removed."""

    reason: str
    item: str
    score: float
    """1 for ``exact``, the overlap for ``ngram``, the cosine for ``embedding``."""
    matched: str
    """The query's words that lie in common 3-grams."""


class Text:
    """A question or query without what does not tell it from others, and its n-grams."""

    def __init__(self, text: str):
        bare = OPTIONS.sub(CUT, NOTE.sub(CUT, text))
        told = FIGURE.sub(CUT, bare)
        self.text = told if len(words(told)) >= TELLING_WORDS else bare
        self.words = words(self.text)
        self.grams = gram_hashes(self.words, OVERLAP_NGRAM)

    def covered(self, grams: set[int]) -> np.ndarray:
        """Which words lie in one of the 3-grams; bool, (words,)."""
        inside = np.zeros(len(self.words), bool)
        for at in np.flatnonzero([gram in grams for gram in self.grams.tolist()]):
            inside[at : at + OVERLAP_NGRAM] = True
        return inside

    def excerpt(self, inside: np.ndarray) -> str:
        """The text of the words that are ``inside``, to the next spaces; runs of them are divided by an ellipsis."""
        chunks = [match.span() for match in re.finditer(r"\S+", self.text)]
        count = lambda chunk: len(words(self.text[: chunk[1]]))  # noqa: E731
        edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.view(np.int8), [0]]))).reshape(-1, 2)
        runs: list[tuple[int, int]] = []
        for first, last in edges.tolist():
            begin, end = bisect_right(chunks, first, key=count), bisect_right(chunks, last - 1, key=count)
            begin = runs.pop()[0] if runs and begin <= runs[-1][1] else begin
            runs.append((begin, min(end, len(chunks) - 1)))
        shown = " … ".join(self.text[chunks[begin][0] : chunks[end][1]] for begin, end in runs)
        return shown.replace(CUT, " … ")[:LONGEST_SHOWN]


class Benchmarks:
    """Every benchmark question, findable by its full text and by its n-grams. Items have ``id`` and ``question``."""

    def __init__(self, items: list[dict[str, str]], ngram: int, short_ngram: int, min_overlap: float):
        self.ngram, self.short_ngram, self.min_overlap = ngram, short_ngram, min_overlap
        self.names = [item["id"] for item in items]
        self.texts = [Text(item["question"]) for item in items]
        self.exact: dict[int, str] = {}
        self.by_gram: dict[int, dict[int, set[int]]] = {}
        for number, (item, text) in enumerate(zip(items, self.texts, strict=True)):
            whole = words(item["question"])
            if len(whole):
                self.exact.setdefault(int(sequence_hash(whole)), item["id"])
            self._add(number, text)
        counts = Counter(gram for text in self.distinct() for gram in set(text.grams.tolist()))
        self.common = {gram for gram, count in counts.items() if count >= COMMON}
        grams = {n: np.array(list(found), np.int64) for n, found in self.by_gram.items()}
        self.index: Index = index_of(grams, np.array(list(self.exact), np.int64))

    def distinct(self) -> list[Text]:
        """The questions, each once, even if two benchmarks have it."""
        return list({int(sequence_hash(text.words)): text for text in self.texts}.values())

    def _add(self, number: int, text: Text) -> None:
        runs = [words(run) for run in text.text.split(CUT)]
        n = min(self.size(len(text.words)), max(map(len, runs)))
        for run in runs if n >= SHORTEST else ():
            for gram in gram_hashes(run, n).tolist():
                self.by_gram.setdefault(n, {}).setdefault(gram, set()).add(number)

    def size(self, length: int) -> int:
        """The n-gram size used to search for a question of so many words; a very short one is matched as a whole."""
        return self.ngram if length >= self.ngram else min(self.short_ngram, length)

    def match(self, text: str) -> Found | None:
        """The question that a text repeats, or None."""
        tokens = words(text)
        same = self.exact.get(int(sequence_hash(tokens))) if len(tokens) else None
        if same:
            return Found("exact", same, 1.0, text[:LONGEST_SHOWN])
        candidates = {
            item
            for n, found in self.by_gram.items()
            for gram in gram_hashes(tokens, n).tolist()
            for item in found.get(gram, ())
        }
        query = Text(text)
        overlaps = {item: self.overlap(self.texts[item], query) for item in candidates}
        best = min(overlaps, key=lambda item: (-overlaps[item], self.names[item]), default=None)
        if best is None or overlaps[best] < self.min_overlap:
            return None
        inside = query.covered(set(self.texts[best].grams.tolist()))
        return Found("ngram", self.names[best], round(overlaps[best], 3), query.excerpt(inside))

    def overlap(self, item: Text, query: Text) -> float:
        """The larger share of the two texts' words that lie in common 3-grams; 1 where the question is in the query as a whole.

        Words that lie in 3-grams of many questions only are counted on neither side.
        """
        shared = set(item.grams.tolist()) & set(query.grams.tolist())
        if item.covered(shared).all():
            return 1.0
        return max(self._share(text, shared) for text in (item, query))

    def _share(self, text: Text, shared: set[int]) -> float:
        telling = text.covered(set(text.grams.tolist()) - self.common)
        return float(text.covered(shared - self.common).sum() / max(telling.sum(), FEWEST_WORDS))
