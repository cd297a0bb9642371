"""python -m distillery.evaluation.summary: the results of the last run in the terminal."""

from distillery.core.arms import arm_names
from distillery.core.files import read_json
from distillery.core.stage import run_stage
from distillery.core.teachers import BASE, teacher_names
from distillery.core.text_table import format_table
from distillery.evaluation import settling
from distillery.evaluation.benchmarks import enabled_benchmarks
from distillery.evaluation.report_tables import TEACHER_HEAD, headlines, student_rows, teacher_rows, training_note


def main() -> None:
    teachers, arms = teacher_names(), arm_names()
    benchmarks = enabled_benchmarks()
    distilled = {teacher: read_json(f"metrics/teachers/{teacher}.json") for teacher in teachers}
    students = {name: read_json(f"metrics/students/{name}.json") for name in [*arms, BASE]}
    print("\n".join(format_table(TEACHER_HEAD, teacher_rows(distilled))))
    print()
    print("\n".join(format_table(["student of (pass@1 / mean tokens)", *benchmarks], student_rows(students, benchmarks))))
    print()
    compared = read_json("metrics/compare.json")
    print("\n".join(headlines(compared, arms)))
    print(training_note(compared["training"]))
    for line in settling.lines(compared, arms):
        print(line)
    print(read_json("metrics/outcomes.json")["conclusion"])
    print("Figures, intervals and what was removed: data/report/index.html")


if __name__ == "__main__":
    run_stage(main)
