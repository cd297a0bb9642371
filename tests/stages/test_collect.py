import json

import pytest

from stages.collect import Source, collect, identify
from stages.tables import DataError


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


def test_the_id_depends_on_roles_and_order():
    a, b = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert len({identify([a, b]), identify([b, a]), identify([a]), identify([a | {"role": "system"}])}) == 4
