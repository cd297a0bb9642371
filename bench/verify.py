"""CPU time per answer of our mathematics verifier, and of Math-Verify called row by row, in the same run.

python -m bench.verify [FILE.jsonl]: rows with ``ground_truth`` and ``solution`` (their final answers follow "A:", as in
GSM8K's model solutions) and, if known, ``is_correct``. A harder synthetic mix always follows:
fractions, roots, intervals, matrices. Verdicts are comparable: shortcuts are taken only where they are sound.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from statistics import median

import psutil

from distillery.core.schemas import PASS
from distillery.verification.config import Rule, VerifyParams
from distillery.verification.math_verifier import prepare, wrap_latex
from distillery.verification.router import Router
from distillery.verification.sandbox.sandbox import Limits
from distillery.verification.verdict import Item

Pair = tuple[str, str]
HARD = 2000
ROUNDS = 5


def final(text: str) -> str:
    return text.rpartition("A:")[2].strip() if "A:" in text else text


def hard_pairs(rng: Random) -> Iterator[Pair]:
    """Reference and answer, half right and half wrong; half of the pairs occur more than once."""
    for i in range(HARD):
        a, b, c = rng.randint(2, 30), rng.randint(2, 30), rng.randint(1, 9)
        shift = rng.choice((0, 0, 1))
        yield (
            (rf"\frac{{{a}}}{{{b}}}", rf"\boxed{{\frac{{{a * c}}}{{{b * c + shift}}}}}"),
            (rf"\sqrt{{{a * a * b}}}", rf"\boxed{{{a + shift}\sqrt{{{b}}}}}"),
            (f"[{a},{a + b})", rf"\boxed{{[{a}, {a + b + shift})}}"),
            (
                rf"\begin{{pmatrix}}{a}&{b}\\{c}&1\end{{pmatrix}}",
                rf"\boxed{{\begin{{pmatrix}}{a}&{b}\\{c}&{1 + shift}\end{{pmatrix}}}}",
            ),
            (rf"{a}x^2+{b}x", rf"\boxed{{x({a}x+{b + shift})}}"),
        )[i % 5]


def cpu() -> float:
    """CPU seconds of this process and its live descendants, including the pool's processes."""
    below = psutil.Process().children(recursive=True)
    return time.process_time() + sum(sum(process.cpu_times()[:2]) for process in below)


def run(route: Router, pairs: list[Pair]) -> list[bool]:
    for i, (gold, answer) in enumerate(pairs):
        route.submit(Item(str(i), "math", answer, ground_truth=gold))
    found: dict[str, bool] = {}
    while len(found) < len(pairs):
        found.update((key, verdict.verdict == PASS) for key, verdict in route.poll(0.1))
    return [found[str(i)] for i in range(len(pairs))]


def ours(pairs: list[Pair]) -> tuple[list[bool], float]:
    """Verdicts, and CPU seconds excluding the start of the pool, which is new and has nothing cached."""
    limits = Limits(1.0, 64, 1, 8)
    with closing(Router(VerifyParams({"math": Rule("math", 1.0)}, 10.0, 2, limits, None, None))) as route:
        run(route, [(rf"\sqrt{{{i}}}", rf"\boxed{{\sqrt{{{i}}}+0}}") for i in range(2, 12)])
        before = cpu()
        return run(route, pairs), cpu() - before


def row_by_row(pairs: list[Pair]) -> list[bool]:
    from math_verify import parse, verify

    return [bool(verify(parse(wrap_latex(gold)), parse(wrap_latex(answer)))) for gold, answer in pairs]


def compare(name: str, pairs: list[Pair], correct: list[bool] | None = None) -> None:
    rounds = [ours(pairs) for _ in range(ROUNDS)]
    mine, fast = rounds[0][0], median(seconds for _, seconds in rounds)
    before = cpu()
    theirs = row_by_row(pairs)
    a, b = 1e6 * fast / len(pairs), 1e6 * (cpu() - before) / len(pairs)
    differ = sum(x != y for x, y in zip(mine, theirs, strict=True))
    print(f"{name}: {len(pairs)} pairs, ours {a:.0f} CPU-µs per item, row by row {b:.0f}, {b / a:.1f} times; {differ} differ")
    if correct:
        print(f"{name}: {sum(x == y for x, y in zip(mine, correct, strict=True))} of {len(pairs)} verdicts match labels")


def main(*files: str) -> None:
    prepare()
    start = time.monotonic()
    row_by_row([("1", "1")])  # imports and caches are not measured
    for file in files:
        rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
        labels = [row["is_correct"] for row in rows] if "is_correct" in rows[0] else None
        compare(Path(file).stem, [(final(row["ground_truth"]), final(row["solution"])) for row in rows], labels)
    compare("harder mix", list(hard_pairs(Random(0))))
    print(f"{time.monotonic() - start:.0f} s in total")


if __name__ == "__main__":
    main(*sys.argv[1:])
