"""Results to a hub on loopback, by the hub's own client: what is pushed, what is found in it, and what is refused."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distillery.core.errors import ConfigError, DataError
from distillery.core.files import write_json
from distillery.evaluation import publish
from tests.support.loopback_hub import Hub

SCORE = {"pass@1": {"mean": 20.0, "low": 15.0, "high": 25.0}, "mean_tokens": {"mean": 40.0, "low": 1.0, "high": 2.0}}
SETTINGS = {
    "teachers": ["a"],
    "arms": ["a"],
    "arm": {},
    "unverified": False,
    "system_prompt": "think first",
    "student_format": "study",
    "pack": {"window": 128},
    "train": {"learning_rate": 0.002, "epochs": 8},
}


@pytest.fixture
def study(inside):
    (inside / "params.yaml").write_text(json.dumps(SETTINGS))
    write_json(
        {"role": "base", "id": "org/base", "revision": "r1", "local": False, "files": {}}, "models/locks/roles/base.json"
    )
    write_json({"models": {"a": {"overall": SCORE, "math500": SCORE}}}, "metrics/compare.json")
    for folder in ("data/parallel/a/math", "data/report/figures", "models/students/a/0"):
        Path(folder).mkdir(parents=True)
    pq.write_table(pa.table({"text": ["fine"]}), "data/parallel/a/math/part-00000.parquet")
    Path("data/parallel/a/README.md").write_text("a card")
    Path("data/report/index.html").write_text("<p>it is /answer</p>")
    Path("models/students/a/0/model.safetensors").write_bytes(b"weights")
    return inside


@pytest.fixture
def hub(study, monkeypatch, tmp_path_factory):
    server = Hub(tmp_path_factory.mktemp("hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_loopback")
    yield server
    server.stop()


ALL = ("org", "data:a", "student:a/0", "report")


def test_a_dry_run_says_what_it_would_do_and_asks_nobody(hub, capsys):
    publish.main(*ALL)
    said = capsys.readouterr().out
    assert (
        "data/parallel/a to the private dataset org/traces-a: 2 files" in said and "nothing was pushed; PUSH=1 does it" in said
    )
    assert hub.asked == []


def test_everything_arrives_private_with_its_cards(hub):
    publish.main(*ALL, "--push")
    assert hub.private == {"org/traces-a": True, "org/student-a-0": True, "org/traces-report": True}
    assert pq.read_table(hub.tree / "datasets/org/traces-a/math/part-00000.parquet")["text"].to_pylist() == ["fine"]
    assert (hub.tree / "models/org/student-a-0/model.safetensors").read_bytes() == b"weights"
    card = (hub.tree / "models/org/student-a-0/README.md").read_text()
    assert "base_model: org/base" in card and "| overall | 20.0 [15.0, 25.0] | 40 |" in card and "`think first`" in card
    assert "- learning_rate: 0.002" in card and "- seed: 0" in card
    assert (hub.tree / "spaces/org/traces-report/index.html").exists()
    assert "sdk: static" in (hub.tree / "spaces/org/traces-report/README.md").read_text()


def test_public_only_where_it_is_asked_for(hub):
    publish.main("org", "data:a", "--push", "--public")
    assert hub.private == {"org/traces-a": False}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("token hf_" + "a" * 34, "a token of the hub"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("in /home/somebody/data", "the path /home/somebody"),
        ("sk-" + "b" * 40, "an API key"),
    ],
)
@pytest.mark.parametrize("where", ["card", "parquet"])
def test_secrets_and_local_paths_stop_everything(hub, text, found, where):
    if where == "card":
        Path("data/parallel/a/README.md").write_text(text)
    else:
        pq.write_table(pa.table({"messages": [[{"content": text}]]}), "data/parallel/a/math/part-00000.parquet")
    with pytest.raises(DataError) as caught:
        publish.main("org", "report", "data:a", "--push")
    assert found in str(caught.value) and "nothing was pushed" in str(caught.value) and hub.private == {}
    assert "hf_aaaa" not in str(caught.value) and "sk-bbbb" not in str(caught.value), "secrets are not repeated"


@pytest.mark.parametrize("text", ["see https://example.org/home/page", "a/root/of/it", "the root/home", "/answer/root"])
def test_what_only_looks_like_a_path_is_none(text):
    assert list(publish.findings(iter([text]))) == []


def test_what_cannot_be_pushed_is_one_line(study, hub):
    for arguments in (("org",), ("org", "data:a", "--force"), ()):
        with pytest.raises(ConfigError, match="usage: make publish"):
            publish.main(*arguments)
    for what in ("data:b", "student:a", "student:a/x", "everything", "report:x"):
        with pytest.raises(ConfigError, match=f"'{what}' is none of report, data:ARM, student:ARM/SEED"):
            publish.main("org", what)
    with pytest.raises(DataError, match=r"models/students/a/7: missing; run `dvc repro`"):
        publish.main("org", "student:a/7")


def test_a_hub_that_refuses_is_named(hub):
    from tests.support.loopback_hub import Fault

    hub.faults.append(Fault("POST /api/repos/create", 403, times=9))
    with pytest.raises(DataError, match=r"org/traces-a: not pushed: .*HF_TOKEN"):
        publish.main("org", "data:a", "--push")


@pytest.mark.parametrize("name", ["my org", "", "org/x", "report"])
def test_what_is_no_organisation_is_named_before_anything(study, hub, name):
    with pytest.raises(ConfigError, match="not an organisation's name; usage: make publish ORG=my-org"):
        publish.main(name, "data:a")
