"""Whether load changes verdicts: the same programs alone, and next to busy processes.

python -m bench.load [BUSY]: programs whose CPU time is between a fifth and five times the limit, verified alone and then with
BUSY (4) endless processes per core. Verdicts that differ are printed.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

from distillery.verification.code_verifier import CodeVerifier
from distillery.verification.sandbox.sandbox import Limits
from distillery.verification.verdict import Item, Verdict

SECONDS, WORKERS = 0.5, 2
SHARES = [0.2 + 0.01 * i for i in range(60)] + [1.2 + 0.02 * i for i in range(140)]
"""CPU time of each program, in limits: 71 of 200 are within a factor of two, none within a fifth of it."""
PROGRAM = "import time\nwhile time.process_time() < {}: pass\nprint(6)"


def verdicts(verifier: CodeVerifier) -> list[Verdict]:
    tests = json.dumps({"inputs": [""], "outputs": ["6"]})
    items = [Item(str(share), "code", PROGRAM.format(share * SECONDS), test_cases=tests) for share in SHARES]
    return [future.result() for future in [verifier.verify(item) for item in items]]


def main(busy: int) -> None:
    with closing(CodeVerifier(Limits(SECONDS, 256, 1, 16), WORKERS)) as verifier:
        print(verifier.notice)
        start = time.monotonic()
        alone = verdicts(verifier)
        print(f"alone: {Counter(each.verdict for each in alone)}, {time.monotonic() - start:.0f} s")
        endless = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy * (os.cpu_count() or 1))]
        try:
            start = time.monotonic()
            beside = verdicts(verifier)
        finally:
            for process in endless:
                process.kill()
        print(f"with {len(endless)} busy processes: {Counter(v.verdict for v in beside)}, {time.monotonic() - start:.0f} s")
    for share, one, other in zip(SHARES, alone, beside, strict=True):
        if one.verdict != other.verdict:
            print(f"{share:.2f} limits: {one.verdict} alone, {other.verdict} under load: {other.reason}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
