"""User errors in the full pipeline: each gives one clear line and loses nothing."""

import pytest

from tests.e2e.conftest import dvc, edit, metrics

pytestmark = pytest.mark.slow

BROKEN = {
    "an unknown key": (lambda p: p["clean"].update(min_charcters=1), "clean", "params.yaml: clean.min_charcters: unknown key"),
    "no section": (lambda p: p["teachers"].append("ghost"), "assets_teacher@ghost", "are missing from 'params.yaml'"),
    "duplicate": (lambda p: p["teachers"].append("plain"), "assets", "params.yaml: teachers: duplicate teacher 'plain'"),
    "no model": (lambda p: p["teacher"]["plain"].update(model=None), "assets_teacher@plain", "teacher.plain: needs a model or"),
    "no teachers": (lambda p: p.update(teachers=[]), "assets", "params.yaml: teachers: empty; name at least one"),
    "no source": (lambda p: p["collect"]["sources"]["mini"].update(source="gone.jsonl"), "collect", "gone.jsonl: no such file"),
    "untracked source": (
        lambda p: p["collect"]["sources"]["mini"].update(source="README.jsonl"),
        "collect",
        "is not tracked by DVC",
    ),
    "nothing left": (lambda p: p["clean"].update(min_characters=10**6), "clean", "no query is left after cleaning"),
    "wrong type": (
        lambda p: p["pack"].update(window="512"),
        "pack@plain",
        "params.yaml: pack.window: Input should be a valid integer",
    ),
    "too short a window": (lambda p: p["pack"].update(window=1), "parallel", "has traces that fit 1 tokens"),
    "not a multiple": (lambda p: p["train"].update(global_batch=3), "train@plain", "train.global_batch: 3 is not a multiple"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_invalid_params_give_one_clear_line_and_lose_nothing(project, name):
    change, stage, line = BROKEN[name]
    (project / "README.jsonl").write_text("{}")
    params = project / "params.yaml"
    old = params.read_text()
    edit(params, change)
    try:
        output = dvc(project, "repro", stage, ok=False)
    finally:
        params.write_text(old)
    assert sum(line in each for each in output.splitlines()) == 1, output
    assert "Traceback" not in output
    assert not list(project.glob("data/**/*.tmp"))


@pytest.mark.parametrize(
    ("row", "kind", "problem"),
    [('{"messages": "what', "json", "malformed JSON"), ('{"messages": 3}', "messages", "messages must be")],
)
def test_a_malformed_row_stops_the_run_unless_skipping_is_set(project, row, kind, problem):
    good = (project / "mini/world/queries.jsonl").read_text().splitlines()[:5]
    (project / "bad.jsonl").write_text("\n".join([good[0], row, *good[1:]]) + "\n")
    params = project / "params.yaml"
    old = params.read_text()
    try:
        edit(params, lambda p: p["collect"]["sources"]["mini"].update(source="bad.jsonl") or p.update(world="bad.jsonl"))
        output = dvc(project, "repro", "collect", ok=False)
        assert f"bad.jsonl:2: {problem}" in output and "Traceback" not in output
        edit(params, lambda p: p["collect"].update(malformed="skip"))
        assert f"skipped bad.jsonl:2: {kind}: {problem}" in dvc(project, "repro", "collect")
        assert metrics(project, "collect")["malformed"] == {kind: 1} and metrics(project, "collect")["queries"] == 5
    finally:
        params.write_text(old)


def test_a_benchmark_without_answers_is_named(project):
    (project / "unanswered.jsonl").write_text('{"question": "1 + 1 ?", "answer": "2"}\n{"question": "1 + 2 ?", "answer": ""}\n')
    params = project / "params.yaml"
    old = params.read_text()
    try:
        edit(params, lambda p: p.update(benchmarks={"math500": p["benchmarks"]["math500"]}))
        edit(params, lambda p: p["evaluate"].update(benchmarks={"math500": p["evaluate"]["benchmarks"]["math500"]}))
        edit(
            params,
            lambda p: (
                p["benchmarks"]["math500"].update(source="unanswered.jsonl", difficulty=None)
                or p.update(world="unanswered.jsonl")
            ),
        )
        output = dvc(project, "repro", "benchmarks", ok=False)
    finally:
        params.write_text(old)
    assert "benchmark math500: unanswered.jsonl:2: no 'answer'" in output and "Traceback" not in output
