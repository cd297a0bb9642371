"""From verified traces to training windows: tokenise, curate, parallel, analyse and pack on a handful of rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from distillery.core.errors import DataError
from distillery.core.files import write_json
from distillery.core.formats import STUDY
from distillery.core.model_locks import read as read_lock
from distillery.core.response_parts import columns_of
from distillery.core.schemas import CURATED, PERPLEXITY, QUERY, SHARED, TRACE
from distillery.core.tables import read_table, write_table
from distillery.corpus.token_shards import open_shard, pad_token
from distillery.training.tokenization import load_tokenizer
from mini.judge_data import prompts
from mini.tokenizer import build
from stages import analyse, curate, pack, parallel, tokenise
from tests.support.builders import make_query

ROOT = Path(__file__).resolve().parents[2]
WINDOW = 48
GOOD, LOOP, RARE, WORDY, HARD = (f"what is {n} + 3 ?" for n in range(2, 7))
QUERIES = sorted((make_query(text, "5") for text in (GOOD, LOOP, RARE, WORDY, HARD)), key=lambda query: query["id"])
IDS = {query["messages"][0]["content"]: query["id"] for query in QUERIES}


def answer(thought: str) -> str:
    return f"<think> {thought} </think> <answer> 5 </answer>"


TEXTS = {
    "a": {
        GOOD: answer("2 + 3 = 5 ;"),
        LOOP: answer(("check : " * 12).strip()),
        RARE: answer("3 ;"),
        WORDY: answer("4 + 3 = 7 ; let me check : 7 - 3 = 4 ; that is right . ok ."),
    },
    "b": {GOOD: answer("so 5 ."), LOOP: answer("ok ."), RARE: answer("4 ;"), WORDY: answer("ok ."), HARD: answer("")},
}
PERPLEXITIES = {"a": {GOOD: 1.5, LOOP: 1.25, RARE: 9.0, WORDY: 2.0}, "b": dict.fromkeys((GOOD, LOOP, RARE, WORDY, HARD), 3.0)}


def trace_rows(teacher: str) -> list[dict]:
    """A failed and a passed attempt at each query but the hard one, which only fails."""
    rows = []
    for text, key in sorted(IDS.items(), key=lambda pair: pair[1]):
        about = {"query_id": key, "teacher": teacher, "seed": 0, "finish_reason": "stop", "verifier": "math"}
        about |= {"completion_tokens": 10, "model_revision": "r", "engine": "x"}
        rows.append(about | {"attempt": 1, "verdict": "fail", "text": "5", "verify_score": 0.0, "reason": "no"})
        if text in TEXTS[teacher]:
            parts = columns_of(TEXTS[teacher][text], STUDY)
            rows.append(about | parts | {"attempt": 2, "verdict": "pass", "verify_score": 1.0, "reason": ""})
    return rows


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder in which the stages have run, in order."""
    folder = tmp_path_factory.mktemp("windows")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        tokenizer = build("", prompts())
        patch.chdir(folder)
        tokenizer.save_pretrained("base")
        prepare()
        for teacher in "ab":
            tokenise.main(teacher)
            curate.main(teacher)
        parallel.main()
        analyse.main()
        for teacher in "ab":
            pack.main(teacher)
    return folder


def prepare() -> None:
    settings = {
        "runner": "native",
        "seed": 0,
        "unverified": False,
        "teachers": ["a", "b"],
        "arms": ["a", "b"],
        "arm": {},
        "teacher": {name: {"max_perplexity": 8.0} for name in "ab"},
        "curate": {"ngram": 4, "max_repeats": 20, "max_repetition": 0.5, "memory": 1},
        "price": {"device_hour": 1.0},
        "parallel": {"files": "both"},
        "collect": {"sources": {"test": {"license": "mit"}}},
        "pack": {"window": WINDOW},
        "system_prompt": "be brief",
        "student_format": "study",
        "train": {"packed": True, "system_prompt": None},
        "verify": {"rules": {}},
        "analyse": {"spans": [10, 20]},
    }
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    write_table(QUERIES, "data/queries", QUERY)
    lock = {"id": "base", "revision": "0", "local": True, "files": {}}
    write_json(lock | {"role": "base"}, "models/locks/roles/base.json")
    for teacher in "ab":
        write_json(lock | {"role": f"teachers/{teacher}"}, f"models/locks/teachers/{teacher}.json")
        write_json({"sampling": {"temperature": 0.6}}, f"metrics/distill/{teacher}.json")
        write_table(trace_rows(teacher), f"data/traces/{teacher}", TRACE)
        scores = [
            {"query_id": IDS[text], "attempt": 2, "perplexity": value, "fit": -value}
            for text, value in PERPLEXITIES[teacher].items()
        ]
        write_table(sorted(scores, key=lambda row: row["query_id"]), f"data/perplexity/{teacher}", PERPLEXITY)


@pytest.fixture
def here(results, monkeypatch):
    monkeypatch.chdir(results)
    return results


def metrics(name: str) -> dict:
    return json.loads(Path(f"metrics/{name}.json").read_text())


def test_the_tokens_are_prompt_and_response_of_each_verified_trace(here):
    shard, tokenizer = open_shard("data/tokens/a", 0), load_tokenizer("base", None)
    assert shard.names.to_pylist() == sorted(IDS[text] for text in TEXTS["a"])
    assert metrics("tokenise/a")["traces"] == 4 and metrics("tokenise/a")["tokens"] == len(shard.ids)
    for i, name in enumerate(shard.names.to_pylist()):
        (question,) = (text for text, key in IDS.items() if key == name)
        tokens = shard.ids[shard.offsets[i] : shard.offsets[i + 1]].tolist()
        prompt, response = tokens[: shard.prompts[i]], tokens[shard.prompts[i] :]
        assert question in tokenizer.decode(prompt) and TEXTS["a"][question] in tokenizer.decode(response)
        assert "<think>" not in tokenizer.decode(prompt) and question not in tokenizer.decode(response)
        assert len(response) == shard.responses[i]


def test_curation_keeps_and_removes_with_a_reason(here):
    kept = read_table("data/curated/a", CURATED).to_pylist()
    assert {row["query_id"] for row in kept} == {IDS[GOOD], IDS[WORDY]}
    assert {row["query_id"]: row["perplexity"] for row in kept} == {IDS[GOOD]: 1.5, IDS[WORDY]: 2.0}
    removed = {row["query_id"]: row["rejected_for"] for row in read_table("data/rejected/curate/a").to_pylist()}
    assert removed == {IDS[LOOP]: "repetition", IDS[RARE]: "perplexity"}
    (thoughtless,) = read_table("data/rejected/curate/b").to_pylist()
    assert (thoughtless["query_id"], thoughtless["rejected_for"]) == (IDS[HARD], "structure")
    found = metrics("teachers/a")
    assert found["curate"] == {"kept": 2, "rejected": {"perplexity": 1, "repetition": 1}}
    assert found["distill"]["queries"] == 5 and found["distill"]["verified"] == 4 and found["distill"]["attempts"] == 9
    assert found["distill"]["attempts_per_query"] == 1.8 and found["distill"]["pass_rate"] == 0.4444
    assert found["distill"]["tokens_per_verified_trace"] == 22.5 and found["distill"]["by_attempt"] == {"1": 0.0, "2": 1.0}
    assert found["mean_perplexity"] == 1.75 and found["max_perplexity"] == 8.0


def test_repetition_up_to_the_limit_is_kept_and_means_have_four_decimals(here, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(here, tmp_path / "copy"))
    scores = read_table("data/perplexity/a", PERPLEXITY).to_pylist()
    scores = [row | {"perplexity": 4 / 3} if row["query_id"] == IDS[GOOD] else row for row in scores]
    write_table(scores, "data/perplexity/a", PERPLEXITY)
    monkeypatch.setattr("stages.curate.token_ngrams.repetition", lambda ids, offsets, *_: np.full(len(offsets), 0.5))
    curate.main("a")
    assert metrics("teachers/a")["curate"]["rejected"] == {"perplexity": 1}
    kept = read_table("data/curated/a", CURATED).to_pylist()
    mean = sum(row["perplexity"] for row in kept) / len(kept)
    assert metrics("teachers/a")["mean_perplexity"] == round(mean, 4) != round(mean, 5)


def test_queries_answered_by_all_are_shared_and_train_if_they_fit(here):
    assert read_table("data/shared", SHARED)["query_id"].to_pylist() == sorted([IDS[GOOD], IDS[WORDY]])
    found = metrics("parallel")
    assert (found["instances"], found["curated"]) == (2, {"a": 2, "b": 4})
    lengths = {row["query_id"]: row["dialogue_tokens"] for row in read_table("data/curated/a", CURATED).to_pylist()}
    assert found["trained_on"] == sum(length <= WINDOW for length in lengths.values())
    card = Path("data/parallel/a/README.md").read_text()
    assert "**teacher a**: base, revision 0" in card and '{"temperature": 0.6}' in card and "**companion data sets**: b" in card
    analysis = metrics("analysis")["overlap"]
    assert analysis == {"by_all": 2, "by_any": 4, "only": {"a": 0, "b": 2}}


def test_windows_hold_the_dialogues_with_targets_only_on_responses(here):
    for teacher in "ab":
        folder, shard = Path(f"data/packed/{teacher}"), open_shard(f"data/tokens/{teacher}", 0)
        ids, targets, positions = (np.load(folder / f"{name}.npy") for name in ("ids", "targets", "positions"))
        plan = read_table_file(folder / "plan.parquet")
        assert (
            ids.shape[1] == WINDOW and len(plan) == metrics(f"pack/{teacher}")["dialogues"] == metrics("parallel")["trained_on"]
        )
        names = shard.names.to_pylist()
        for row in plan:
            i, span = names.index(row["query_id"]), slice(row["start"], row["start"] + row["tokens"])
            tokens = shard.ids[shard.offsets[i] : shard.offsets[i + 1]]
            assert ids[row["window"], span].tolist() == tokens.tolist()
            assert targets[row["window"], span].sum() == shard.responses[i] and not targets[row["window"], span][0]
            assert positions[row["window"], span].tolist() == list(range(len(tokens)))
        found = metrics(f"pack/{teacher}")
        assert targets.sum() == found["target_tokens"] and found["tokens"] == sum(row["tokens"] for row in plan)
        assert found["full"] == round(found["tokens"] / ids.size, 5)
        assert len((folder / "sha256").read_text().strip()) == 64


def read_table_file(path: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def test_a_dialogue_may_fill_its_window_and_a_longer_one_is_an_error(here, tmp_path):
    packed = pack.pack("b", tmp_path, WINDOW, True)
    longest = int(np.load(tmp_path / "positions.npy").max()) + 1
    (tmp_path / "exact").mkdir()
    assert longest < WINDOW and pack.pack("b", tmp_path / "exact", longest, True)["dialogues"] == packed["dialogues"]
    with pytest.raises(DataError, match=r"data/parallel: made for windows longer than \d+ tokens; run `dvc repro parallel`"):
        pack.pack("b", tmp_path, longest - 1, True)


def test_dialogues_of_several_parts_are_packed_in_order(here, tmp_path, monkeypatch):
    """The same windows, whether the tokens come in one part or in two."""
    whole = pack.pack("b", tmp_path, WINDOW, True)
    (tmp_path / "two").mkdir()
    monkeypatch.setattr(pack, "trained", in_two(pack.trained))
    assert pack.pack("b", tmp_path / "two", WINDOW, True) == whole and whole["dialogues"] > 1
    for name in ("ids.npy", "targets.npy", "positions.npy", "sha256"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def in_two(trained):
    def split(arm):
        for shard, chosen in trained(arm):
            yield shard, chosen[:1]
            yield shard, chosen[1:]

    return split


def test_special_tokens_in_a_text_are_marked_per_dialogue(here, tmp_path):
    queries = sorted((make_query(text) for text in ("say <|end|> now", "how many ?", "why ?")), key=lambda q: q["id"])
    write_table(queries, tmp_path / "queries", QUERY)
    write_table([trace_rows("a")[1] | {"query_id": query["id"]} for query in queries], tmp_path / "traces", TRACE)
    (tmp_path / "tokens").mkdir()
    paths = [*(tmp_path / "queries").glob("*.parquet")], [*(tmp_path / "traces").glob("*.parquet")]
    tokenise.tokenise_part(read_lock("base"), "", STUDY, False, *paths, tmp_path / "tokens", 0)
    shard = open_shard(tmp_path / "tokens", 0)
    spelt = {query["id"]: "special_token" if "<|end|>" in query["messages"][0]["content"] else None for query in queries}
    assert dict(zip(shard.names.to_pylist(), shard.table["flaw"].to_pylist(), strict=True)) == spelt
    assert shard.ids.dtype == np.uint16


def test_more_traces_than_are_tokenized_at_once(here, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenise, "ROWS_AT_ONCE", 2)
    paths = [*Path("data/queries").glob("*.parquet")], [*Path("data/traces/a").glob("*.parquet")]
    found = tokenise.tokenise_part(read_lock("base"), "", STUDY, False, *paths, tmp_path, 0)
    assert found == {name: metrics("tokenise/a")[name] for name in ("traces", "tokens")}
    assert open_shard(tmp_path, 0).ids.tolist() == open_shard("data/tokens/a", 0).ids.tolist()


def test_windows_are_padded_with_the_students_own_token(results, tmp_path, monkeypatch):
    shutil.copytree(results, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    assert pad_token("data/tokens/a") == 0, "a base without a padding token"
    tokenizer = load_tokenizer(str(results / "base"), None)
    settings = json.loads(Path("base/tokenizer_config.json").read_text()) | {"pad_token": "<|end|>"}
    Path("base/tokenizer_config.json").write_text(json.dumps(settings))
    load_tokenizer.cache_clear()
    tokenise.main("a")
    load_tokenizer.cache_clear()
    assert pad_token("data/tokens/a") == tokenizer.convert_tokens_to_ids("<|end|>") != 0


def test_the_metrics_say_what_students_are_trained_with(results, tmp_path, monkeypatch):
    shutil.copytree(results, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    assert metrics("tokenise/a")["system_prompt"] is None
    params = yaml.safe_load(Path("params.yaml").read_text()) | {"train": {"packed": True, "system_prompt": "pipeline"}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    tokenise.main("a")
    assert metrics("tokenise/a")["system_prompt"] == "be brief"


@pytest.mark.parametrize(("setting", "wanted"), [(None, ""), ("pipeline", "be brief"), ("be kind", "be kind")])
def test_students_are_trained_with_the_system_prompt_that_is_set(results, monkeypatch, tmp_path, setting, wanted):
    params = yaml.safe_load((results / "params.yaml").read_text()) | {"train": {"system_prompt": setting}}
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert tokenise.training_prompt() == wanted


def test_a_system_prompt_is_part_of_the_prompt_and_not_of_the_target(here, tmp_path):
    paths = [*Path("data/queries").glob("*.parquet")], [*Path("data/traces/a").glob("*.parquet")]
    tokenise.tokenise_part(read_lock("base"), "be brief", STUDY, False, *paths, tmp_path, 0)
    without, having = open_shard("data/tokens/a", 0), open_shard(tmp_path, 0)
    assert (having.prompts > without.prompts).all() and having.responses.tolist() == without.responses.tolist()


def test_one_query_is_counted_as_one():
    counts = {"queries": 1, "attempts": 3, "verified": 1, "verified_traces": 1, "by_majority": 0}
    counts |= {"truncated": 0, "unknown": 0, "tokens": 30}
    found = curate.distillation([{"counts": counts, "unknown_reasons": {}, "tallies": {name: {} for name in curate.GROUPS}}])
    assert (found["attempts_per_query"], found["tokens_per_verified_trace"], found["pass_rate"]) == (3.0, 30.0, 0.3333)
