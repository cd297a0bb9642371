"""The training store: identity, reuse, damage, and deletion of unused trainings."""

import json
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from distillery.core.errors import DataError
from distillery.core.files import write_json
from distillery.core.model_locks import Lock
from distillery.training import store
from distillery.training.packed_files import DIGEST
from distillery.training.store import exclusive_lock, finish, hand_back, identity_of, is_finished, latest_complete
from tests.training.test_launch import SETTINGS

BASE = Lock("base", "path", "revision", True, {})


@pytest.fixture
def packed(inside) -> Path:
    folder = inside / "packed"
    folder.mkdir()
    (folder / DIGEST).write_text("digest\n")
    write_json({"zero_optimization": {"stage": 2}}, "zero2.json")
    return folder


@pytest.fixture
def settings():
    return replace(SETTINGS, deepspeed="zero2.json")


def test_what_changes_the_weights_changes_the_identity(packed, settings):
    known = {identity_of(packed, settings, BASE, 0)}
    changes = {"learning_rate": 2e-3, "epochs": 2, "global_batch": 8, "dtype": "bfloat16", "attention": "eager", "warmup": 0.1}
    known |= {identity_of(packed, replace(settings, **{name: value}), BASE, 0) for name, value in changes.items()}
    known |= {identity_of(packed, settings, BASE, 1), identity_of(packed, settings, replace(BASE, revision="other"), 0)}
    (packed / DIGEST).write_text("other\n")
    known.add(identity_of(packed, settings, BASE, 0))
    write_json({"zero_optimization": {"stage": 3}}, "zero2.json")
    known.add(identity_of(packed, settings, BASE, 0))
    assert len(known) == 1 + len(changes) + 4


def test_what_does_not_change_the_weights_keeps_the_identity(packed, settings):
    known = identity_of(packed, settings, BASE, 0)
    write_json({"zero_optimization": {"stage": 2}}, "copy.json")
    for name, value in {
        "processes": 8,
        "hostfile": "hosts",
        "checkpoint_minutes": 99.0,
        "sequence_parallel": 2,
        "deepspeed": "copy.json",
    }.items():
        assert identity_of(packed, replace(settings, **{name: value}), BASE, 0) == known, name
    assert identity_of(packed, settings, replace(BASE, id="moved"), 0) == known


def test_packed_data_without_its_hash_is_an_error(packed, settings):
    (packed / DIGEST).unlink()
    with pytest.raises(DataError, match=r"packed/sha256: missing; run `dvc repro`"):
        identity_of(packed, settings, BASE, 0)


def trained(folder: Path) -> Path:
    (folder / "student").mkdir(parents=True)
    (folder / "student/model.safetensors").write_bytes(b"weights")
    (folder / "student/config.json").write_text("{}")
    (folder / "checkpoint-3").mkdir()
    finish(folder)
    return folder


def test_a_finished_training_is_handed_back_by_hard_link_and_keeps_no_checkpoint(tmp_path):
    folder = trained(tmp_path / "t")
    assert is_finished(folder) and not (folder / "checkpoint-3").exists()
    hand_back(folder, tmp_path / "models/a")
    hand_back(folder, tmp_path / "models/b")
    weights = tmp_path / "models/b/model.safetensors"
    assert weights.read_bytes() == b"weights" and weights.stat().st_nlink == 3
    assert sorted(path.name for path in (tmp_path / "models/a").iterdir()) == ["config.json", "model.safetensors"]


def test_without_hard_links_files_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(store.os, "link", refuse)
    hand_back(trained(tmp_path / "t"), tmp_path / "a")
    assert (tmp_path / "a/model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("damage", ["changed", "missing", "extra"])
def test_a_damaged_student_is_trained_again(tmp_path, damage):
    folder = trained(tmp_path / "t")
    path = folder / "student" / ("more" if damage == "extra" else "config.json")
    path.unlink() if damage == "missing" else path.write_text("{ }")
    assert not is_finished(folder) and not (folder / "student").exists() and not is_finished(folder)


def test_a_running_training_is_not_started_twice(tmp_path):
    with exclusive_lock(tmp_path / "t"), pytest.raises(DataError, match="already running"), exclusive_lock(tmp_path / "t"):
        pass
    with exclusive_lock(tmp_path / "t"):
        pass


def test_the_second_of_two_runs_of_one_training_waits_for_the_first(tmp_path, capsys):
    entered, done = Event(), Event()

    def second() -> None:
        with exclusive_lock(tmp_path / "t", "train@b"):
            assert done.is_set(), "the first had not ended"
            entered.set()

    with exclusive_lock(tmp_path / "t"):
        thread = Thread(target=second)
        thread.start()
        while "train@b: waits for another run of the same training" not in capsys.readouterr().out:
            thread.join(0.01)
        done.set()
    thread.join(60)
    assert entered.is_set()


@pytest.mark.slow
def test_only_unreferenced_trainings_are_freed(inside, monkeypatch, capsys):
    monkeypatch.setattr(store, "CHECKPOINTS", inside / ".checkpoints")
    used, unused, stopped = (inside / ".checkpoints" / name for name in ("used", "unused", "stopped"))
    trained(used)
    trained(unused)
    hand_back(used, inside / "models/a")
    (stopped / "checkpoint-4").mkdir(parents=True)
    (stopped / "checkpoint-4" / store.COMPLETE).touch()
    write_json({"teacher": "plain"}, stopped / store.ABOUT)
    write_json({"students": {"0": {"identity": "used"}}}, "metrics/train/a.json")
    store.main()
    lines = capsys.readouterr().out.splitlines()
    assert "finished, in use" in lines[2] and "finished, nothing refers to it" in lines[1]
    assert "plain" in lines[0] and "stopped after step 4, nothing refers to it" in lines[0]
    store.main("--free")
    assert used.exists() and not unused.exists() and not stopped.exists()
    assert latest_complete(inside) is None


def test_other_branches_refer_to_trainings_too(inside, monkeypatch):
    shown = {"main": {"data": {"metrics/train/a.json": {"data": {"identity": "x"}}, "metrics/clean.json": {"data": {}}}}}

    class Done:
        returncode, stdout = 0, json.dumps(shown)

    monkeypatch.setattr(store.subprocess, "run", lambda *_, **__: Done())
    assert store.referred_to() == {"x"}


def test_nothing_is_deleted_where_dvc_cannot_say_what_is_referred_to(inside, monkeypatch):
    class Failed:
        returncode, stdout, stderr = 1, "", "no repository"

    monkeypatch.setattr(store.subprocess, "run", lambda *_, **__: Failed())
    with pytest.raises(DataError, match="no repository"):
        store.main("--free")
