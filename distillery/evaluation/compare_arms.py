"""``python -m distillery.evaluation.compare_arms A B`` (`make compare A=... B=...`): two arms side by side, overall first."""

from typing import Any

from distillery.core.errors import ConfigError
from distillery.core.files import read_json
from distillery.core.stage import run_stage
from distillery.core.text_table import format_table, wrapped
from distillery.evaluation.report_tables import format_interval, training_note

HEAD = ["pass@1, %", "{a}", "{b}", "difference [95 %]", "adj. p", "verdict"]
SHORT = {"not significant": "not signif."}


def rows_of(compared: dict[str, Any], a: str, b: str) -> list[list[str]]:
    """One row per benchmark, overall first: both scores, the difference a - b with its interval, adjusted p and verdict."""
    found = compared["differences"].get(f"{a} - {b}")
    pairs = found or {name: turned(each) for name, each in compared["differences"][f"{b} - {a}"].items()}
    rows = []
    for name, measured in pairs.items():
        scores = (f"{compared['models'][model][name]['pass@1']['mean']:.1f}" for model in (a, b))
        scored = measured["pass@1"]
        verdict = SHORT.get(scored["verdict"], scored["verdict"])
        rows.append([name, *scores, format_interval(scored), f"{scored['p_holm']:.2g}", verdict])
    return rows


def turned(measured: dict[str, Any]) -> dict[str, Any]:
    """The difference the other way round."""
    scored = measured["pass@1"]
    ends = {"low": scored["high"], "high": scored["low"], "mean": scored["mean"]}
    signed = {name: None if value is None else -value for name, value in ends.items()}
    opposite = {"higher": "lower", "lower": "higher"}
    return {"pass@1": scored | signed | {"verdict": opposite.get(scored["verdict"], scored["verdict"])}}


def main(a: str, b: str) -> None:
    compared = read_json("metrics/compare.json")
    models = list(compared["models"])
    for name in (a, b):
        if name not in models:
            raise ConfigError(
                f"{name!r} was not compared; there are {', '.join(models)}; `make repro` compares the arms of params.yaml"
            )
    if a == b:
        raise ConfigError("two different ones are needed, as in `make compare A=adaptive B=plain`")
    head = [cell.format(a=a[:12], b=b[:12]) for cell in HEAD]
    print("\n".join(format_table(head, rows_of(compared, a, b))))
    print(wrapped(f"Paired over questions; p adjusted by Holm's method. {training_note(compared['training'])}"))


if __name__ == "__main__":
    run_stage(main)
