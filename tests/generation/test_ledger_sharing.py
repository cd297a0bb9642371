"""The ledger through a DVC remote: what is shared, and that sharing only ever adds."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from distillery.generation.engine import Completion
from distillery.generation.ledger import Ledger
from distillery.generation.ledger_sharing import add_missing, finished

ROOT = Path(__file__).resolve().parents[2]


def fill(root, owner, *keys):
    with closing(Ledger(owner, root)) as ledger:
        for key in keys:
            ledger.add(Completion(key * 32, f"said {key}", "stop", 1, 2, "scripted"))


def held(root, owner):
    with closing(Ledger(owner, root)) as ledger:
        return sorted(key[0] for key, _ in ledger.every())


def test_only_finished_files_are_shared(tmp_path):
    fill(tmp_path, "t", "a")
    fill(tmp_path, "t/verdicts", "b")
    passing = [
        "t/open-me-1.zst",
        "t/replaced/old.zst",
        "t/old.jsonl",
        "similarity-1/part-1.tmp",
        "sources/k.tmp/queries.parquet",
    ]
    for name in passing:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "similarity-1/part-1.npy").touch()
    shared = sorted(map(str, finished(tmp_path)))
    assert len(shared) == 3 and shared[0] == "similarity-1/part-1.npy"
    assert shared[1].startswith("t/part-") and shared[2].startswith("t/verdicts/part-")


@pytest.mark.parametrize("linked", [True, False])
def test_what_is_missing_is_added_and_nothing_else_changes(tmp_path, monkeypatch, linked):
    if not linked:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("another file system")))
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    fill(mine, "t", "a", "b")
    fill(theirs, "t", "b", "c")
    fill(theirs, "u", "d")
    before = sorted(finished(mine))
    assert add_missing(theirs, mine) == 2 and add_missing(theirs, mine) == 0
    assert held(mine, "t") == ["a", "b", "c"] and held(mine, "u") == ["d"] and held(theirs, "t") == ["b", "c"]
    assert set(before) < set(finished(mine)) and not list(mine.rglob("*.tmp"))
    same = {path.stat().st_ino for path in theirs.rglob("part-*")} <= {path.stat().st_ino for path in mine.rglob("part-*")}
    assert same is linked


def test_of_a_link_the_file_is_added(tmp_path):
    """DVC links to its cache where that is on another file system; emptying the cache must not empty the ledger."""
    fill(tmp_path / "cache", "t", "a")
    for inner in finished(tmp_path / "cache"):
        (tmp_path / "shared" / inner).parent.mkdir(parents=True)
        (tmp_path / "shared" / inner).symlink_to(tmp_path / "cache" / inner)
    add_missing(tmp_path / "shared", tmp_path / "mine")
    shutil.rmtree(tmp_path / "cache")
    assert held(tmp_path / "mine", "t") == ["a"]


def test_what_a_compaction_has_merged_does_not_come_back(tmp_path):
    mine, shared = tmp_path / "mine", tmp_path / "shared"
    for key in "ab":
        fill(mine, "t", key)
    add_missing(mine, shared)
    with closing(Ledger("t", mine)) as ledger:
        assert ledger.journal.compact() == (2, 2)
    assert add_missing(shared, mine) == 0 and held(mine, "t") == ["a", "b"]
    assert len(list((mine / "t").glob("part-*"))) == 1
    assert add_missing(mine, shared) == 2, "the new part, and the list of the old ones"
    assert held(shared, "t") == ["a", "b"]


def run(folder, *command):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def share(folder, direction):
    return run(folder, sys.executable, "-m", "distillery.generation.ledger_sharing", direction)


def git(folder, *arguments):
    return run(folder, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments)


@pytest.mark.slow
def test_two_clones_end_with_the_ledgers_of_both(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    git(one, "init", "-q", "-b", "main")
    run(one, "dvc", "init", "-q")
    run(one, "dvc", "remote", "add", "-d", "team", str(tmp_path / "remote"))
    (one / ".gitignore").write_text("/.ledger/\n/data/*\n!/data/ledger.dvc\n")
    fill(one / ".ledger", "t", "a")
    assert "1 files added to the remote" in share(one, "push")
    git(one, "add", "-A")
    git(one, "commit", "-qm", "ledger")
    git(tmp_path, "clone", "-q", str(one), str(two))
    assert "1 files added to .ledger" in share(two, "pull") and held(two / ".ledger", "t") == ["a"]
    fill(two / ".ledger", "t", "b")
    assert "1 files added to the remote" in share(two, "push")
    git(two, "commit", "-qam", "more")
    git(one, "pull", "-q", str(two), "main")
    fill(one / ".ledger", "u", "c")
    assert "1 files added to the remote" in share(one, "push")
    assert held(one / ".ledger", "t") == ["a", "b"] and held(one / ".ledger", "u") == ["c"]
    assert "0 files added" in share(one, "pull")
    fill(one / ".ledger", "u", "d")
    add_missing(one / ".ledger", one / "data/ledger")  # as a push that was killed before DVC knew of it
    assert "1 files added to the remote" in share(one, "push") and held(one / ".ledger", "u") == ["c", "d"]
