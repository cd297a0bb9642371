"""Benchmarks clean and decontaminate (exact and n-gram) against the same rules in `datasets` with two processes.

python -m bench.cleaning SCALE: on SCALE times 1.89 million queries, and on 10 % and 30 % of them to show scaling.
"""

import sys
import tempfile
from pathlib import Path

from bench import synthetic_corpus
from bench.measure import Cost, Line, run
from distillery.core.schemas import QUERY
from distillery.core.tables import read_table

STEPS = (0.1, 0.3, 1.0)


def prepare(rows: int, folder: Path) -> None:
    synthetic_corpus.settings(folder)
    run("bench.synthetic_corpus", str(rows), folder=folder)


def ours(folder: Path) -> Cost:
    """Both stages; writing the similarity file is not counted."""
    first = run("stages.clean", folder=folder)
    run("bench.synthetic_corpus", "similarities", folder=folder)
    second = run("stages.decontaminate", folder=folder)
    return Cost(first.wall + second.wall, first.cpu + second.cpu, max(first.memory, second.memory))


def measure(scale: float) -> list[Line]:
    lines = []
    for step in STEPS:
        rows = round(synthetic_corpus.FULL * scale * step)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(rows, folder)
            cost = ours(folder)
            figures = f"{cost.cpu:.1f} CPU-s, {cost.wall:.1f} s, {cost.memory:.0f} MB"
            if step < 1:
                lines.append(Line(f"clean + decontaminate, {rows} rows", figures))
                continue
            kept = set(read_table(folder / "data/decontaminated", QUERY)["id"].to_pylist())
            peer = run("bench.datasets_baseline", folder=folder)
            theirs = set((folder / "peer.txt").read_text().split())
            same = "same ids kept" if kept == theirs else f"{len(kept ^ theirs)} ids differ"
            about = f"datasets, 2 processes: {peer.cpu:.1f} CPU-s, {peer.wall:.1f} s; {same}"
            ratio = f"{peer.cpu / cost.cpu:.1f} x CPU, {peer.wall / cost.wall:.1f} x time"
            lines.append(Line(f"clean + decontaminate, {rows} rows", figures, about, ratio))
    return lines


if __name__ == "__main__":
    for line in measure(float(sys.argv[1])):
        print(*vars(line).values(), sep=" | ")
