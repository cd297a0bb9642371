"""What would settle an undecided comparison, and what that costs in GPU-hours, reckoned from what the runs here took."""

from collections.abc import Iterator
from typing import Any

from distillery.core.files import read_json
from distillery.core.stage import read_run


def training_hours(arm: str) -> float | None:
    """Device-hours of one training of an arm; None where it did not run here."""
    run, metrics = read_run(f"metrics/train/{arm}.json"), read_json(f"metrics/train/{arm}.json")
    if run is None:
        return None
    each = [
        metrics["students"][seed]["tokens"] / about["tokens_per_second"] * about["ranks"] / 3600
        for seed, about in run["students"].items()
    ]
    return sum(each) / len(each)


def evaluation_hours(arm: str) -> float | None:
    """Device-hours of evaluating one student of an arm; None where that did not run here."""
    run = read_run(f"metrics/evaluate/{arm}.json")
    return None if run is None else float(run["engine_seconds"] * run["devices"] / run["students"] / 3600)


def extra_hours(times: int, source: str, seeds: int, training: float, evaluation: float) -> float:
    """Device-hours for so many times the seeds, questions or samples of one arm."""
    return (times - 1) * seeds * (evaluation + (training if source == "seeds" else 0.0))


def lines(compared: dict[str, Any], arms: list[str]) -> Iterator[str]:
    """One line per undecided pair of arms: what would find a difference as large as the margin, and its cost."""
    hours = {arm: (training_hours(arm), evaluation_hours(arm)) for arm in arms}
    for pair, by_benchmark in compared["differences"].items():
        found, names = by_benchmark["overall"]["pass@1"], pair.split(" - ")
        if "settles" not in found or not set(names) <= set(arms):
            continue
        ways = []
        for source, times in found["settles"].items():
            if times:
                known = [(compared["training"]["seeds"][arm], *hours[arm]) for arm in names]
                costs = [
                    extra_hours(times, source, seeds, training, evaluation)
                    for seeds, training, evaluation in known
                    if training is not None and evaluation is not None
                ]
                cost = f" (about {sum(costs):.2g} device-hours)" if len(costs) == len(names) else ""
                ways.append(f"{times} x {source}{cost}")
        found_by = " or ".join(ways) if ways else "no more of seeds, questions or samples alone"
        yield f"{pair}: undecided; {compared['margin']:g} points would be found with {found_by}."
