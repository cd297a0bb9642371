from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core import files, tables
from distillery.core.errors import DataError

SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int32())])


def test_the_same_rows_give_the_same_bytes(tmp_path):
    rows = [{"id": str(i), "n": i} for i in range(50)]
    tables.write_table(rows, tmp_path / "a", SCHEMA)
    tables.write_table(rows, tmp_path / "b", SCHEMA)
    assert (tmp_path / "a/part-00000.parquet").read_bytes() == (tmp_path / "b/part-00000.parquet").read_bytes()
    assert tables.read_table(tmp_path / "a", SCHEMA).to_pylist() == rows


def test_an_empty_table_can_be_read_back(tmp_path):
    tables.write_table([], tmp_path / "t", SCHEMA)
    assert tables.read_table(tmp_path / "t", SCHEMA).to_pylist() == []


@pytest.mark.parametrize(("rows", "parts"), [(0, 1), (1, 1), (7, 1), (8, 2), (15, 4), (1000, 256)])
def test_the_number_of_parts_is_a_power_of_two(monkeypatch, rows, parts):
    monkeypatch.setattr(tables, "ROWS_PER_PART", 7)
    assert tables.parts_for(rows) == parts


@pytest.mark.slow
@given(st.lists(st.binary(min_size=16, max_size=16).map(bytes.hex), unique=True), st.sampled_from([1, 2, 8, 64]))
def test_parts_hold_all_rows_in_order_by_id_range(ids, parts):
    rows = [{"id": key, "n": i} for i, key in enumerate(sorted(ids))]
    with TemporaryDirectory() as folder:
        tables.write_table(rows, Path(folder) / "t", SCHEMA, parts)
        paths = tables.part_paths(Path(folder) / "t")
        assert tables.read_table(Path(folder) / "t", SCHEMA).to_pylist() == rows
        for part, path in enumerate(paths):
            assert all(tables.part_of(key, parts) == part for key in tables.read_part(path, SCHEMA)["id"].to_pylist())
    assert len(paths) == parts


def test_a_missing_column_is_named(tmp_path):
    tables.write_table([{"id": "a", "n": 1}], tmp_path / "t", SCHEMA)
    with pytest.raises(DataError, match=r"missing column 'x'; it has id, n"):
        tables.read_table(tmp_path / "t", SCHEMA.append(pa.field("x", pa.string())))


def test_a_missing_folder_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="no table there; run `dvc repro`"):
        tables.read_table(tmp_path / "nothing")


def test_a_failed_write_keeps_the_old_folder(tmp_path):
    tables.write_table([{"id": "old", "n": 1}], tmp_path / "t", SCHEMA)
    with pytest.raises(RuntimeError), files.atomic_dir(tmp_path / "t") as folder:
        (folder / "part-00000.parquet").write_text("half")
        raise RuntimeError
    assert tables.read_table(tmp_path / "t").to_pylist() == [{"id": "old", "n": 1}]


@pytest.mark.parametrize("line", [b'{"a": 1', b"[1]", b"\xff\xfe", b"nan?", b"[" * 100_000])
def test_a_malformed_line_is_reported_with_its_number(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b'\n{"b": 2}\n')
    rows = list(files.scan_json_lines(path))
    assert [row.where for row in rows] == [f"{path}:1", f"{path}:3", f"{path}:4"]
    assert rows[1].problem and not rows[0].problem and rows[2].checked() == {"b": 2}
    with pytest.raises(DataError, match=r"rows.jsonl:3: "):
        rows[1].checked()
