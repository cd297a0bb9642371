"""python -m stages.summary: the results of the last run as a table in the terminal."""

from collections.abc import Iterator
from typing import Any

from stages import params, provenance
from stages.report import TEACHER_HEAD, teacher_rows
from stages.tables import read_json


def aligned(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A table's lines, columns padded to their widest cell, numbers to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells)


def student_rows(models: list[str], benchmarks: list[str]) -> list[list[str]]:
    rows = []
    for name in models:
        scores = read_json(f"metrics/students/{name}.json")
        rows.append([name, *(f"{scores[b]['pass@1']:.1f} / {scores[b]['mean_tokens']:.0f}" for b in benchmarks)])
    return rows


def main() -> None:
    teachers = params.load(list[str], "teachers")
    benchmarks = list(params.load(dict[str, Any], "evaluate.benchmarks"))
    print("\n".join(aligned(TEACHER_HEAD, teacher_rows(teachers))))
    print()
    print("\n".join(aligned(["student of (pass@1 / mean tokens)", *benchmarks], student_rows([*teachers, "base"], benchmarks))))
    print(f"\nThe same {read_json('metrics/parallel.json')['trained_on']} queries taught every student.")
    print("Figures, intervals and what was removed: data/report/index.html")


if __name__ == "__main__":
    provenance.run(main)
