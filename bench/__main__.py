"""python -m bench [SCALE]: the corpus stages at SCALE times the study's size, against baselines, as one table.

Prints the table and writes it to metrics/bench.json. SCALE 0.1 takes minutes, 1 about twenty.
"""

import os
import sys
from dataclasses import asdict

from bench import cleaning, joint_stages, ngram_counting, packing
from bench.measure import table
from distillery.core.files import write_json
from distillery.core.stage import cpu, versions


def main(scale: float) -> None:
    lines = []
    for module in (cleaning, ngram_counting, packing, joint_stages):
        print(f"{module.__name__} ...", file=sys.stderr)
        lines += module.measure(scale)
    print(table(lines))
    about = {"scale": scale, "cores": os.cpu_count(), "processor": cpu(), "versions": versions("datasets", "trl", "tokenizers")}
    write_json(about | {"lines": [asdict(line) for line in lines]}, "metrics/bench.json")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.1)
