"""Which benchmark question a query repeats, and in which words.

Two steps. A run of ``ngram`` words in common makes a question a candidate (of ``short_ngram`` for questions with fewer
words, all its words for those with fewer still). Then the overlap decides: the share of the question's words, or of the
query's where that is larger, that lie in common 3-grams. So a query is found that is a question with other names and
numbers, its first half, or holds it among other text, and one is not that shares a phrase with it.

What does not tell one question from another does not count: figure code, reminders in brackets, lists of short lettered
options, and what ``COMMON`` questions share ("relatively prime positive integers"). Words alone do not tell ``2+3`` from
``2-3``: where a question has few, its signs must be the same, too. Measured on real questions in docs/log.md.
"""

import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from distillery.corpus.word_ngrams import Index, gram_hashes, index_of, sequence_hash, words

SHORTEST = 4
"""Words of the shortest question that n-grams are made of; a shorter one is only found as a whole."""
OVERLAP_NGRAM = 3
COMMON = 5
"""What so many different questions share tells none of them from the others."""
FEWEST_WORDS = 8
"""A shorter text's overlap is a share of so many words: four in common are no evidence, whatever they are a share of."""
ENOUGH_WORDS = 20
"""A text with fewer words beside its figure is about the figure, whose code then counts."""
LONGEST_SHOWN = 2000
FIGURE = re.compile(
    r"\[asy\](?:(?!\[/?asy\]).)*\[/asy\]|\\begin\{(asy|tikzpicture)\}(?:(?!\\(?:begin|end)\{(?:asy|tikzpicture)\}).)*\\end\{\1\}",
    re.S | re.I,
)
NOTE = re.compile(r"\((?:reminder|note|recall|hint)\b(?:[^()]|\([^()]*\)){0,500}\)", re.I)
OPTIONS = re.compile(r"(?:(?:\\\w+\{)?\([A-H]\)[^()\n]{0,40}){3,}")
CUT = "\0"
"""Stands where a part was left out, so that no n-gram reaches across."""
SIGN = re.compile(r"-(?![A-Za-z]{2})|[+*/<>=!%]|(?<=\d)[.,](?=\d)(?!\d{3}(?!\d))")


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
        self.without_figures = FIGURE.sub(CUT, bare)
        self.text = self.without_figures if len(words(self.without_figures)) >= ENOUGH_WORDS else bare
        self.words = words(self.text)
        self.grams = gram_hashes(self.words, OVERLAP_NGRAM)

    def covered(self, grams: set[int]) -> np.ndarray:
        """Which words lie in one of the 3-grams; bool, (words,)."""
        begins = np.fromiter((gram in grams for gram in self.grams.tolist()), bool, len(self.grams))
        inside = np.zeros(len(self.words), bool)
        for shift in range(OVERLAP_NGRAM):
            inside[shift : shift + len(begins)] |= begins
        return inside

    def excerpt(self, inside: np.ndarray) -> str:
        """The text of the words that are ``inside``, to the next spaces; runs of them are divided by an ellipsis."""
        chunks = re.findall(r"\S+\s*", self.text)
        ends = np.cumsum([len(words(chunk)) for chunk in chunks])
        chosen = np.unique(np.minimum(np.searchsorted(ends, np.flatnonzero(inside), "right"), len(chunks) - 1))
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)
        shown = " … ".join("".join(chunks[i] for i in run).strip() for run in runs)
        return shown.replace(CUT, " … ")[:LONGEST_SHOWN]


def signs(text: str) -> str:
    """The arithmetic signs of a text and the points and commas within its numbers, in order."""
    return "".join(SIGN.findall(text))


class Benchmarks:
    """Every benchmark question, findable by its full text and by its n-grams. Items have ``id`` and ``question``."""

    def __init__(self, items: list[dict[str, str]], ngram: int, short_ngram: int, min_overlap: float):
        self.ngram, self.short_ngram, self.min_overlap = ngram, short_ngram, min_overlap
        self.names = [item["id"] for item in items]
        self.texts = [Text(item["question"]) for item in items]
        self.exact: dict[int, list[int]] = {}
        self.questions = [item["question"] for item in items]
        self.by_gram: dict[int, dict[int, set[int]]] = {}
        for number, (item, text) in enumerate(zip(items, self.texts, strict=True)):
            whole = words(item["question"])
            if len(whole):
                self.exact.setdefault(int(sequence_hash(whole)), []).append(number)
            self._add(number, text)
        self._leave_out_common_grams()
        counts = Counter(gram for text in self.distinct() for gram in set(text.grams.tolist()))
        self.common = {gram for gram, count in counts.items() if count >= COMMON}
        grams = {n: np.array(list(found), np.int64) for n, found in self.by_gram.items()}
        self.index: Index = index_of(grams, np.array(list(self.exact), np.int64))

    def distinct(self) -> list[Text]:
        """The questions, each once, even if two benchmarks have it."""
        return list({int(sequence_hash(text.words)): text for text in self.texts}.values())

    def _add(self, number: int, text: Text) -> None:
        """Files a question under its n-grams, with its figure and without, as copies may have it."""
        for version in {text.text, text.without_figures}:
            runs = [words(run) for run in version.split(CUT)]
            n = min(self.size(sum(map(len, runs))), max(map(len, runs)))
            for run in runs if n >= SHORTEST else ():
                for gram in gram_hashes(run, n).tolist():
                    self.by_gram.setdefault(n, {}).setdefault(gram, set()).add(number)

    def _leave_out_common_grams(self) -> None:
        """Forgets n-grams of many questions: they would make candidates of all of these."""
        same = [int(sequence_hash(text.words)) for text in self.texts]
        for found in self.by_gram.values():
            for gram in [gram for gram, items in found.items() if len({same[item] for item in items}) >= COMMON]:
                del found[gram]

    def size(self, length: int) -> int:
        """The n-gram size used to search for a question of so many words; a very short one is matched as a whole."""
        return self.ngram if length >= self.ngram else min(self.short_ngram, length)

    def match(self, text: str) -> Found | None:
        """The question that a text repeats, or None."""
        tokens = words(text)
        if same := self._same(text, tokens):
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

    def _same(self, text: str, tokens: np.ndarray) -> str | None:
        """The first question with the same words; where they are few, with the same signs as well."""
        for number in self.exact.get(int(sequence_hash(tokens)), ()) if len(tokens) else ():
            if len(tokens) >= FEWEST_WORDS or signs(text) == signs(self.questions[number]):
                return self.names[number]
        return None

    def overlap(self, item: Text, query: Text) -> float:
        """The larger share of the two texts' words that lie in common 3-grams; 1 where the question is in the query as a whole.

        Words that lie in 3-grams of many questions only are counted on neither side. A question of few words, with other signs
        or among other words, is another one.
        """
        shared = set(item.grams.tolist()) & set(query.grams.tolist())
        short = len(item.words) < FEWEST_WORDS
        if short and signs(item.text) != signs(query.text):
            return 0.0
        if not short and item.covered(shared).all():
            return 1.0
        return max(self._share(text, shared) for text in (item, query))

    def _share(self, text: Text, shared: set[int]) -> float:
        distinctive = text.covered(set(text.grams.tolist()) - self.common)
        return float(text.covered(shared - self.common).sum() / max(distinctive.sum(), FEWEST_WORDS))
