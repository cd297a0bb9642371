import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from transformers import Qwen3Config, Qwen3ForCausalLM

from distillery.core.files import read_json_lines
from distillery.core.formats import STUDY
from distillery.core.response_parts import columns_of
from distillery.core.schemas import CATEGORIES, CURATED, QUERY
from distillery.corpus.arm_selection import shared
from distillery.corpus.data_card import Contents, card, size_of
from stages.parallel import RELEASED, WRITERS, released, rows_of, write_categories
from tests.support.builders import make_query
from tests.support.template_tokenizer import tokenizer_for

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CHATML += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TRACE = columns_of("<think> a </think> <answer> 5 </answer>", STUDY) | {"verify_score": 1.0}


def curated(*rows):
    """A CURATED table of (query id, dialogue tokens)."""
    return pa.Table.from_pylist(
        [{"query_id": key, "dialogue_tokens": tokens, "verdict": "pass"} for key, tokens in rows], CURATED
    )


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
    assert list(assistant["info"]) == names and assistant["info"]["ppl"] == 2.5
    assert human["info"] is None, "tests are there once"


def test_a_querys_system_prompt_follows_the_pipelines():
    query = make_query(messages=[{"role": "system", "content": "in French"}, {"role": "user", "content": "greet me"}])
    trace = TRACE | {"teacher": "t", "perplexity": 2.5}
    assert released(query, trace, "be brief", STUDY)["system"] == "be brief\n\nin French"
    assert released(query, trace, "", STUDY)["system"] == "in French"


@pytest.mark.parametrize("files", list(WRITERS))
def test_a_data_set_with_its_card_loads(tmp_path, files):
    from datasets import load_dataset

    row = released(make_query(), TRACE | {"teacher": "t", "perplexity": 2.5}, "", STUDY)
    counts = dict.fromkeys(CATEGORIES, 0) | {"math": 2, "science": 1}
    for category in ("math", "science"):
        (tmp_path / category).mkdir()
        WRITERS[files](iter([row] * counts[category]), tmp_path / category / f"part-00000.{files}")
    contents = Contents(counts, {"a": 2, "b": 1}, {"a": "mit"})
    (tmp_path / "README.md").write_text(card("t", "All passed.", contents, {"queries": "3"}, RELEASED, ["en"], files))
    whole = load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(whole) == 3 and whole[0]["conversations"][1]["info"]["ppl"] == 2.5
    assert whole[0]["conversations"][0] == {"from": "human", "value": row["conversations"][0]["value"], "info": None}
    assert whole[0]["messages"][-1] == {"role": "assistant", "content": "5", "reasoning_content": "a"}
    assert len(load_dataset(str(tmp_path), "math", split="train", cache_dir=str(tmp_path / "cache"))) == 2


def block(text, language):
    """The first fenced block of a language."""
    return text.split(f"```{language}\n")[1].split("```")[0]


@pytest.mark.slow
def test_the_cards_own_lines_train_on_thought_and_answer_in_trl(tmp_path, monkeypatch):
    """The snippet itself, but for the model's name, the length and the training."""
    import trl

    tokenizer_for(CHATML).save_pretrained(tmp_path / "tiny")
    shape: dict = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4}
    heads: dict = {"num_attention_heads": 2, "num_key_value_heads": 1}
    Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer_for(CHATML)), **shape, **heads)).save_pretrained(tmp_path / "tiny")
    row = released(make_query(), TRACE | {"teacher": "t", "perplexity": 2.5}, "be brief", STUDY)
    (tmp_path / "t/math").mkdir(parents=True)
    WRITERS["parquet"](iter([row]), tmp_path / "t/math/part-00000.parquet")
    text = card("t", "All passed.", Contents({"math": 1}, {"a": 1}, {"a": "mit"}), {}, RELEASED, ["en"], "parquet")
    (tmp_path / "t/README.md").write_text(text)
    monkeypatch.chdir(tmp_path)
    changed = {'"Qwen/Qwen3-1.7B"': '"tiny"', "max_length=32768, packing=True": "max_length=256, use_cpu=True"}
    code = block(text, "python")
    for theirs, ours in changed.items():
        assert theirs in code
        code = code.replace(theirs, ours)
    made: list[trl.SFTTrainer] = []
    monkeypatch.setattr(trl.SFTTrainer, "train", lambda self: made.append(self))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    exec(code, {})
    (example,), tokenizer = list(made[0].train_dataset), made[0].processing_class
    learnt = [token for token, label in zip(example["input_ids"], example["labels"], strict=True) if label != -100]
    assert tokenizer.decode(learnt).startswith(TRACE["text"]) and "be brief" in tokenizer.decode(example["input_ids"])


def test_the_other_snippets_name_what_the_rows_have():
    """LLaMA-Factory 0.9.5 and axolotl 0.19.0 were given them and read thought and answer; here it is what they refer to."""
    text = card("t", "All passed.", Contents({"math": 1}, {"a": 1}, {"a": "mit"}), {}, RELEASED, ["en"], "parquet")
    row = released(make_query(), TRACE | {"teacher": "t", "perplexity": 2.5}, "be brief", STUDY)
    factory = json.loads(block(text, "json"))["t"]
    (axolotl,) = yaml.safe_load(block(text, "yaml"))["datasets"]
    assert factory["hf_hub_url"] == axolotl["path"] == "t", "as `datasets` loads it, a folder per category"
    assert row[factory["columns"]["system"]] == "be brief"
    tags, (human, assistant) = factory["tags"], row[factory["columns"]["messages"]]
    assert (human[tags["role_tag"]], assistant[tags["role_tag"]]) == (tags["user_tag"], tags["assistant_tag"])
    assert assistant[tags["content_tag"]] == TRACE["text"]
    named = axolotl["message_property_mappings"]
    assert row[axolotl["field_messages"]][-1][named["content"]] == TRACE["text"]
    assert row[axolotl["field_messages"]][-1][named["role"]] == "assistant"


def matter(contents):
    text = card("t", "All passed.", contents, {}, RELEASED, ["en", "zh"], "parquet")
    return yaml.safe_load(text.split("---\n")[1]), text


def test_a_card_has_what_the_hub_asks_for():
    head, text = matter(Contents({"math": 1500}, {"a": 1000, "b": 500}, {"a": "mit", "b": "mit"}))
    assert (head["license"], head["language"], head["size_categories"]) == ("mit", ["en", "zh"], ["1K<n<10K"])
    assert head["task_categories"] == ["text-generation"] and "| a | 1000 | mit |" in text and "&id" not in text
    mixed, text = matter(Contents({"math": 2}, {"a": 1, "b": 1}, {"a": "mit"}))
    assert mixed["license"] == "other" and "| b | 1 | not stated |" in text
    assert [size_of(rows) for rows in (0, 999, 1000, 10**7)] == ["n<1K", "n<1K", "1K<n<10K", "n>10M"]


def queries_and_traces(*questions, **more):
    queries = [make_query(text, **(more if number else {})) for number, text in enumerate(questions)]
    traces = [TRACE | {"query_id": query["id"], "teacher": "t", "perplexity": 2.5} for query in queries]
    return pa.Table.from_pylist(queries, QUERY), pa.Table.from_pylist(traces, CURATED)


@pytest.mark.parametrize("files", list(WRITERS))
def test_each_category_has_its_files_and_an_empty_one_none(tmp_path, files):
    queries, traces = queries_and_traces("one ?", "two ?", "three ?", category="code", test_cases="[1]")
    counts = write_categories(tmp_path, 3, queries.take([2, 0, 1]), traces, ("", STUDY), [files])
    assert counts == dict.fromkeys(CATEGORIES, 0) | {"math": 1, "code": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code", "math"]
    (path,) = (tmp_path / "code").iterdir()
    assert path.name == f"part-00003.{files}"
    rows = pq.read_table(path).to_pylist() if files == "parquet" else read_json_lines(path)
    assert [row["conversations"][0]["value"] for row in rows] == ["two ?", "three ?"]
    assert [row["conversations"][1]["info"]["test_case"] for row in rows] == ["[1]", "[1]"]


def test_non_ascii_text_is_not_escaped(tmp_path):
    query = make_query("求 x² − 1 的根 é")
    trace = TRACE | {"query_id": query["id"], "teacher": "t", "perplexity": 2.5} | columns_of("答案 ½", STUDY)
    tables = pa.Table.from_pylist([query], QUERY), pa.Table.from_pylist([trace], CURATED)
    WRITERS["jsonl"](rows_of(*tables, "系统", STUDY), tmp_path / "x.jsonl")
    line = (tmp_path / "x.jsonl").read_text()
    assert "求 x² − 1 的根 é" in line and "答案 ½" in line and "\\u" not in line
