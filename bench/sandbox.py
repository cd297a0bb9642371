"""Solutions per second, ten tests each: our sandbox against one plain subprocess per test, in the same run.

python -m bench.sandbox. Two at a time, on as many cores. The plain subprocess isolates nothing; it is what many graders do.
C++ is compiled once: the same source is verified again and again.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from distillery.verification.code_verifier import CodeVerifier
from distillery.verification.sandbox.sandbox import Limits
from distillery.verification.verdict import Item

SOLUTIONS, TESTS, WORKERS, ROUNDS = 60, 10, 2, 3
INPUTS = [f"{10 * i}\n" for i in range(TESTS)]
OUTPUTS = [str(sum(i * i for i in range(int(given)))) for given in INPUTS]
PROGRAM = "import sys\nn = int(sys.stdin.readline())\nprint(sum(i * i for i in range(n)))\n"
FUNCTION = "def f(n):\n    return sum(i * i for i in range(n))\n"
PYTEST = "import pytest\nfrom solution import f\n" + "".join(
    f"def test_{i}():\n    assert f({given.strip()}) == {wanted}\n"
    for i, (given, wanted) in enumerate(zip(INPUTS, OUTPUTS, strict=True))
)
CPP = """#include <bits/stdc++.h>
int main() { long long n, s = 0; std::cin >> n; for (int i = 0; i < n; i++) s += 1LL * i * i; std::cout << s; }
"""
CASES: dict[str, tuple[str, Any]] = {
    "standard input": (PROGRAM, {"inputs": INPUTS, "outputs": OUTPUTS}),
    "function calls": (FUNCTION, {"fn_name": "f", "inputs": [[int(i)] for i in INPUTS], "outputs": list(map(int, OUTPUTS))}),
    "functions of pytest's": (FUNCTION, PYTEST),
    "C++, the same source": (CPP, {"language": "cpp", "inputs": INPUTS, "outputs": OUTPUTS}),
}


def in_sandbox(verifier: CodeVerifier, source: str, tests: Any) -> None:
    cases = tests if isinstance(tests, str) else json.dumps(tests)
    items = [Item(str(i), "code", source, test_cases=cases) for i in range(SOLUTIONS)]
    verdicts = [future.result() for future in [verifier.verify(item) for item in items]]
    assert all(verdict.score == 1 for verdict in verdicts), verdicts[0]


def plain(command: list[str], _: int) -> None:
    """Every test in a process of its own."""
    for given, expected in zip(INPUTS, OUTPUTS, strict=True):
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=5)
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
    verifier = CodeVerifier(Limits(5.0, 512, 16, 32, ("pytest",)), WORKERS)
    print(verifier.notice)
    with ThreadPoolExecutor(WORKERS) as threads, tempfile.TemporaryDirectory() as folder:
        compiled = str(Path(folder) / "solution")
        subprocess.run(["g++", "-O2", "-x", "c++", "-", "-o", compiled], input=CPP.encode(), check=True)
        python = rate(lambda: list(threads.map(partial(plain, [sys.executable, "-c", PROGRAM]), range(SOLUTIONS))))
        cpp = rate(lambda: list(threads.map(partial(plain, [compiled]), range(SOLUTIONS))))
    print(f"plain subprocess per test: Python {python:.1f} solutions/s, C++ {cpp:.1f}")
    for name, (source, tests) in CASES.items():
        ours = rate(partial(in_sandbox, verifier, source, tests))
        beside = cpp if source == CPP else python
        print(f"sandbox, {name}: {ours:.1f} solutions/s, {ours / beside:.2f} times; {1000 * WORKERS / ours:.0f} ms each")
    verifier.close()


if __name__ == "__main__":
    main()
