"""A pilot: students of small shares of the data, to see who teaches best and whether the rest of the data can change that.

``python -m distillery.evaluation.pilot params`` puts the pilot's arms into params.yaml: every arm at each of
``pilot.shares``, with the first training seed. ``... show`` prints the learning curves of a finished run. scripts/pilot.sh
does both in a work tree of its own, which shares ledger, trainings and cache with the project, so that the full run finds
what the pilot trained.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Annotated

import yaml
from annotated_types import Gt, Lt, MinLen

from distillery.core import config
from distillery.core.arms import Arm, arm_names, arms
from distillery.core.config import Section
from distillery.core.errors import ConfigError, UserError
from distillery.core.files import read_json, write_json, write_text
from distillery.core.stage import run_stage
from distillery.core.tables import read_table
from distillery.core.text_table import format_table
from distillery.evaluation.benchmarks import enabled_benchmarks
from distillery.evaluation.learning_curves import Curve, Outlook, outlooks
from distillery.evaluation.model_values import OVERALL, clustered, clusters_of, strata_of, values_of
from distillery.evaluation.paired_statistics import variance_of_mean
from distillery.evaluation.report_tables import format_interval

SEPARATOR = "-at-"
RESULT = "metrics/pilot.json"


@dataclass(frozen=True)
class Pilot(Section):
    """How much data a pilot's students see."""

    shares: Annotated[tuple[Annotated[float, Gt(0), Lt(1)], ...], MinLen(3)]
    """Shares of the queries, rising; smaller ones are part of larger ones."""

    def __post_init__(self) -> None:
        if sorted(set(self.shares)) != list(self.shares):
            raise ValueError(f"shares: must rise, got {list(self.shares)}")


def pilot_name(arm: str, share: float) -> str:
    """``adaptive-at-0_03``: an arm at a share, as a name of its own."""
    return f"{arm}{SEPARATOR}{share:g}".replace(".", "_")


def pilot_arms(described: dict[str, Arm], shares: tuple[float, ...]) -> dict[str, Arm]:
    """Every arm at each share of its queries. Raises ConfigError for an arm that is limited by tokens."""
    for name, arm in described.items():
        if arm.tokens is not None:
            raise ConfigError(f"params.yaml: arm.{name}.tokens: a pilot varies the number of queries; leave this arm out")
    return {
        pilot_name(name, share): replace(arm, share=share * arm.share) for share in shares for name, arm in described.items()
    }


def write_params() -> None:
    """Replaces the arms in params.yaml by the pilot's."""
    settings, pilot = config.read_params(), config.load(Pilot, "pilot")
    if any(SEPARATOR in name for name in arm_names()):
        raise ConfigError("params.yaml: arms: these are a pilot's already; write the profile again")
    chosen = pilot_arms(arms(), pilot.shares)
    settings["arms"] = list(chosen)
    settings["arm"] = {name: asdict(arm) | {"teachers": list(arm.teachers)} for name, arm in chosen.items()}
    settings["train"]["seeds"] = settings["train"]["seeds"][:1]
    settings["headline"]["arm"] = settings["arms"][0]
    write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), config.PARAMS)


def original_names(names: list[str]) -> list[str]:
    """The arms of which a pilot's arms are shares."""
    return list(dict.fromkeys(name.rpartition(SEPARATOR)[0] for name in names))


def curves(names: list[str], shares: tuple[float, ...]) -> dict[str, Curve]:
    """For every pair of arms, its overall difference at each share."""
    benchmarks = enabled_benchmarks()
    wanted = [pilot_name(name, share) for name in names for share in shares]
    samples = {name: read_table(f"data/samples/{name}").to_pylist() for name in wanted}
    values = clustered(values_of(samples, benchmarks), clusters_of(samples[wanted[0]], benchmarks))
    found = {}
    for pair in combinations(names, 2):
        changes = []
        for share in shares:
            left, right = (strata_of(OVERALL, values[pilot_name(name, share)], "pass@1") for name in pair)
            changes.append([a.means - b.means for a, b in zip(left, right, strict=True)])
        points = tuple(sum(float(each.mean()) for each in strata) / len(strata) for strata in changes)
        found[" - ".join(pair)] = Curve(shares, points, variance_of_mean(changes[-1]))
    return found


def curve_rows(names: list[str], shares: tuple[float, ...]) -> list[list[str]]:
    """One row per share: its queries, and each arm's overall score with its interval."""
    compared, parallel, rows = read_json("metrics/compare.json"), read_json("metrics/parallel.json"), []
    for share in shares:
        queries = parallel["arms"][pilot_name(names[0], share)]["queries"]
        scores = (compared["models"][pilot_name(name, share)][OVERALL]["pass@1"] for name in names)
        rows.append([f"{100 * share:g} %", str(queries), *map(format_interval, scores)])
    return rows


def outlook_lines(found: dict[str, Outlook], curves_of: dict[str, Curve]) -> Iterator[str]:
    """One sentence per pair: where it stands, what to expect of all data, and whether that is settled."""
    for pair, outlook in found.items():
        last = curves_of[pair].points[-1]
        expected = f"{outlook.mean:+.1f} [{outlook.low:+.1f}, {outlook.high:+.1f}] with all data"
        crossing = f"; it changes sign near {100 * outlook.crossing:g} % of the queries" if outlook.crossing else ""
        yield f"{pair}: {last:+.1f} points so far, {expected}: {outlook.verdict}{crossing}."


def show() -> None:
    """Prints the learning curves and what the rest of the data can change, and writes them to metrics/pilot.json."""
    shares, confidence = config.load(Pilot, "pilot").shares, config.load(float, "compare.confidence")
    names = original_names(arm_names())
    if not all(names):
        raise ConfigError("params.yaml: arms: not a pilot's; `make pilot` runs one")
    of_pairs = curves(names, shares)
    found = outlooks(of_pairs, confidence)
    print("\n".join(format_table(["share", "queries", *names], curve_rows(names, shares))))
    print("\n".join(outlook_lines(found, of_pairs)))
    about = {
        pair: asdict(outlook) | {"verdict": outlook.verdict, "points": of_pairs[pair].points} for pair, outlook in found.items()
    }
    write_json({"shares": shares, "pairs": about}, RESULT)


def main(*arguments: str) -> None:
    commands = {("params",): write_params, ("show",): show}
    if arguments not in commands:
        sys.exit("usage: python -m distillery.evaluation.pilot {params,show}")
    try:
        commands[arguments]()
    except UserError as error:
        sys.exit(f"pilot: {error}")


if __name__ == "__main__":
    run_stage(main)
