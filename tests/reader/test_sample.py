import json
import re

import pytest

from distillery.core.errors import DataError
from distillery.reader import labels
from distillery.reader.page import sample_page
from distillery.reader.sample import drawn, sampled_queries, sampled_questions, sampled_removed
from tests.support.results import MODELS, SIZES, TEACHERS


def test_a_sample_is_bounded_seeded_and_independent_of_the_order():
    keys = [(kind, f"{kind}{n}") for kind in "ab" for n in range(50)]
    found = drawn(keys, 7, 1)
    assert found == drawn(reversed(keys), 7, 1) != drawn(keys, 7, 2)
    assert len(found) == 14 and len(set(found)) == 14
    assert set(drawn(keys, 3, 1)) < set(found), "a smaller sample is part of a larger one"


def test_a_query_has_every_attempt_with_its_evidence(here):
    (row, *_) = sampled_queries(TEACHERS, 5, 0)
    attempts = row["teachers"]["good"]
    assert [each["verdict"] for each in attempts] == ["fail", "pass"]
    first, second = attempts
    assert (first["reason"], first["verifier"], first["tokens"], first["perplexity"]) == ("7 is not 5", "math", 10, 2.5)
    assert "let me see" in first["thought"] and "<math" in second["answer"] and "<img" not in first["answer"]
    assert [each["removed"] for each in sampled_queries(TEACHERS, 5, 0)[0]["teachers"]["good"]].count("ngram") <= 1


def test_queries_that_one_teacher_alone_verified_are_known(here):
    alone = [row for row in sampled_queries(TEACHERS, 5, 0) if row["verified"] == ["good"]]
    assert [row["text"] for row in alone] == ["count to ten"]


def test_removed_rows_of_every_stage_and_the_twin_with_common_words(here):
    rows = sampled_removed(TEACHERS, 3, 0)
    rules = [row["rule"] for row in rows]
    assert rules.count("clean: url") == 3 and rules.count("curate: ngram") == 2 and rules.count("collect: json") == 2
    (twin,) = (row for row in rows if row["rule"] == "decontaminate: ngram")
    assert twin["twin"] == "aime-003" and twin["twin_html"] == "<div class=text><mark>What is</mark> <mark>3</mark> + 1?</div>"
    assert "<mark>What is</mark> then <mark>3</mark>" in twin["html"]
    assert len({row["id"] for row in rows}) == len(rows)


def test_questions_have_all_models_samples_right_ones_first(here):
    rows = sampled_questions(list(MODELS), list(SIZES), 2, 0)
    assert [row["benchmark"] for row in rows] == ["aime", "aime", "lcb", "lcb"]
    for row in rows:
        verdicts = [each["verdict"] for each in row["models"]["good"]]
        assert len(verdicts) == 8 and verdicts == sorted(verdicts, reverse=True) and len(row["models"]["base"]) == 4


def test_the_page_is_one_file_whose_texts_cannot_end_its_script(here):
    views = {"queries": sampled_queries(TEACHERS, 5, 0), "removed": [], "questions": []}
    page = sample_page("T", TEACHERS, views)
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data)["queries"] == views["queries"]
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)


def test_labels_give_a_precision_per_rule_and_the_last_one_counts(tmp_path):
    path = tmp_path / "labels.jsonl"
    assert labels.read(path) == {} and labels.precision_rows({}) == []
    for key, label in (("a", "right"), ("b", "right"), ("c", "wrong"), ("a", "wrong"), ("c", None)):
        labels.add({"id": key, "rule": "clean: url", "label": label}, path)
    assert labels.precision_rows(labels.read(path)) == [["clean: url", "2", "50 % [9, 91]"]]
    path.write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match=r"labels.jsonl, line 1: no label"):
        labels.read(path)
    path.write_text('{"id": "a", "rule": "r", "label": "maybe"}\n')
    with pytest.raises(DataError, match=r"line 1: label 'maybe' is neither right nor wrong"):
        labels.read(path)
