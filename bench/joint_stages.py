"""The stages between three teachers' traces and training: curate (per teacher), parallel, analyse.

python -m bench.joint_stages SCALE: on SCALE times 1.89 million queries, for three teachers. Traces are short (25 words and 30
tokens) since the disk would not hold 19 billion tokens; measured are cost per row and memory.
"""

import sys
import tempfile
from pathlib import Path

from bench import synthetic_corpus
from bench.measure import Line, run
from distillery.core.files import write_json

TEACHERS, TOKENS = ("a", "b", "c"), 60


def prepare(rows: int, folder: Path) -> None:
    """Writes curate's inputs, and locks of models that are never loaded."""
    synthetic_corpus.settings(folder)
    run("bench.synthetic_corpus", str(rows), folder=folder)
    run("stages.clean", folder=folder)
    (folder / "data/clean").rename(folder / "data/queries")
    for i, teacher in enumerate(TEACHERS):
        run("bench.synthetic_corpus", "traces", teacher, str(TOKENS), str(i), folder=folder)
        lock = {"role": f"teacher-{teacher}", "id": teacher, "revision": "0", "local": True, "files": {}}
        write_json(lock, folder / f"models/locks/teachers/{teacher}.json")
        write_json({"sampling": {}}, folder / f"metrics/distill/{teacher}.json")


def measure(scale: float) -> list[Line]:
    rows, lines = round(synthetic_corpus.FULL * scale), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(rows, folder)
        for stage in ("curate a", "curate b", "curate c", "parallel", "analyse"):
            cost = run(*f"stages.{stage}".split(), folder=folder)
            figures = f"{cost.wall:.1f} s, {cost.cpu:.1f} CPU-s, {cost.memory:.0f} MB"
            lines.append(Line(f"{stage}, {rows} queries", figures))
    return lines


if __name__ == "__main__":
    for line in measure(float(sys.argv[1])):
        print(*vars(line).values(), sep=" | ")
