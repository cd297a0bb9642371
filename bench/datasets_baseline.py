"""Baseline: the rules of clean and decontaminate, but for the overlap, row by row in Python with `datasets`.

Run in a folder with params.yaml, data/raw and data/benchmarks; writes the kept ids to peer.txt.
"""

import re
import unicodedata
from pathlib import Path
from typing import Any

from distillery.corpus.arrow_text import ROLES
from distillery.corpus.word_ngrams import LAYOUT, SPELLINGS, fold
from stages import clean as rules

SIGNS = {"Sm", "Sc", "Sk"}
HAN = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ffff])")
LAYOUT_WORDS = set(LAYOUT.split())
SPELT = dict(zip(SPELLINGS.split()[::2], SPELLINGS.split()[1::2], strict=True))
PATTERNS = {
    name: re.compile(getattr(rules, name).replace(r"\z", r"\Z"), re.ASCII)
    for name in ("CODE", "URL", "TABLE", "EMBEDDED", "SHOWN", "DRAWN", "MID_SENTENCE", "OPEN_FENCE")
}


def odd(char: str) -> bool:
    kind = unicodedata.category(char)
    return not char.isspace() and kind[0] in "SC" and kind not in SIGNS


def unbalanced(prose: str) -> bool:
    marks = re.findall(r"\\begin\{|\\end\{|\\.|\$\$", prose, re.DOTALL)
    latex = re.search(r"\\[\[\]()be]|\$\$.*\\[a-zA-Z]|\\[a-zA-Z].*\$\$", prose)
    pairs = (("\\begin{", "\\end{"), ("\\[", "\\]"), ("\\(", "\\)"))
    odd_marks = any(marks.count(a) != marks.count(b) for a, b in pairs) or marks.count("$$") % 2 == 1
    return bool(latex) and odd_marks


def is_rejected(text: str, roles: list[str]) -> bool:
    turns = [role for role in roles if role != "system"]
    if len(turns) % 2 == 0 or any(role != ROLES[i % 2] for i, role in enumerate(turns)) or len(text.strip()) < 4:
        return True
    if sum(map(odd, text)) > 0.3 * len(text):
        return True
    prose = PATTERNS["CODE"].sub(" ", text)
    if text.count("```") % 2 and PATTERNS["OPEN_FENCE"].search(text):
        return True
    if unbalanced(prose) or PATTERNS["MID_SENTENCE"].search(text.rstrip()[-rules.LONGEST_END :]):
        return True
    if any(PATTERNS[name].search(prose) for name in ("URL", "TABLE", "EMBEDDED")):
        return True
    return bool(PATTERNS["SHOWN"].search(prose)) and not PATTERNS["DRAWN"].search(text)


def command(match: re.Match[str]) -> str:
    name = match[1]
    return " " if name in LAYOUT_WORDS else f" {SPELT.get(name, name)} "


def words(text: str) -> tuple[str, ...]:
    text = re.sub(r"\\([A-Za-z]+)", command, text)
    plain = text.lower() if text.isascii() else HAN.sub(r" \1 ", "".join(map(fold, text)))
    return tuple(re.findall(r"[^\W_]+", plain))


def grams(tokens: tuple[str, ...], n: int) -> set[tuple[str, ...]]:
    return {tokens[i : i + n] for i in range(len(tokens) - n + 1)}


def size(length: int) -> int:
    return 10 if length >= 10 else min(8, length)


def main() -> None:
    from datasets import load_dataset

    known: dict[int, set[tuple[str, ...]]] = {}
    items = load_dataset("json", data_files=sorted(map(str, Path("data/benchmarks").glob("*.jsonl"))), split="train")
    questions = [words(question) for question in items["question"]]
    for tokens in questions:
        if (n := size(len(tokens))) >= 4:
            known.setdefault(n, set()).update(grams(tokens, n))
    exact = set(questions)

    def judge(row: dict[str, Any]) -> dict[str, bool]:
        text = "\n".join(turn["content"] for turn in row["messages"]).replace("\r\n", "\n")
        if is_rejected(text, [turn["role"] for turn in row["messages"]]):
            return {"sound": False, "twin": False}
        tokens = words(text)
        return {"sound": True, "twin": tokens in exact or any(not grams(tokens, n).isdisjoint(k) for n, k in known.items())}

    rows = load_dataset("parquet", data_files=sorted(map(str, Path("data/raw").glob("*.parquet"))), split="train")
    seen: set[str] = set()

    def first(key: str, sound: bool) -> bool:
        if not sound or key in seen:
            return False
        seen.add(key)
        return True

    judged = rows.map(judge, num_proc=2).filter(first, input_columns=["id", "sound"])
    kept = judged.filter(lambda twin: not twin, input_columns=["twin"], num_proc=2)
    kept.to_parquet("peer.parquet")
    Path("peer.txt").write_text("\n".join(kept["id"]))


if __name__ == "__main__":
    main()
