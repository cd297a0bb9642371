"""Synthetic corpus of any size with the study's lengths, languages, duplicates, defects and planted benchmark copies.

`queries` writes data/raw, partitioned and sorted as by `collect`, and data/benchmarks; `traces` the inputs of
`curate`: traces, tokens and perplexities of a teacher. The same seed gives the same bytes.
"""

import string
import sys
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa

from distillery.core.chat import identify
from distillery.core.files import atomic_dir, write_json_lines
from distillery.core.formats import STUDY
from distillery.core.response_parts import columns_of
from distillery.core.schemas import PERPLEXITY, QUERY, SIMILARITY, TRACE
from distillery.core.tables import part_name, part_paths, read_part, write_part
from distillery.corpus.external_sort import Buckets
from distillery.corpus.token_shards import DIALOGUES, ids_name, write_pad_token

FULL = 1_890_000
SHARES = {"math": 0.295, "code": 0.171, "science": 0.084, "if": 0.031, "multiturn": 0.2, "other": 0.219}
BENCHMARKS = {"aime2024": 30, "aime2025": 30, "math500": 500, "livecodebench": 279}
CHINESE = 0.12
VOCABULARY = 50_000
_HAN = [chr(0x4E00 + i) for i in range(3000)]
_SYMBOLS = ["\\frac{a}{b}", "x^2 + 1", "\\sqrt{n}", "|x|", "\\sum_{i=1}^{n} i", "P(A | B)", "\\left[0, 1\\right]", "3.5", "12"]


class Writer:
    """Draws sentences from a pool, so that 1.89 million queries take a minute."""

    def __init__(self, seed: int):
        self.rng = rng = Random(seed)
        vocabulary = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(8000)]
        zipf = list(accumulate(1 / (i + 3) for i in range(len(vocabulary))))
        self.sentences = [
            " ".join(rng.choices(vocabulary, cum_weights=zipf, k=rng.randint(7, 16))) + "." for _ in range(60_000)
        ]
        self.chinese = ["".join(rng.choices(_HAN, k=rng.randint(8, 30))) + "。" for _ in range(20_000)]
        self.formulas = [f"${' '.join(rng.choices(_SYMBOLS, k=3))}$" for _ in range(5000)]

    def prose(self, sentences: int) -> str:
        pool = self.chinese if self.rng.random() < CHINESE else self.sentences
        return " ".join(self.rng.choices(pool, k=sentences))

    def question(self, category: str) -> str:
        rng = self.rng
        text = f"{self.prose(max(1, round(rng.lognormvariate(1.3, 0.7))))} {rng.randrange(10**6)} ?"
        if category == "math":
            return f"{rng.choice(self.formulas)} {text} Find {rng.choice(self.formulas)}."
        if category == "code" and rng.random() < 0.6:
            return f"{text}\n```python\n# see https://docs.python.org/{rng.randrange(99)}\nprint({rng.randrange(999)})\n```"
        return text


def dirt(writer: Writer, text: str) -> str:
    """The text with a defect that cleaning must find."""
    kinds = (
        f"see https://example.org/{writer.rng.randrange(999)} : {text}",
        f"| a | b |\n|---|---|\n| 1 | 2 |\n{text}",
        f"{text} and",
        f"{text} As shown in the figure below.",
        "☃★☆♞♜" * 9 + text[:20],
        f"{text}\n```python\nprint(1)",
    )
    return writer.rng.choice(kinds)


def twin(rng: Random, question: str) -> str:
    """A benchmark question with other spacing and case, or inside other text."""
    spaced = "  ".join(question.upper().split(" "))
    return rng.choice((question, spaced, f"Solve this. {question} Explain each step."))


def benchmarks(writer: Writer) -> dict[str, list[dict[str, str]]]:
    def items(name: str, count: int) -> list[dict[str, str]]:
        category = "code" if name == "livecodebench" else "math"
        fields = ({"question": writer.question(category), "answer": "5", "difficulty": "1"} for _ in range(count))
        return [{"id": f"{name}-{i:04}"} | row for i, row in enumerate(fields, 1)]

    return {name: items(name, count) for name, count in BENCHMARKS.items()}


def rows(writer: Writer, count: int, questions: list[str]) -> Iterator[dict[str, object]]:
    rng, earlier = writer.rng, ["what is 1 + 1 ?"]
    names, weights = list(SHARES), list(SHARES.values())
    for _ in range(count):
        category, lot = rng.choices(names, weights)[0], rng.random()
        text = writer.question(category)
        if lot < 0.08:
            text = rng.choice(earlier).replace(" ", "  " if lot < 0.04 else " ")
        elif lot < 0.12:
            text = dirt(writer, text)
        elif lot < 0.121:
            text = twin(rng, rng.choice(questions))
        elif lot < 0.2:
            earlier.append(text)
        messages = [{"role": "user", "content": text}]
        if category == "multiturn":
            messages = [
                *messages,
                {"role": "assistant", "content": writer.prose(3)},
                {"role": "user", "content": writer.prose(1)},
            ]
        about: dict[str, object] = {"category": category, "source": "made", "ground_truth": str(rng.randrange(100))}
        yield about | {"id": identify(messages), "messages": messages}


def queries(count: int, seed: int = 0) -> None:
    """Writes data/benchmarks and data/raw."""
    writer = Writer(seed)
    made = benchmarks(writer)
    with atomic_dir("data/benchmarks") as folder:
        for name, items in made.items():
            write_json_lines(items, folder / f"{name}.jsonl")
    with atomic_dir("data/raw") as folder:
        spread = Buckets(folder)
        for row in rows(writer, count, [item["question"] for items in made.values() for item in items]):
            spread.add(row)
        for part, table in enumerate(spread.parts()):
            write_part(table, folder / part_name(part))


def similarities() -> None:
    """Writes data/similarity for data/clean, with all cosines zero: the embedder is not under test."""
    with atomic_dir("data/similarity") as folder:
        for part, path in enumerate(part_paths("data/clean")):
            ids = read_part(path, QUERY)["id"]
            columns = {"id": ids, "benchmark_item": ["aime2024-0001"] * len(ids), "cosine": np.zeros(len(ids), np.float32)}
            write_part(pa.table(columns, SIMILARITY), folder / part_name(part))


def tokens_of(rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
    """Zipf-distributed token ids, concatenated; one response in 500 contains the same run of 30."""
    ids = np.minimum(rng.zipf(1.2, int(lengths.sum())), VOCABULARY - 1).astype(np.uint32)
    for begin in (np.cumsum(lengths) - lengths)[(lengths > 60) & (rng.random(len(lengths)) < 0.002)]:
        ids[begin + 20 : begin + 50] = np.arange(30)
    return ids


def traces(teacher: str, mean_tokens: int, seed: int) -> None:
    """Writes a teacher's outputs for data/queries: traces, tokens (about ``mean_tokens`` per dialogue), perplexities."""
    rng, sources = np.random.default_rng(seed), part_paths("data/queries")
    words = np.array(Writer(seed).sentences)
    folders = [f"data/{name}/{teacher}" for name in ("traces", "tokens", "perplexity")]
    with atomic_dir(folders[0]) as said, atomic_dir(folders[1]) as tokens, atomic_dir(folders[2]) as scored:
        write_pad_token(tokens, 0)
        for part, path in enumerate(sources):
            ids = read_part(path, QUERY)["id"]
            passed = rng.random(len(ids)) < 0.95
            answered = ids.filter(pa.array(passed))
            count = len(answered)
            think, answer = words[rng.integers(0, len(words), count)], words[rng.integers(0, len(words), count)]
            texts = [f"<think> {a} </think> <answer> {b} </answer>" for a, b in zip(think, answer, strict=True)]
            parts = [columns_of(text, STUDY) for text in texts]
            columns = {field.name: pa.nulls(count, field.type) for field in TRACE} | {
                "query_id": answered,
                "teacher": [teacher] * count,
                "attempt": np.ones(count, np.int32),
                **{name: [row[name] for row in parts] for name in parts[0]},
                "finish_reason": ["stop"] * count,
                "completion_tokens": np.full(count, mean_tokens, np.int32),
                "verify_score": np.ones(count),
                "verdict": ["pass"] * count,
            }
            write_part(pa.table(columns, TRACE), said / part_name(part))
            prompts = rng.integers(5, 20, count)
            responses = np.maximum(rng.lognormal(np.log(mean_tokens) - 0.4, 0.9, count).astype(np.int64) - prompts, 20)
            np.save(tokens / ids_name(part), tokens_of(rng, prompts + responses))
            lengths = {"prompt_tokens": prompts, "response_tokens": responses}
            first = np.ones(count, np.int32)
            columns = {"query_id": answered, "attempt": first} | {name: each.astype(np.int32) for name, each in lengths.items()}
            columns["flaw"] = pa.nulls(count, pa.string())
            write_part(pa.table(columns, DIALOGUES), tokens / part_name(part))
            perplexity = 1 + rng.exponential(1.5, count)
            columns = {"query_id": answered, "attempt": first, "perplexity": perplexity, "fit": -np.log(perplexity)}
            write_part(pa.table(columns, PERPLEXITY), scored / part_name(part))


def settings(folder: Path, runner: str = "native") -> None:
    """Writes the params.yaml that the stages under test read."""
    lines = f"""runner: {runner}
seed: 0
unverified: false
arms: [a, b, c]
arm: {{}}
system_prompt: ''
student_format: study
train: {{packed: true, system_prompt: null}}
price: {{device_hour: null}}
clean: {{max_unicode_ratio: 0.3, min_characters: 4}}
decontaminate: {{ngram: 10, short_ngram: 8, min_overlap: 0.6, max_cosine: 0.9}}
parallel: {{files: parquet}}
collect: {{sources: {{}}}}
curate: {{ngram: 20, max_repeats: 20, max_repetition: 0.3, memory: 256}}
teachers: [a, b, c]
teacher:
  a: &teacher {{max_perplexity: 8.0, sampling: {{}}}}
  b: *teacher
  c: *teacher
verify: {{rules: {{}}}}
pack: {{window: 32768}}
analyse: {{spans: [1024, 2048, 4096, 8192, 16384]}}
"""
    (folder / "params.yaml").write_text(lines)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["similarities"]:
            similarities()
        case ["traces", teacher, mean_tokens, seed]:
            traces(teacher, int(mean_tokens), int(seed))
        case [count]:
            queries(int(count))
