"""``python -m scripts.compile_kernels`` compiles numba's functions at installation: a first run would spend 20 s of CPU on it.

It runs what the stages run over two queries, so that their types are those of a run; numba keeps the result beside the code.
"""

from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from distillery.core.schemas import QUERY, SIMILARITY, TAKEN
from distillery.core.tables import write_table
from distillery.corpus.arrow_text import combine_chunks, out_of_turn
from distillery.corpus.benchmark_index import Benchmarks
from distillery.corpus.token_ngrams import repetition
from distillery.corpus.token_shards import ShardWriter, open_shard, write_pad_token
from stages.clean import Clean, clean
from stages.curate import Curate, repeated, responses
from stages.decontaminate import decontaminate
from stages.pack import pack

QUESTION = "how many apples does she have if she buys 1,000 and eats \\frac{1}{2} of them ?"
WINDOW = 16


def corpus() -> None:
    messages = [{"role": "user", "content": QUESTION}]
    queries = pa.Table.from_pylist(
        [{"id": key, "messages": messages, "category": "math", "source": "s"} for key in "ab"], QUERY
    )
    clean(queries, Clean(0.5, 1))
    near = pa.Table.from_pylist([{"id": key, "benchmark_item": "b-0", "cosine": 0.5} for key in "ab"], SIMILARITY)
    decontaminate(queries, near, Benchmarks([{"id": "b-0", "question": QUESTION}], 8, 4, 0.5), 0.9)
    out_of_turn(combine_chunks(queries["messages"]))


def tokens() -> None:
    folder = Path("data/tokens/t")
    folder.mkdir(parents=True)
    with ShardWriter(folder, 0, np.uint16) as writer:
        for key in "ab":
            writer.add(key, 1, list(range(WINDOW // 2)), 2, None)
    write_pad_token(folder, 0)
    repeated("t", Curate(2, 1, 0.5, 1))
    repetition(*responses(open_shard(folder, 0)), 2)
    write_table(({"query_id": key, "teacher": "t", "attempt": 1, "trains": True} for key in "ab"), "data/arms/a", TAKEN)
    Path("packed").mkdir()
    pack("a", Path("packed"), WINDOW, packed=True)


if __name__ == "__main__":
    with TemporaryDirectory() as place, chdir(place):
        corpus()
        tokens()
