from collections import Counter
from random import Random

import pyarrow as pa

from distillery.core.files import ScannedRow
from distillery.core.schemas import QUERY
from distillery.corpus.benchmark_index import Benchmarks
from mini import corpus
from mini.config import Benchmark, Corpus
from mini.sampling import draw
from stages.clean import Clean, clean
from stages.collect import Source, as_query

PARAMS = Corpus(seed=0, queries=60, duplicates=6, urls=3, tables=3, garbage=8, twins=9)


def test_a_benchmark_has_the_configured_levels_and_no_duplicates():
    rows = corpus.benchmark("b", Benchmark("story", {"1": 4, "3": 5}))
    assert Counter(row["level"] for row in rows) == {"1": 4, "3": 5}
    assert len({row["question"] for row in rows}) == 9


def test_cleaning_finds_the_planted_defects():
    rng = Random(0)
    good = [corpus.query(draw(rng)) for _ in range(PARAMS.queries)]
    source = Source("x", None, "train", None, {})
    rows = [as_query(ScannedRow("x", row), "mini", source, 10_000) for row in [*good, *corpus.dirt(rng, PARAMS, good)]]
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["id"]), QUERY)
    reasons = Counter(clean(table, Clean(0.3, 8))[1]["reason"].to_pylist())
    assert reasons["duplicate"] >= PARAMS.duplicates
    assert (reasons["url"], reasons["table"]) == (PARAMS.urls, PARAMS.tables)
    assert reasons["empty"] + reasons["incomplete"] + reasons["unicode_ratio"] == PARAMS.garbage


def test_labelled_responses_are_right_where_their_label_says_so():
    rows = corpus.labelled(Random(0), 80)
    science = [row for row in rows if row["category"] == "science"]
    assert len(science) == 40 and {row["label"] for row in science} == {True, False}
    assert all((row["response"].split()[-2] == row["ground_truth"]) <= row["label"] for row in science)
    assert {row["category"] for row in rows} == {"science", "multiturn", "other"}


def test_planted_benchmark_copies_are_found_unless_reworded():
    questions = corpus.benchmark("b", Benchmark("story", {"3": 12}))
    items = [{"id": f"b-{i}", "question": row["question"]} for i, row in enumerate(questions)]
    benchmarks = Benchmarks(items, 10, 8, 0.6)
    found = [benchmarks.match(row["messages"][0]["content"]) for row in corpus.twins(Random(0), PARAMS, questions)]
    assert [match and match[0] for match in found[:2]] == ["exact", "exact"]
    assert sum(match is not None for match in found) >= 6
