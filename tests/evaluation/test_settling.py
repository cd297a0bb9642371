"""What would settle a comparison, and what it costs."""

import json

import pytest

from distillery.core.files import write_json, write_text
from distillery.evaluation import settling

COMPARED = {
    "margin": 2.0,
    "training": {"seeds": {"a": 2, "b": 2, "c": 2}},
    "differences": {
        "a - b": {"overall": {"pass@1": {"settles": {"seeds": 3, "questions": None, "samples": 2}}}},
        "a - c": {"overall": {"pass@1": {}}},
        "b - c": {"overall": {"pass@1": {"settles": {"seeds": None, "questions": None, "samples": None}}}},
        "a - base": {"overall": {"pass@1": {"settles": {"seeds": 2}}}},
    },
}


def ran(arm: str) -> None:
    """A run of two trainings of one hour on two devices, and evaluations of half an hour on one."""
    write_json({"students": {seed: {"tokens": 3600} for seed in "01"}}, f"metrics/train/{arm}.json")
    runs = {
        "train": {"students": {seed: {"tokens_per_second": 1.0, "ranks": 2} for seed in "01"}},
        "evaluate": {"engine_seconds": 3600.0, "devices": 1, "students": 2},
    }
    for stage, about in runs.items():
        write_text(f"runs[0] =\n{json.dumps(about)};\n", f".runs/{stage}/{arm}.js")


def test_more_seeds_cost_trainings_and_evaluations_and_more_samples_only_those(inside):
    """Twice two seeds more, of 2 and half an hour each, for both arms: 20; half an hour more for each of four students: 2."""
    for arm in "abc":
        ran(arm)
    first, second = settling.lines(COMPARED, list("abc"))
    expected = "3 x seeds (about 20 device-hours) or 2 x samples (about 2 device-hours)"
    assert first == f"a - b: undecided; 2 points would be found with {expected}."
    assert second == "b - c: undecided; 2 points take more than seeds, questions or samples alone."


@pytest.mark.parametrize("missing", ["train", "evaluate"])
def test_what_did_not_run_here_has_no_cost(inside, missing):
    for arm in "abc":
        ran(arm)
    (inside / f".runs/{missing}/b.js").unlink()
    assert "3 x seeds or 2 x samples" in next(settling.lines(COMPARED, list("abc")))


def test_many_undecided_pairs_are_counted(inside):
    undecided = {f"a{i} - b": {"overall": {"pass@1": {"settles": {"samples": 2}}}} for i in range(5)}
    names = [f"a{i}" for i in range(5)]
    for arm in (*names, "b"):
        ran(arm)
    seeds = {"seeds": dict.fromkeys([*names, "b"], 2)}
    found = list(settling.lines({"margin": 2.0, "training": seeds, "differences": undecided}, [*names, "b"]))
    assert len(found) == 4 and found[-1] == "2 more pairs are undecided; the report says what would settle each."
