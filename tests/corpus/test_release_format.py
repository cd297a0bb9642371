import json

import pyarrow as pa

from distillery.core.response_format import STUDY, columns_of
from distillery.core.schemas import CATEGORIES, CURATED, QUERY
from stages.parallel import card, released, rows_by_category, shared
from tests.support.builders import make_query

TRACE = columns_of("<think> a </think> <answer> 5 </answer>", STUDY) | {"verify_score": 1.0}


def curated(*rows):
    """A CURATED table of (query id, dialogue tokens)."""
    return pa.Table.from_pylist([{"query_id": key, "dialogue_tokens": tokens} for key, tokens in rows], CURATED)


def test_only_queries_answered_by_all_teachers_are_shared():
    tables = {"x": curated(("a", 1), ("b", 1), ("c", 1)), "y": curated(("b", 1), ("c", 1)), "z": curated(("b", 1), ("d", 1))}
    assert shared(tables, 8).to_pylist() == [{"query_id": "b", "trains": True}]
    assert shared({"x": tables["x"]}, 8)["query_id"].to_pylist() == ["a", "b", "c"]
    assert len(shared(tables | {"w": curated()}, 8)) == 0


def test_a_query_too_long_for_any_teacher_is_not_trained_on():
    found = shared({"x": curated(("a", 5), ("b", 9), ("c", 5)), "y": curated(("a", 5), ("b", 5), ("c", 8))}, 8)
    assert found["trains"].to_pylist() == [True, False, True]


def test_rows_have_the_released_schema():
    row = released(make_query(), TRACE | {"teacher": "t", "perplexity": 2.5}, "be brief", STUDY)
    human, assistant = row["conversations"]
    assert (row["system"], human["from"], assistant["from"]) == ("be brief", "human", "assistant")
    assert assistant["value"] == TRACE["text"]
    names = ["source", "category", "ground_truth", "test_case", "instruction_constrain"]
    names += ["think_content", "answer_content", "verify_score", "model_name", "ppl"]
    assert list(assistant["info"]) == list(human["info"]) == names
    assert human["info"]["think_content"] is None and assistant["info"]["ppl"] == 2.5


def test_a_querys_system_prompt_follows_the_pipelines():
    query = make_query(messages=[{"role": "system", "content": "in French"}, {"role": "user", "content": "greet me"}])
    trace = TRACE | {"teacher": "t", "perplexity": 2.5}
    assert released(query, trace, "be brief", STUDY)["system"] == "be brief\n\nin French"
    assert released(query, trace, "", STUDY)["system"] == "in French"


def test_a_data_set_with_its_card_loads(tmp_path):
    from datasets import load_dataset

    row = released(make_query(), TRACE | {"teacher": "t", "perplexity": 2.5}, "", STUDY)
    counts = dict.fromkeys(CATEGORIES, 0) | {"math": 2, "science": 1}
    for category in CATEGORIES:
        lines = "".join(json.dumps(row) + "\n" for _ in range(counts[category]))
        (tmp_path / f"{category}.jsonl").write_text(lines)
    (tmp_path / "README.md").write_text(card("t", counts, {"queries": "3"}))
    whole = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(whole) == 3 and whole[0]["conversations"][1]["info"]["ppl"] == 2.5
    assert len(load_dataset(str(tmp_path), "math", split="train", cache_dir=str(tmp_path / "cache"))) == 2


def test_non_ascii_text_is_not_escaped():
    query = make_query("求 x² − 1 的根 é")
    trace = TRACE | {"query_id": query["id"], "teacher": "t", "perplexity": 2.5} | columns_of("答案 ½", STUDY)
    tables = pa.Table.from_pylist([query], QUERY), pa.Table.from_pylist([trace], CURATED)
    ((category, line),) = rows_by_category(*tables, "系统", STUDY)
    assert category == "math" and "求 x² − 1 的根 é" in line and "答案 ½" in line and "\\u" not in line
