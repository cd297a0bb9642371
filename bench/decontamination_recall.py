"""Recall of decontamination on planted benchmark questions, by method and kind of change, and its false positives.

python -m bench.decontamination_recall EMBEDDER ITEMS.jsonl... --among ROWS.jsonl...: plants each item (its `problem` or
`prompt`) among 100,000 rows, unchanged and changed in four ways; rows come from the files, and the rest
is synthetic.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

import numpy as np
import pyarrow as pa

from bench import synthetic_corpus
from distillery.core.files import read_json_lines
from distillery.core.schemas import QUERY
from distillery.corpus.benchmark_index import Benchmarks
from distillery.corpus.word_ngrams import suspects
from stages.similarity import nearest

COSINES = (0.8, 0.85, 0.9, 0.95)
FIELDS = ("problem", "prompt", "question", "text")
NAMES = ["Alice", "Ben", "Carla", "Dmitri", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jonas"]
SYNONYMS = {
    "Find": "Determine",
    "find": "determine",
    "Let": "Suppose that",
    "How many": "What is the number of",
    "Compute": "Work out",
    "Evaluate": "Give the value of",
    "What is": "State",
    "positive integers": "natural numbers above zero",
    "such that": "with the property that",
    "Suppose": "Assume",
    "the sum of": "what one gets by adding",
    "the number of": "how many there are of",
    "Each": "Every",
    "is equal to": "equals",
}


def spelt(rng: Random, text: str) -> str:
    """Different whitespace, LaTeX notation and thousands separators."""
    text = re.sub(r"\\\\?[dt]?frac", r"\\dfrac", text).replace("\\left", "").replace("\\right", "")
    text = re.sub(r"\\dfrac\{(\d)\}\{(\d)\}", r"\\dfrac\1\2", text)
    text = re.sub(r"(?<![\d.])(\d{1,3})(\d{3})(?!\d)", r"\1{,}\2", text)
    text = re.sub(r"\$([^$]+)\$", r"\\( \1 \\)", text).replace("\\le ", "\\leq ").replace("\\dots", "\\ldots")
    return "  ".join(text.split(" ")).replace(". ", ".\n")


def renamed(rng: Random, text: str) -> str:
    """Other numbers of the same length; capitalised mid-sentence words become other names."""
    text = re.sub(r"\d+", lambda found: str(rng.randrange(10 ** (len(found[0]) - 1), 10 ** len(found[0]))), text)
    return re.sub(r"(?<=[a-z,] )[A-Z][a-z]+", lambda _: rng.choice(NAMES), text)


def halved(rng: Random, text: str) -> str:
    parts = text.split(" ")
    return " ".join(parts[: max(len(parts) // 2, 1)])


def reworded(rng: Random, text: str) -> str:
    """Synonyms for common phrases, and the last sentence moved first."""
    for word, other in SYNONYMS.items():
        text = re.sub(rf"\b{word}\b", other, text)
    sentences = re.split(r"(?<=[.?]) ", text)
    return " ".join([sentences[-1], *sentences[:-1]])


KINDS: dict[str, Callable[[Random, str], str]] = {
    "verbatim": lambda rng, text: text,
    "spacing and LaTeX": spelt,
    "names and numbers": renamed,
    "first half": halved,
    "reworded": reworded,
}


def text_of(row: dict[str, str]) -> str:
    return next(row[field] for field in FIELDS if field in row)


def methods(texts: list[str], benchmarks: Benchmarks, cosines: np.ndarray) -> list[set[str]]:
    """The methods that detect each text; an `exact` match also counts as `ngram`."""
    messages = pa.array([[{"role": "user", "content": text}] for text in texts], QUERY.field("messages").type)
    found: list[set[str]] = [{f"cosine > {limit}" for limit in COSINES if cosine > limit} for cosine in cosines]
    for row in np.flatnonzero(suspects(messages, benchmarks.index)):
        match = benchmarks.match(texts[row])
        found[row] |= {"exact", "ngram"} if match and match[0] == "exact" else {match[0]} if match else set()
    for each in found:
        each |= {"exact, ngram or cosine > 0.9"} if each & {"exact", "ngram", "cosine > 0.9"} else set()
    return found


def main() -> None:
    from sentence_transformers import SentenceTransformer

    parser = argparse.ArgumentParser(prog="bench.decontamination_recall")
    parser.add_argument("embedder")
    parser.add_argument("items", nargs="+")
    parser.add_argument("--among", nargs="*", default=[])
    parser.add_argument("--rows", type=int, default=100_000)
    asked = parser.parse_args()
    questions = [text_of(row) for path in asked.items for row in read_json_lines(path)]
    benchmarks = Benchmarks([{"id": f"b-{i}", "question": q} for i, q in enumerate(questions)], 10, 8, 0.6)
    rng, writer = Random(0), synthetic_corpus.Writer(0)
    planted = [(kind, change(rng, question)) for kind, change in KINDS.items() for question in questions]
    others = [("real", text_of(row)) for path in asked.among for row in read_json_lines(path)]
    made = [("synthetic", writer.question("math")) for _ in range(asked.rows - len(planted) - len(others))]
    rows = planted + others + made
    model = SentenceTransformer(asked.embedder)
    embed = partial(model.encode, batch_size=128, normalize_embeddings=True, show_progress_bar=False)
    texts = [text for _, text in rows]
    _, cosines = nearest(embed(texts), embed(questions))
    counts: dict[str, Counter[str]] = {}
    for (kind, _), found in zip(rows, methods(texts, benchmarks, cosines), strict=True):
        counts.setdefault(kind, Counter())["rows"] += 1
        counts[kind].update(found)
    columns = ["exact", "ngram", *(f"cosine > {limit}" for limit in COSINES), "exact, ngram or cosine > 0.9"]
    print(" | ".join(["kind", "rows", *columns]))
    for kind, count in counts.items():
        shares = (f"{100 * count[column] / count['rows']:.2f} %" for column in columns)
        print(" | ".join([kind, str(count["rows"]), *shares]))


if __name__ == "__main__":
    main()
