"""Solutions per second, ten tests each: our sandbox against one plain subprocess per test, in the same run.

python -m bench.sandbox. Two workers on two cores. The plain subprocess isolates nothing, as in many graders.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from distillery.verification.code_verifier import CodeVerifier
from distillery.verification.sandbox.sandbox import Limits
from distillery.verification.verdict import Item

SOLUTIONS, TESTS, WORKERS, ROUNDS = 60, 10, 2, 3
PROGRAM = "import sys\nn = int(sys.stdin.readline())\nprint(sum(i * i for i in range(n)))\n"
INPUTS = [f"{10 * i}\n" for i in range(TESTS)]
OUTPUTS = [str(sum(i * i for i in range(int(given)))) for given in INPUTS]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "standard input": (PROGRAM, {"inputs": INPUTS, "outputs": OUTPUTS}),
    "function calls": (
        "def f(n):\n    return sum(i * i for i in range(n))\n",
        {"fn_name": "f", "inputs": [[int(i)] for i in INPUTS], "outputs": list(map(int, OUTPUTS))},
    ),
}


def in_sandbox(verifier: CodeVerifier, source: str, tests: dict) -> None:
    items = [Item(str(i), "code", source, test_cases=json.dumps(tests)) for i in range(SOLUTIONS)]
    verdicts = [future.result() for future in [verifier.verify(item) for item in items]]
    assert all(verdict.score == 1 for verdict in verdicts), verdicts[0]


def plain(_: int) -> None:
    for given, expected in zip(INPUTS, OUTPUTS, strict=True):
        done = subprocess.run([sys.executable, "-c", PROGRAM], input=given, capture_output=True, text=True, timeout=5)
        assert done.stdout.strip() == expected


def rate(work: Callable[[], object]) -> float:
    """Solutions per second, the best of several rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        start = time.monotonic()
        work()
        best = max(best, SOLUTIONS / (time.monotonic() - start))
    return best


def main() -> None:
    verifier = CodeVerifier(Limits(5.0, 512, 4, 32), WORKERS)
    print(verifier.notice)
    with ThreadPoolExecutor(WORKERS) as threads:
        beside = rate(lambda: list(threads.map(plain, range(SOLUTIONS))))
    print(f"plain subprocess per test: {beside:.1f} solutions/s")
    for name, (source, tests) in CASES.items():
        ours = rate(partial(in_sandbox, verifier, source, tests))
        print(f"sandbox, {name}: {ours:.1f} solutions/s, {ours / beside:.1f} times")
    verifier.close()


if __name__ == "__main__":
    main()
