"""``python -m distillery.evaluation.summary`` (`make summary`): the results of the last run, in 80 columns."""

from collections.abc import Iterable
from typing import Any

from distillery.core.arms import arm_names
from distillery.core.errors import DataError
from distillery.core.files import read_json
from distillery.core.stage import run_stage
from distillery.core.teachers import teacher_names
from distillery.core.text_table import format_table, wrapped
from distillery.evaluation import compare_arms, settling
from distillery.evaluation import report_tables as tables

HEAD = ["overall pass@1, %", "first", "second", "difference [95 %]", "adj. p", "verdict"]
MOST_PAIRS = 12


def table(compared: dict[str, Any]) -> Iterable[str]:
    """Every pair; where these are many, every model beside the best one."""
    if len(compared["differences"]) <= MOST_PAIRS:
        return format_table(HEAD, tables.overall_rows(compared))
    best, *others = sorted(compared["models"], key=lambda model: -compared["models"][model]["overall"]["pass@1"]["mean"])
    rows = [[other, *compare_arms.rows_of(compared, best, other)[0][2:]] for other in others]
    head = [f"{best} beside", "score", f"{best} minus it [95 %]", *HEAD[-2:]]
    return [*format_table(head, rows), f"All {len(compared['differences'])} pairs are in the report."]


def main() -> None:
    arms, compared, outcomes = arm_names(), read_json("metrics/compare.json"), read_json("metrics/outcomes.json")
    if missing := [arm for arm in arms if arm not in compared["models"]]:
        raise DataError(f"metrics/compare.json: of an earlier run, without the arm {missing[0]}; run `make repro`")
    forecast = read_json("metrics/forecast.json")["metrics"]
    runs = {teacher: read_json(f"metrics/distill/{teacher}.json") for teacher in teacher_names()}
    print(wrapped(tables.answer(compared, arms)))
    print()
    print("\n".join(table(compared)))
    print()
    for line in compared["warnings"]:
        print(wrapped(f"Warning: {line}"))
    print(wrapped(tables.training_note(compared["training"])))
    for line in settling.lines(compared, arms):
        print(wrapped(line))
    print(wrapped(f"{tables.foretold(forecast, compared, arms)} {outcomes['conclusion']}"))
    print(wrapped(tables.total_cost(runs)))
    print("Report: data/report/index.html; traces to read: data/report/traces.html")


if __name__ == "__main__":
    run_stage(main)
