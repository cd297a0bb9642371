import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distillery.core import tables
from distillery.core.chat import get_path, identify
from distillery.core.errors import ConfigError, DataError
from distillery.core.files import ScannedRow, write_json
from distillery.core.schemas import QUERY
from distillery.corpus.column_mapping import may_exist
from distillery.corpus.sources import Columns, Origin, pinned, scan
from stages import collect as collect_stage
from stages.collect import Collect, Source
from tests.support.builders import collected

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def world(inside):
    """The test's folder is the `world` that DVC tracks."""
    (inside / "params.yaml").write_text(f"world: {inside}\n")


def source(path, **more) -> Source:
    settings: dict = {"revision": None, "split": "train", "category": "math", "columns": {}}
    return Source(**({"source": str(path)} | settings | more))


def read(malformed="stop", max_characters=1000, **sources):
    """(queries, malformed rows) of the sources."""
    return collected(Collect(malformed, max_characters, sources))


def write(folder, *rows, name="q.jsonl"):
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_prompt_and_messages_are_both_queries(tmp_path):
    path = write(tmp_path, {"messages": "hi there"}, {"messages": [{"role": "user", "content": "hi  there"}]})
    queries, _ = read(s=source(path))
    assert [query["messages"][0]["content"] for query in queries] == ["hi there", "hi  there"]
    assert queries[0]["id"] == queries[1]["id"], "whitespace is ignored"


def test_columns_are_mapped_and_free_form_fields_become_text(tmp_path):
    path = write(tmp_path, {"q": "x", "gold": 5, "t": {"a": [1]}, "deep": [{"level": 3}]})
    columns = {"messages": "q", "ground_truth": "gold", "test_cases": "t", "difficulty": "deep.-1.level"}
    ((query,), _) = read(s=source(path, columns=columns))
    assert (query["ground_truth"], query["test_cases"], query["source"]) == ("5", '{"a": [1]}', "s")
    assert query["difficulty"] == "3"


def test_a_column_can_be_a_template_or_an_object_of_columns(tmp_path):
    rows = {"Question": "2 + 2 ?", "A": "3", "B": 4, "ids": ["x"], "kw": "[{}]"}, {"Question": "2 + 2 ?", "A": "3"}
    columns = {"messages": "{Question}\nA. {A}\nB. {B}", "constraints": {"instruction_id_list": "ids", "kwargs": "kw"}}
    queries, malformed = read("skip", s=source(write(tmp_path, *rows), columns=columns))
    assert [query["messages"][0]["content"] for query in queries] == ["2 + 2 ?\nA. 3\nB. 4"]
    assert json.loads(queries[0]["constraints"]) == {"instruction_id_list": ["x"], "kwargs": "[{}]"}
    assert len(malformed) == 1 and "messages" in malformed[0]["reason"]
    bare_path = write(tmp_path, {"messages": "a {b} c"}, {"messages": "d", "kw": 1})
    ((bare, _), _) = read(s=source(bare_path, columns={"constraints": {"kwargs": "kw"}}))
    assert bare["messages"][0]["content"] == "a {b} c" and bare["constraints"] is None


def texts(queries):
    return [query["messages"][0]["content"] for query in queries]


def test_a_source_takes_the_rows_that_match(tmp_path):
    rows = [{"messages": f"question {i}", "from": "ifdata" if i % 2 else None} for i in range(8)]
    path = write(tmp_path, *rows[:3], "{torn", *rows[3:])
    queries, malformed = read("skip", s=source(path, where={"from": "^if"}))
    assert texts(queries) == [f"question {i}" for i in (1, 3, 5, 7)]
    assert len(malformed) == 1, "a malformed row is kept, since `where` cannot be checked"
    with pytest.raises(ConfigError, match=r"params.yaml: collect.sources.s.where: '\(' is not a regular expression"):
        read(s=source(path, where={"from": "("}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", 1),
        ("b.c", 2),
        ("d.-1.e", 4),
        ("d.0.e", 3),
        ("d.9.e", None),
        ("a.b", None),
        ("x.y", None),
        ("p.q", 5),
        ("d.x", None),
    ],
)
def test_dotted_paths(path, value):
    assert get_path({"a": 1, "b": {"c": 2}, "d": [{"e": 3}, {"e": 4}], "p.q": 5}, path) == value


def test_the_final_answer_of_a_dialogue_is_dropped(tmp_path):
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}]
    path = write(tmp_path, {"messages": [*turns, {"from": "gpt", "value": "d"}]}, {"messages": turns})
    queries, _ = read(s=source(path))
    assert [turn["role"] for turn in queries[0]["messages"]] == ["user", "assistant", "user"]
    assert queries[0]["id"] == queries[1]["id"]


def test_a_limit_takes_a_sample_that_larger_limits_and_other_orders_keep(tmp_path):
    rows = [{"messages": f"question {i}"} for i in range(400)]
    sorted_path, shuffled = write(tmp_path, *rows), write(tmp_path, *rows[200:], *rows[:200], name="other.jsonl")
    few, more = (texts(read(s=source(sorted_path, limit=limit))[0]) for limit in (40, 80))
    assert len(few) == 40 and len(more) == 80 and set(few) < set(more)
    assert few == [text for text in texts(read(s=source(sorted_path))[0]) if text in few], "in the source's order"
    assert set(few) == set(texts(read(s=source(shuffled, limit=40))[0]))
    firsts = sum(int(text.split()[1]) < 200 for text in more)
    assert 20 < firsts < 60, "from everywhere"
    other = collected(Collect("stop", 1000, {"s": source(sorted_path, limit=40)}, seed=1))[0]
    assert len(other) == 40 and set(texts(other)) != set(few)
    assert len(read(s=source(sorted_path, limit=1000))[0]) == 400


@pytest.mark.parametrize("seed", range(5))
def test_a_query_that_is_there_often_has_one_place_in_a_sample(tmp_path, seed):
    rows = [{"messages": f"question {i % 40}"} for i in range(400)]
    settings = Collect("stop", 1000, {"s": source(write(tmp_path, *rows), limit=20)}, seed=seed)
    found = texts(collected(settings)[0])
    assert len(found) == len(set(found)) == 20


def test_malformed_rows_take_no_place_in_a_sample(tmp_path):
    path = write(tmp_path, "{torn", {"messages": "one"}, {"messages": 3}, {"messages": "two"})
    queries, malformed = read("skip", s=source(path, limit=2))
    assert sorted(texts(queries)) == ["one", "two"] and len(malformed) == 2


def many(folder, count, row, name="q.jsonl"):
    return write(folder, *(row(i) for i in range(count)), name=name)


@pytest.mark.parametrize(
    ("more", "setting", "missing"),
    [
        ({"columns": {"messages": "problm"}}, "columns.messages", "problm"),
        ({"columns": {"messages": "problem", "ground_truth": "anwser"}}, "columns.ground_truth", "anwser"),
        ({"columns": {"messages": "{problem} ({leel})"}}, "columns.messages", "leel"),
        ({"columns": {"messages": "problem", "constraints": {"kwargs": "kw"}}}, "columns.constraints", "kw"),
        ({"columns": {"messages": "problem"}, "where": {"lang.code": "en"}}, "where.lang.code", "lang.code"),
        ({"columns": {"messages": "problem", "ground_truth": "model.truht"}}, "columns.ground_truth", "model.truht"),
    ],
)
def test_a_misspelt_column_is_named_after_the_first_rows(tmp_path, monkeypatch, more, setting, missing):
    path = tmp_path / "q.parquet"
    rows = [{"problem": f"what is {i} ?", "answer": "5", "model": {"truth": None}} for i in range(5000)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    scanned = []

    def noted(*how):
        for row in scan(*how):
            scanned.append(row)
            yield row

    monkeypatch.setattr(collect_stage, "scan", noted)
    expected = rf"collect.sources.s.{re.escape(setting)}: no column '{re.escape(missing)}' in the first 1000 rows; they have"
    with pytest.raises(ConfigError, match=f"{expected} problem,"):
        read("skip", s=source(path, **more))
    assert len(scanned) == 1000


def test_in_json_lines_what_every_row_needs_is_missed_as_early(tmp_path):
    path = many(tmp_path, 1500, lambda i: {"problem": f"what is {i} ?"})
    with pytest.raises(ConfigError, match="no column 'problm' in the first 1000 rows; they have problem"):
        read("skip", s=source(path, columns={"messages": "problm"}))


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("a", True),
        ("a.b", True),
        ("a.c", False),
        ("x", False),
        ("n.b", True),
        ("l.-1.b", True),
        ("l.0.c", False),
        ("e.0.b", True),
        ("p.q", True),
        ("t.b", False),
    ],
)
def test_a_path_may_exist_unless_something_there_lacks_it(path, may):
    row = {"a": {"b": None}, "n": None, "l": [{"b": 1}], "e": [], "p.q": 1, "t": "text"}
    assert may_exist(row, path) is may


def test_a_column_that_only_later_rows_have_is_no_mistake(tmp_path):
    rows = lambda i: {"messages": f"q {i}", "x": i} | ({"gold": "5"} if i > 1500 else {})  # noqa: E731
    queries, _ = read(s=source(many(tmp_path, 2000, rows), columns={"ground_truth": "gold"}))
    assert sum(query["ground_truth"] == "5" for query in queries) == 499
    with pytest.raises(ConfigError, match="no column 'gld' in the first 2000 rows; they have messages, x, gold"):
        read(s=source(tmp_path / "q.jsonl", columns={"ground_truth": "gld"}))


def test_only_columns_that_are_mapped_are_read_from_parquet(tmp_path):
    rows = {"q": ["one"], "gold": ["5"], "category": ["code"], "generations": ["x" * 1000]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    about = source(tmp_path / "a.parquet", category=None, columns={"messages": "q", "ground_truth": "gold"})
    ((query,), _) = read(s=about)
    assert (query["category"], query["ground_truth"]) == ("code", "5")
    (scanned,) = scan(about, None, Columns(["q", "gold.0"], ["category", "absent"]))
    assert set(scanned.row) == {"q", "gold", "category"}
    (scanned,) = scan(about, None, Columns(["q", "gld"]))
    assert set(scanned.row) == set(rows), "so that what is missing can be named beside what there is"


BAD = [
    ('{"messages": "x"', "json: malformed JSON"),
    ("[1, 2]", "json: expected an object, got list"),
    ({"messages": []}, "messages: messages must be"),
    ({"messages": [{"role": "user"}]}, "messages: every message needs"),
    ({"messages": ["hi"]}, "messages: every message needs"),
    ({"messages": [{"role": "user", "content": None}]}, "messages: every message needs"),
    ({}, "messages: messages must be"),
    ({"messages": "a\x00b"}, "text: null byte"),
    ('{"messages": "\\ud800"}', "text: null byte or lone surrogate"),
    ({"messages": "x", "ground_truth": "a\x00"}, "text: null byte"),
    ({"messages": 3}, "messages: messages must be"),
    ({"messages": "y" * 1001}, "too_long: 1001 characters, more than collect.max_characters (1000)"),
]


@pytest.mark.parametrize(("row", "problem"), BAD)
def test_a_malformed_row_is_located_and_stops_the_run_or_is_skipped(tmp_path, row, problem):
    path = write(tmp_path, {"messages": "fine"}, row, {"messages": "fine too"})
    with pytest.raises(DataError) as error:
        read(s=source(path))
    assert f"{path}:2: " in str(error.value) and problem.partition(": ")[2] in str(error.value)
    queries, malformed = read("skip", s=source(path))
    assert len(queries) == 2
    assert [(each["where"], each["reason"][: len(problem)]) for each in malformed] == [(f"{path}:2", problem)]


@pytest.mark.slow
def test_a_fifty_megabyte_row_is_skipped_and_the_rest_is_read(tmp_path):
    path = write(tmp_path, {"messages": "fine"}, {"messages": "z" * 50_000_000}, {"messages": "fine too"})
    queries, (bad,) = read("skip", s=source(path))
    assert len(queries) == 2 and bad["reason"].startswith("too_long: 50000000") and len(bad["row"]) <= 100_000


def test_an_empty_file_has_no_rows(tmp_path):
    assert read(s=source(write(tmp_path))) == ([], [])


def test_an_unknown_category_is_an_error(tmp_path):
    path = write(tmp_path, {"messages": "x", "category": "maths"})
    with pytest.raises(DataError, match="category 'maths' is none of math"):
        read(s=source(path, category=None))


def test_parquet_and_folders_are_read_like_json_lines(tmp_path):
    (tmp_path / "many").mkdir()
    write(tmp_path / "many", {"messages": "one"}, name="b.jsonl")
    pq.write_table(pa.table({"messages": ["two", "three"]}), tmp_path / "many/a.parquet")
    queries, _ = read(s=source(tmp_path / "many"))
    assert [query["messages"][0]["content"] for query in queries] == ["two", "three", "one"]


def test_of_a_data_set_in_both_forms_every_row_is_read_once(tmp_path):
    (tmp_path / "both").mkdir()
    for name in ("train", "more"):
        write(tmp_path / "both", {"messages": name}, name=f"{name}.jsonl")
    pq.write_table(pa.table({"messages": ["train"]}), tmp_path / "both/train.parquet")
    for split, texts in ((None, ["more", "train"]), ("train", ["train"])):
        queries, _ = read(s=source(tmp_path / "both", split=split))
        assert sorted(query["messages"][0]["content"] for query in queries) == texts


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.parquet", b"no such thing", "a.parquet: not parquet, or truncated"),
        ("a.parquet", b"", "a.parquet: not parquet, or truncated"),
    ],
)
def test_an_invalid_parquet_file_is_an_error(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read("skip", s=source(tmp_path / name))


def test_a_folder_without_files_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no .jsonl or .parquet file"):
        read(s=source(tmp_path / "empty"))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"gone.jsonl: no such file"):
        read("skip", s=source(tmp_path / "gone.jsonl"))


def test_a_file_that_dvc_does_not_track_is_an_error(tmp_path):
    (tmp_path / "params.yaml").write_text("world: elsewhere\n")
    with pytest.raises(ConfigError, match=r"s.source: .*q.jsonl is not tracked by DVC \(`world` is elsewhere\)"):
        read(s=source(write(tmp_path, {"messages": "x"})))


def test_files_in_a_manifest_are_tracked(inside):
    write(inside, {"messages": "x"})
    (inside / "params.yaml").write_text("world: world.json\n")
    (inside / "world.json").write_text('{"q.jsonl": "hash"}')
    assert len(read(s=source("q.jsonl"))[0]) == 1


def test_a_hub_data_set_with_mixed_schemas_is_read_as_files(tmp_path, monkeypatch):
    write(tmp_path, {"messages": "x"})
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: str(tmp_path))
    queries, _ = read(s=source("team/data", files="*.jsonl", revision="abc"))
    assert len(queries) == 1


def test_a_hub_data_set_is_pinned_to_the_commit_of_its_revision(inside, monkeypatch):
    class Hub:
        def dataset_info(self, name, revision):
            assert (name, revision) == ("team/data", None)
            return type("Info", (), {"sha": "c0ffee"})()

    class Empty(list):
        column_names = None

    def builder(name, config, revision):
        read_at.append((name, config, revision))
        return SimpleNamespace(as_streaming_dataset=lambda split: Empty(), config=None)

    read_at: list = []
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("datasets.load_dataset_builder", builder)
    now = pinned(source("team/data", config="taco"))
    assert pinned(source("team/data", revision="0" * 40)).revision == "0" * 40
    assert str(now) == "team/data@c0ffee" and str(pinned(source("q.jsonl"))) == "q.jsonl"
    read(s=now)
    assert read_at == [("team/data", "taco", "c0ffee")]


def test_only_files_of_the_pattern_are_read_whatever_lies_in_the_snapshot(tmp_path, monkeypatch):
    for name in ("train-0.jsonl", "train-1.jsonl", "other.jsonl", "sub/train-2.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"n": name}) + "\n")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: str(tmp_path))

    def names(files: str) -> list[str]:
        return [scanned.row["n"] for scanned in scan(Origin("a/b", "c" * 40, "train", files=files), None)]

    assert names("train-*.jsonl") == ["train-0.jsonl", "train-1.jsonl"]
    assert names("sub/*") == ["sub/train-2.jsonl"]
    with pytest.raises(DataError, match=r"a/b@c+: no \.jsonl or \.parquet file matches 'none\*'"):
        names("none*")


def test_a_source_on_the_hub_is_read_once_and_an_interrupted_one_again(inside, monkeypatch):
    def rows(*_):
        asked.append(1)
        yield ScannedRow("team/data@c:1", {"messages": "what is 1 ?", "ground_truth": "1"})
        yield ScannedRow("team/data@c:2", {"messages": 3})
        if len(asked) == 1:
            raise DataError("the hub is away")
        yield ScannedRow("team/data@c:3", {"messages": "what is 2 ?"})

    asked: list[int] = []
    monkeypatch.setattr(collect_stage, "scan", rows)
    monkeypatch.setattr(collect_stage, "ROOT", inside / "ledger")
    about = source("team/data", revision="c" * 40)
    with pytest.raises(DataError, match="the hub is away"):
        read("skip", s=about)
    assert not list((inside / "ledger").rglob("*.parquet"))
    first = read("skip", s=about)
    assert texts(first[0]) == ["what is 1 ?", "what is 2 ?"] and len(first[1]) == 1 and len(asked) == 2
    assert read("skip", s=about) == first and len(asked) == 2
    for changed in ({"columns": {"ground_truth": "ground_truth"}}, {"revision": "d" * 40}, {"limit": 1}, {"category": "other"}):
        read("skip", s=source("team/data", **({"revision": "c" * 40} | changed)))
    assert len(asked) == 6, "whatever changes what it gives"


def test_two_runs_that_read_a_source_at_once_both_have_all_of_it(inside, monkeypatch):
    """The second one begins while the first one reads."""

    def rows(*_):
        for i in range(3):
            if i == 2 and begun.pop():
                nested.append(read("skip", s=about))
            yield ScannedRow(f"team/data@c:{i}", {"messages": f"what is {i} ?"})

    nested: list = []
    begun = [False, True]
    monkeypatch.setattr(collect_stage, "scan", rows)
    monkeypatch.setattr(collect_stage, "ROOT", inside / "ledger")
    about = source("team/data", revision="c" * 40)
    first = read("skip", s=about)
    assert texts(first[0]) == texts(nested[0][0]) == ["what is 0 ?", "what is 1 ?", "what is 2 ?"]
    assert len(list((inside / "ledger/sources").iterdir())) == 2, "and no draft is left"


def test_a_source_of_which_only_half_was_pulled_is_read_again(inside, monkeypatch):
    monkeypatch.setattr(collect_stage, "scan", lambda *_: iter([ScannedRow("x:1", {"messages": "what is 1 ?"})]))
    monkeypatch.setattr(collect_stage, "ROOT", inside / "ledger")
    about = source("team/data", revision="c" * 40)
    first = read("skip", s=about)
    for path in (inside / "ledger/sources").iterdir():
        content = path.read_bytes()
        path.unlink()
        assert read("skip", s=about) == first
        path.write_bytes(content)


def test_a_hub_that_fails_in_the_middle_is_asked_to_go_on_behind_the_last_row(monkeypatch):
    class Cut:
        """Yields five rows, and fails behind the second and the fourth, the first time."""

        column_names = None

        def __init__(self):
            self.state, self.failures = 0, [2, 4]

        def __iter__(self):
            while self.state < 5:
                if self.failures and self.state == self.failures[0]:
                    self.failures.pop(0)
                    raise ConnectionResetError("cut")
                self.state += 1
                yield {"n": self.state}

        def state_dict(self):
            return self.state

        def load_state_dict(self, state):
            self.state = state

    slept: list[float] = []
    monkeypatch.setattr("distillery.core.hub.time.sleep", slept.append)
    monkeypatch.setattr("distillery.corpus.sources._opened", lambda origin, columns: Cut())
    assert [scanned.row["n"] for scanned in scan(Origin("a/b", "c" * 40, "train"), None)] == [1, 2, 3, 4, 5]
    assert slept == [1, 1], "patience begins anew once a row came"


def test_a_data_set_missing_from_the_hub_is_named():
    with pytest.raises(DataError, match="nobody/nothing: not a local file or folder, and not found on the hub"):
        pinned(source("nobody/nothing"))


def test_the_id_depends_on_roles_and_order():
    a, b = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert len({identify([a, b]), identify([b, a]), identify([a]), identify([a | {"role": "system"}])}) == 4


def test_a_source_without_queries_is_named(inside):
    write(inside, {"messages": "what is 1 ?", "origin": "a"})
    about: dict = {"source": "q.jsonl", "revision": None, "split": "train", "category": "math", "columns": {}}
    sources = {"s": about, "t": about | {"where": {"origin": "^b"}}}
    settings = {"world": "q.jsonl", "collect": {"malformed": "stop", "max_characters": 1000, "sources": sources}}
    (inside / "params.yaml").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"params.yaml: collect.sources.t: gave no query"):
        collect_stage.main()
    assert not (inside / "data/raw").exists()


@pytest.mark.slow
def test_a_killed_run_leaves_no_partial_output_and_restarts(inside):
    write(inside, *({"messages": f"what is {i} ?"} for i in range(60_000)))
    sources: dict = {"s": {"source": "q.jsonl", "revision": None, "split": "train", "category": "math", "columns": {}}}
    settings = {"world": "q.jsonl", "collect": {"malformed": "stop", "max_characters": 1000, "sources": sources}}
    (inside / "params.yaml").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "stages.collect"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for seconds in (1.0, 2.5):
        run = subprocess.Popen(command, cwd=inside, env=env, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        run.kill()
        run.wait()
        assert not (inside / "data/raw").exists() or len(tables.read_table("data/raw", QUERY)) == 60_000
    subprocess.run(command, cwd=inside, env=env, check=True)
    assert len(tables.read_table("data/raw", QUERY)) == 60_000 and not list(inside.glob("data/*.tmp"))


def test_a_query_may_have_the_maximum_length(tmp_path):
    path = write(tmp_path, {"messages": "x" * 30}, {"messages": "x" * 31})
    queries, malformed = read("skip", 30, s=source(path))
    assert len(queries) == 1 and malformed[0]["reason"] == "too_long: 31 characters, more than collect.max_characters (30)"


def prepared(folder, sources, malformed="skip", **files):
    for name, rows in files.items():
        write(folder, *rows, name=f"{name}.jsonl")
    write_json({f"{name}.jsonl": "hash" for name in files}, folder / "world.json")
    about: dict = {"revision": None, "split": "train", "category": "math", "columns": {}}
    settings = {name: {"source": f"{name}.jsonl"} | about | more for name, more in sources.items()}
    collected_with = {"malformed": malformed, "max_characters": 1000, "sources": settings}
    (folder / "params.yaml").write_text(json.dumps({"world": "world.json", "collect": collected_with}))


def test_the_stage_writes_queries_malformed_rows_and_their_counts(inside, capsys):
    bad = [{"messages": 3, "n": i} for i in range(7)]
    prepared(
        inside, {"a": {}, "b": {}}, a=[{"messages": "what is 1 ?"}, *bad, "{torn"], b=[{"messages": f"{i} ?"} for i in "23"]
    )
    collect_stage.main()
    rows = tables.read_table("data/raw", QUERY).to_pylist()
    assert sorted(row["messages"][0]["content"] for row in rows) == ["2 ?", "3 ?", "what is 1 ?"]
    rejected = tables.read_table("data/rejected/collect", collect_stage.MALFORMED).to_pylist()
    assert [json.loads(row["row"]) for row in rejected] == [*bad, None]
    found = json.loads((inside / "metrics/collect.json").read_text())
    assert (found["queries"], found["sources"]) == (3, {"a": 1, "b": 2})
    assert found["malformed"] == {"json": 1, "messages": 7}
    assert capsys.readouterr().out.count("skipped a.jsonl") == 5, "the first few are shown"


def test_nothing_readable_at_all_is_an_error(inside):
    prepared(inside, {"a": {}}, a=[{"messages": 3}])
    with pytest.raises(DataError, match=r"no source gave a query; malformed rows: 1 messages, see data/rejected/collect"):
        collect_stage.main()


def test_columns_of_other_languages_stay_as_they_are(inside):
    prepared(inside, {"a": {"columns": {"ground_truth": "gold"}}}, a=[{"messages": "x ?", "gold": {"é": "漢"}}])
    collect_stage.main()
    assert tables.read_table("data/raw", QUERY)["ground_truth"].to_pylist() == ['{"é": "漢"}']


def test_what_is_shown_of_a_row_is_bounded(tmp_path):
    rows = {"messages": 3, "text": "x" * 200_000}, {"messages": "x", "category": "y" * 2_000}
    _, (first,) = read("skip", s=source(write(tmp_path, rows[0])))
    _, (second,) = read("skip", s=source(write(tmp_path, rows[1]), category=None))
    assert len(first["row"]) == 100_000 and len(second["reason"]) == 1000
