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


def lines(compared: dict[str, Any], arms: list[str], most: int = 3) -> Iterator[str]:
    """One line per undecided pair of arms: what would find a difference as large as the margin, and its cost.

    Beyond ``most`` pairs they are counted.
    """
    undecided = [
        (pair, by_benchmark["overall"]["pass@1"]["settles"])
        for pair, by_benchmark in compared["differences"].items()
        if "settles" in by_benchmark["overall"]["pass@1"] and set(pair.split(" - ")) <= set(arms)
    ]
    for pair, settles in undecided[:most]:
        ways = [f"{times} x {source}{cost_of(pair, source, times, compared)}" for source, times in settles.items() if times]
        found = f"would be found with {' or '.join(ways)}" if ways else "take more than seeds, questions or samples alone"
        yield f"{pair}: undecided; {compared['margin']:g} points {found}."
    if len(undecided) > most:
        yield f"{len(undecided) - most} more pairs are undecided; the report says what would settle each."


def cost_of(pair: str, source: str, times: int, compared: dict[str, Any]) -> str:
    """The device-hours of both arms for so many times the seeds, questions or samples; empty where they are not known."""
    costs = []
    for arm in pair.split(" - "):
        training, evaluation = training_hours(arm), evaluation_hours(arm)
        if training is None or evaluation is None:
            return ""
        costs.append(extra_hours(times, source, compared["training"]["seeds"][arm], training, evaluation))
    return f" (about {sum(costs):.2g} device-hours)"
