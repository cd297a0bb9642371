import json

import pytest

from stages.collect import Source, collect, identify
from stages.params import ParamsError
from stages.tables import DataError


@pytest.fixture(autouse=True)
def world(inside):
    """The test's folder is the world that DVC watches."""
    (inside / "params.yaml").write_text(f"world: {inside}\n")


def source(path, **more) -> Source:
    settings: dict = {"revision": None, "split": "train", "category": "math", "columns": {}}
    return Source(**({"source": str(path)} | settings | more))


def write(folder, *rows):
    path = folder / "q.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_prompt_and_messages_are_both_queries(tmp_path):
    path = write(tmp_path, {"messages": "hi there"}, {"messages": [{"role": "user", "content": "hi  there"}]})
    queries, counts = collect({"s": source(path)}, "stop")
    assert [query["messages"][0]["content"] for query in queries] == ["hi there", "hi  there"]
    assert queries[0]["id"] == queries[1]["id"], "white space is not a difference"
    assert counts == {"s": 2}


def test_columns_are_mapped_and_free_form_fields_become_text(tmp_path):
    path = write(tmp_path, {"q": "x", "gold": 5, "t": {"a": [1]}})
    (query,), _ = collect({"s": source(path, columns={"messages": "q", "ground_truth": "gold", "test_cases": "t"})}, "stop")
    assert (query["ground_truth"], query["test_cases"], query["source"]) == ("5", '{"a": [1]}', "s")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('{"messages": "x"', "malformed JSON"),
        ({"messages": []}, "messages must be"),
        ({"messages": [{"role": "user"}]}, "every message needs"),
        ({}, "messages must be"),
        ({"messages": "a\x00b"}, "null byte"),
        ('{"messages": "\\ud800"}', "lone surrogate"),
        ({"messages": 3}, "messages must be"),
    ],
)
def test_a_bad_row_stops_the_run_by_file_and_line_or_is_counted(tmp_path, row, problem):
    path = write(tmp_path, {"messages": "fine"}, row, {"messages": "fine too"})
    with pytest.raises(DataError) as error:
        collect({"s": source(path)}, "stop")
    assert f"{path}:2: " in str(error.value) and problem in str(error.value)
    queries, counts = collect({"s": source(path)}, "skip")
    assert len(queries) == 2 and counts["malformed"] == 1


def test_an_unknown_category_is_an_error(tmp_path):
    path = write(tmp_path, {"messages": "x", "category": "maths"})
    with pytest.raises(DataError, match="category 'maths' is none of math"):
        collect({"s": source(path, category=None)}, "stop")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"gone.jsonl: no such file"):
        collect({"s": source(tmp_path / "gone.jsonl")}, "skip")


def test_a_file_that_dvc_does_not_watch_is_an_error(tmp_path):
    (tmp_path / "params.yaml").write_text("world: elsewhere\n")
    with pytest.raises(ParamsError, match=r"collect.sources.s.source: .*q.jsonl is no part of `world` \(elsewhere\)"):
        collect({"s": source(write(tmp_path, {"messages": "x"}))}, "stop")


def test_a_manifest_watches_what_it_lists(inside):
    write(inside, {"messages": "x"})
    (inside / "params.yaml").write_text("world: world.json\n")
    (inside / "world.json").write_text('{"q.jsonl": "hash"}')
    assert collect({"s": source("q.jsonl")}, "stop")[1] == {"s": 1}


def test_the_id_depends_on_roles_and_order():
    a, b = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert len({identify([a, b]), identify([b, a]), identify([a]), identify([a | {"role": "system"}])}) == 4
