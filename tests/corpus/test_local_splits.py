"""Which files of a local folder belong to a split: those that `datasets` would read."""

import json

import pytest
from datasets import load_dataset

from distillery.core.errors import ConfigError, DataError
from distillery.corpus.sources import Origin, is_typed, scan

NAMED = {
    "by file": {"data/train-2024.jsonl": "a", "data/test.jsonl": "b", "README.md": None},
    "by folder": {"train/x.jsonl": "a", "train/y.jsonl": "c", "dev/x.jsonl": "b"},
    "without": {"maths.jsonl": "a", "code.jsonl": "b"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def make(files):
        for name, text in files.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("# card" if text is None else json.dumps({"text": text}) + "\n")
        return tmp_path / "set"

    return make


def texts(path, split):
    return [scanned.row["text"] for scanned in scan(Origin(str(path), None, split), None)]


@pytest.mark.parametrize(
    ("kind", "split"),
    [("by file", "train"), ("by file", "test"), ("by folder", "train"), ("by folder", "validation"), ("without", "train")],
)
def test_a_split_of_a_folder_is_the_one_that_datasets_reads(folder, tmp_path, kind, split):
    path = folder(NAMED[kind])
    theirs = load_dataset(str(path), split=split, cache_dir=str(tmp_path / "cache"))["text"]
    assert sorted(texts(path, split)) == sorted(theirs)


def test_without_a_split_all_files_are_read(folder):
    assert sorted(texts(folder(NAMED["by file"]), None)) == ["a", "b"]


@pytest.mark.parametrize(("kind", "split", "there"), [("by file", "tset", "train, test"), ("without", "test", "train")])
def test_a_split_that_is_not_there_is_named_with_those_that_are(folder, kind, split, there):
    path = folder(NAMED[kind])
    for read in (texts, lambda path, split: is_typed(Origin(str(path), None, split))):
        with pytest.raises(DataError, match=f"no split '{split}', only {there}; `split: null` reads all of it"):
            read(path, split)


def test_one_file_is_a_train_split_or_has_none(folder):
    path = folder(NAMED["without"]) / "maths.jsonl"
    assert texts(path, "train") == texts(path, None) == ["a"]
    with pytest.raises(DataError, match="no split 'test', only train"):
        texts(path, "test")


def test_a_data_set_on_the_hub_needs_one(inside):
    with pytest.raises(ConfigError, match=r"params.yaml: collect.sources.s.source: a/b: name its `split`"):
        list(scan(Origin("a/b", "c" * 40, None), "collect.sources.s.source"))
