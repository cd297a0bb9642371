"""Sorting queries over buckets on disk, into parts that are bounded by rows and by text."""

from distillery.core import tables
from distillery.core.chat import identify
from distillery.core.schemas import QUERY
from distillery.corpus import external_sort
from distillery.corpus.external_sort import Buckets


def test_buckets_sort_stably_into_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_PER_PART", 40)
    monkeypatch.setattr(external_sort, "ROWS_AT_ONCE", 16)
    rows = [{"id": identify([{"role": "user", "content": str(i % 90)}]), "source": str(i)} for i in range(150)]
    (tmp_path / "buckets").mkdir()
    spread = Buckets(tmp_path / "buckets")
    for row in rows:
        spread.add(row | {"messages": [], "category": "math"})
    parts = [[(row["id"], row["source"]) for row in part.to_pylist()] for part in spread.parts()]
    assert len(parts) == 4 and not list((tmp_path / "buckets").iterdir())
    assert [pair for part in parts for pair in part] == sorted(
        ((row["id"], row["source"]) for row in rows), key=lambda pair: pair[0]
    )
    assert all(tables.part_of(key, 4) == i for i, part in enumerate(parts) for key, _ in part)


def test_parts_are_bounded_by_their_text_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BYTES_PER_PART", 40_000)
    monkeypatch.setattr(external_sort, "CHARACTERS_AT_ONCE", 10_000)
    rows = [{"id": identify([{"role": "user", "content": str(i)}]), "test_cases": "7" * 1500} for i in range(100)]
    (tmp_path / "buckets").mkdir()
    spread, most = Buckets(tmp_path / "buckets"), 0
    for row in rows:
        spread.add(dict.fromkeys(QUERY.names) | row | {"messages": [], "category": "code"})
        most = max(most, len(spread.held))
    parts = list(spread.parts())
    assert most == 6, "a seventh query is over 10,000 characters"
    assert len(parts) == 4 and max(part.nbytes for part in parts) < 2 * 40_000
    assert [key for part in parts for key in part["id"].to_pylist()] == sorted(row["id"] for row in rows)
