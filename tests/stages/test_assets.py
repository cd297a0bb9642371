"""Locks of models and released traces."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from distillery.core import model_locks
from distillery.core.errors import ConfigError, DataError
from stages import assets


@pytest.fixture
def project(inside):
    """A folder with a model, and settings that name it."""
    (inside / "model").mkdir()
    (inside / "model/model.safetensors").write_bytes(b"weights")
    (inside / "model/config.json").write_text("{}")
    (inside / "model/notes.md").write_text("not part of the model")
    (inside / "traces.jsonl").write_text('{"conversations": []}\n')
    write(inside)
    return inside


def write(folder: Path, **changes) -> None:
    model = {"id": "model", "revision": None}
    settings = {
        "world": str(folder),
        "teachers": ["a", "b"],
        "assets": dict.fromkeys(("base", "scorer", "embedder", "judge"), model) | {"reward": None, "constraint_writer": None},
        "teacher": {
            "a": {"model": model, "traces": None},
            "b": {"model": None, "traces": {"source": str(folder / "traces.jsonl"), "revision": None, "split": "train"}},
        },
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(settings | changes))


def test_every_role_is_locked_by_the_hashes_of_its_files(project):
    assets.main()
    lock = model_locks.read("base")
    assert lock.files.keys() == {"model.safetensors", "config.json"} and lock.local and lock.hub_revision is None
    assert model_locks.read_optional("reward") is None and model_locks.read("judge").revision == lock.revision


@pytest.mark.parametrize(("name", "content"), [("model.safetensors", b"other"), ("config.json", b"[]"), ("vocab.txt", b"new")])
def test_only_changed_model_files_change_the_revision(project, name, content):
    assets.main()
    before = model_locks.read("base").revision
    (project / "model/notes.md").write_text("edited")
    assets.main()
    assert model_locks.read("base").revision == before
    (project / "model" / name).write_bytes(content)
    assets.main()
    assert model_locks.read("base").revision != before


def test_each_teacher_is_locked_separately_by_model_or_traces(project):
    assets.main("a")
    assets.main("b")
    assert model_locks.read(model_locks.teacher_role("a")).id == "model"
    traces = model_locks.read(model_locks.teacher_role("b"))
    assert traces.id.endswith("traces.jsonl") and len(traces.files) == 1
    assert not Path("models/locks/roles").exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"teachers": []}, "params.yaml: teachers: empty"),
        ({"assets": {}}, "params.yaml: assets.base: missing"),
        ({"assets": {"base": None, "scorer": None, "embedder": None}}, "params.yaml: assets.base: Input should be an object"),
    ],
)
def test_configuration_errors_are_named(project, changes, line):
    write(project, **changes)
    with pytest.raises(ConfigError) as error:
        assets.main()
    assert line in str(error.value)
    assert not Path("models/locks").exists()


@pytest.mark.parametrize("both", [True, False])
def test_a_teacher_needs_a_model_or_traces_and_not_both(project, both):
    settings = yaml.safe_load((project / "params.yaml").read_text())["teacher"]
    settings["a"]["traces"] = settings["b"]["traces"] if both else None
    settings["a"]["model"] = settings["a"]["model"] if both else None
    write(project, teacher=settings)
    with pytest.raises(ConfigError, match=r"params.yaml: teacher.a: needs a model or traces, and not both"):
        assets.main("a")


def test_a_model_without_safetensors_is_refused(project):
    (project / "model/model.safetensors").rename(project / "model/pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"model: role base: no .safetensors file there"):
        assets.main()


def test_a_missing_model_is_a_one_line_error(project):
    write(project, teacher={"a": {"model": {"id": "nobody/nothing", "revision": None}, "traces": None}})
    with pytest.raises(ConfigError) as error:
        assets.main("a")
    assert "nobody/nothing: not a local folder, and not found on the hub" in str(error.value) and "\n" not in str(error.value)


def test_missing_traces_are_a_one_line_error(project):
    traces = {"source": str(project / "gone.jsonl"), "revision": None, "split": "train"}
    write(project, teacher={"b": {"model": None, "traces": traces}})
    with pytest.raises(DataError, match=r"gone.jsonl: no such file; teacher.b.traces.source in params.yaml names it"):
        assets.main("b")


def test_every_role_gets_a_lock_file(project):
    assets.main()
    assert sorted(path.stem for path in Path("models/locks/roles").iterdir()) == sorted(
        ["base", "scorer", "embedder", "judge", "reward", "constraint_writer"]
    )
    assert json.loads(Path("models/locks/roles/reward.json").read_text()) is None


def model(**more):
    return {"id": "model", "revision": None, **more}


def rewritten(folder: Path, **more) -> model_locks.Lock:
    """The lock of teacher a after its model's settings changed."""
    write(folder, teacher={"a": {"model": model(**more), "traces": None}})
    assets.main("a")
    return model_locks.read("teachers/a")


THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}<think>"


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json", "named"])
def test_a_teachers_format_is_recognised_by_its_template(project, where):
    if where == "chat_template.jinja":
        (project / "model" / where).write_text(THINKS)
    else:
        named = [{"name": "tools", "template": "no"}, {"name": "default", "template": THINKS}]
        settings = {"chat_template": THINKS if where != "named" else named}
        (project / "model/tokenizer_config.json").write_text(json.dumps(settings))
    assets.main("a")
    assert model_locks.read("teachers/a").response_format == "think"


def test_a_teachers_format_can_be_given(project):
    assert rewritten(project, format="granite").response_format == "granite"
    with pytest.raises(ConfigError, match="format: 'grantie' is none of study, think"):
        rewritten(project, format="grantie")


def test_markers_that_are_special_tokens_give_answers_keys_of_their_own(project):
    """Before special tokens were kept, the texts of such models lacked them."""
    before = rewritten(project)
    tokens = [{"content": "<|channel|>", "special": True}, {"content": "<think>", "special": False}]
    (project / "model/tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    after = rewritten(project)
    assert before.special_markers == [] and before.identity == before.revision
    assert after.special_markers == ["<|channel|>"] and after.identity.startswith(f"{after.revision}+")


def test_a_template_and_its_arguments_are_part_of_the_identity(project):
    template = project / "conf/chat_templates/own.jinja"
    template.parent.mkdir(parents=True)
    identities = set()
    for text in (THINKS, THINKS + " "):
        template.write_text(text)
        identities.add(rewritten(project, template="conf/chat_templates/own.jinja").identity)
    identities |= {rewritten(project, template_arguments={"thinking": on}).identity for on in (True, False)}
    identities.add(rewritten(project).identity)
    assert len(identities) == 5


@pytest.mark.parametrize("path", ["conf/chat_templates/missing.jinja", "model/config.json"])
def test_a_template_that_dvc_does_not_watch_is_an_error(project, path):
    with pytest.raises(ConfigError, match=f"template: {path}: no such file under conf/chat_templates"):
        rewritten(project, template=path)


class Hub:
    """A model's files by commit, as the hub's client tells them."""

    def __init__(self, commits: dict[str, dict[str, str]]):
        self.commits = commits

    def model_info(self, name: str, revision: str | None = None, files_metadata: bool = False):
        commit = revision or list(self.commits)[-1]
        files = [SimpleNamespace(rfilename=name, lfs=None, blob_id=blob) for name, blob in self.commits[commit].items()]
        return SimpleNamespace(sha=commit, siblings=files)


def test_a_hub_models_answers_are_kept_under_its_content(inside, monkeypatch):
    """A commit that changes a README or another framework's weights changes nothing; one that changes the tokenizer does."""
    first = {"model.safetensors": "w", "tokenizer.json": "t", "config.json": "c", "README.md": "r", "onnx/model.json": "o"}
    commits = {
        "1" * 40: first,
        "2" * 40: dict(reversed((first | {"README.md": "R", "onnx/model.json": "O", "model.bin": "b"}).items())),
        "3" * 40: first | {"tokenizer.json": "T"},
    }
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: Hub(commits))
    locks = [assets.lock_hub("judge", assets.Model("o/m", commit)) for commit in commits]
    assert [lock.hub_revision for lock in locks] == list(commits)
    one, two, three = (lock.identity for lock in locks)
    assert one == two != three and one not in commits
    assert locks[1].renamed == {two: "2" * 40}
    asked = replace(locks[0], template_arguments={"thinking": True})
    assert asked.renamed == {asked.identity: f"{'1' * 40}+{asked.identity.split('+')[1]}"}


def test_everything_on_the_hub_is_asked_for_before_anything_is_locked(project, monkeypatch):
    settings = yaml.safe_load((project / "params.yaml").read_text())
    settings["assets"]["judge"] = {"id": "o/judge", "revision": "v1"}
    settings["collect"] = {"sources": {"a": {"source": "o/data", "revision": None}, "b": {"source": "traces.jsonl"}}}
    settings["benchmarks"] = {name: {"source": f"o/{name}", "revision": "v2"} for name in ("questions", "off")}
    settings["evaluate"] = {"benchmarks": {"questions": {"samples": 2}, "off": {"samples": 0}}}
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    found = {(each.key, each.kind, each.id, each.revision) for each in assets.named()}
    assert found == {
        ("assets.judge", "model", "o/judge", "v1"),
        ("collect.sources.a", "dataset", "o/data", None),
        ("benchmarks.questions", "dataset", "o/questions", "v2"),
    }
    monkeypatch.setattr(assets, "check", lambda named: (_ for _ in ()).throw(ConfigError("first")))
    with pytest.raises(ConfigError, match="first"):
        assets.main()
