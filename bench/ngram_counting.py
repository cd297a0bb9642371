"""Token n-gram counting on a data set, against Python's Counter on a slice; checks that results agree.

python -m bench.ngram_counting SCALE: on SCALE times 200 million tokens, one core, a sketch of 256 MB.
"""

import sys
import time
from collections import Counter

import numpy as np

from bench import synthetic_corpus
from bench.measure import Line, forget_peak, peak_memory
from distillery.corpus.token_ngrams import Responses, repeated

TOKENS, LENGTH, N, MOST, MEMORY = 200_000_000, 3400, 20, 20, 256
SLICE = 1_000_000


def plain(ids: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> list[bool]:
    """Which responses contain a too frequent n-gram, using a Counter."""
    responses = [ids[a:b].tolist() for a, b in zip(begins, ends, strict=True)]
    counts = Counter(tuple(r[i : i + N]) for r in responses for i in range(len(r) - N + 1))
    return [any(counts[tuple(r[i : i + N])] > MOST for i in range(len(r) - N + 1)) for r in responses]


def seconds_of(responses: Responses) -> tuple[float, np.ndarray]:
    begun = time.process_time()
    (guilty,) = repeated(lambda: iter([responses]), N, MOST, MEMORY)
    return time.process_time() - begun, guilty


def measure(scale: float) -> list[Line]:
    rng = np.random.default_rng(0)
    lengths = np.full(round(TOKENS * scale) // LENGTH, LENGTH)
    ids, ends = synthetic_corpus.tokens_of(rng, lengths), np.cumsum(lengths)
    begins = ends - lengths
    few = ends <= SLICE
    few_begins = begins[few]
    for begin in few_begins[: 3 * MOST]:  # enough repeats for the slice alone
        ids[begin + 20 : begin + 50] = np.arange(30)
    part = (ids[:SLICE], few_begins, ends[few])
    seconds_of(part)
    before = forget_peak()
    ours, guilty = seconds_of((ids, begins, ends))
    memory = peak_memory("self") - before
    _, guilty_few = seconds_of(part)
    begun = time.process_time()
    expected = plain(*part)
    theirs = time.process_time() - begun
    same = "results agree" if guilty_few.tolist() == expected else "results DIFFER"
    rate, peer = len(ids) / ours / 1e6, SLICE / theirs / 1e6
    figures = f"{rate:.1f} M tokens/s per core, {memory:.0f} MB excluding tokens, {guilty.sum()} of {len(lengths)} responses"
    about = f"Counter on {SLICE / 1e6:g} M tokens: {peer:.2f} M tokens/s; {same}"
    return [Line(f"n-grams counted, {len(ids) / 1e6:.0f} M tokens", figures, about, f"{rate / peer:.0f} x")]


if __name__ == "__main__":
    for line in measure(float(sys.argv[1])):
        print(*vars(line).values(), sep=" | ")
