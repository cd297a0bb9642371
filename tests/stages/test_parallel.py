import json

from stages.parallel import card, released, shared, trainable
from stages.tables import CATEGORIES
from tests.conftest import make_query

TRACE = {"text": "<think> a </think> <answer> 5 </answer>", "think": "a", "answer": "5", "verify_score": 1.0}


def test_only_what_every_teacher_answered_is_shared():
    rows = lambda ids: [{"query_id": key} for key in ids]  # noqa: E731
    assert shared({"x": rows("abc"), "y": rows("cb"), "z": rows("dbc")}) == ["b", "c"]


def test_a_query_too_long_for_one_teacher_trains_nobody():
    rows = lambda *lengths: [{"query_id": q, "dialogue_tokens": n} for q, n in zip("abc", lengths, strict=True)]  # noqa: E731
    assert trainable({"x": rows(5, 9, 5), "y": rows(5, 5, 8)}, ["a", "b", "c"], 8) == ["a", "c"]


def test_a_row_is_in_the_released_schema():
    row = released(make_query(), TRACE | {"teacher": "t", "perplexity": 2.5}, "be brief")
    human, assistant = row["conversations"]
    assert (row["system"], human["from"], assistant["from"]) == ("be brief", "human", "assistant")
    assert assistant["value"] == TRACE["text"]
    names = ["source", "category", "ground_truth", "test_case", "instruction_constrain"]
    names += ["think_content", "answer_content", "verify_score", "model_name", "ppl"]
    assert list(assistant["info"]) == list(human["info"]) == names
    assert human["info"]["think_content"] is None and assistant["info"]["ppl"] == 2.5


def test_a_data_set_with_its_card_loads(tmp_path):
    from datasets import load_dataset

    row = released(make_query(), TRACE | {"teacher": "t", "perplexity": 2.5}, "")
    counts = dict.fromkeys(CATEGORIES, 0) | {"math": 2, "science": 1}
    for category in CATEGORIES:
        lines = "".join(json.dumps(row) + "\n" for _ in range(counts[category]))
        (tmp_path / f"{category}.jsonl").write_text(lines)
    (tmp_path / "README.md").write_text(card("t", counts, {"queries": "3"}))
    whole = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(whole) == 3 and whole[0]["conversations"][1]["info"]["ppl"] == 2.5
    assert len(load_dataset(str(tmp_path), "math", split="train", cache_dir=str(tmp_path / "cache"))) == 2
