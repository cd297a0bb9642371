"""The partitioned corpus stages give the same bytes on this machine and on a Ray cluster."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import synthetic_corpus
from distillery.core import tables
from distillery.core.files import write_json
from distillery.core.schemas import QUERY
from distillery.core.tables import part_paths, read_table

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
STAGES = ("clean", "decontaminate", "curate a", "curate b", "curate c", "parallel", "pack a")
MADE = ("clean", "rejected", "decontaminated", "curated", "parallel", "packed")
ON_A_CLUSTER = ("clean", "curate a", "parallel")
"""One of each kind: no teacher, one, all. A stage takes ten seconds to join."""
HOSTS = ("127.0.0.2", "127.0.0.3")


def run(stage: str, folder: Path, ok: bool = True, **variables: str) -> str:
    """Runs a stage and returns its output."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", *f"stages.{stage}".split()]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A corpus of 6,000 queries in 8 parts, with all inputs of the stages under test."""
    from mini.judge_data import prompts
    from mini.tokenizer import build

    folder, here = tmp_path_factory.mktemp("world"), Path.cwd()
    build("", prompts()).save_pretrained(folder / "base")
    synthetic_corpus.settings(folder)
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROWS_PER_PART", 800)
        synthetic_corpus.queries(6000)
    try:
        run("clean", folder)
        synthetic_corpus.similarities()
        run("decontaminate", folder)
        shutil.copytree("data/decontaminated", "data/queries")
        for i, teacher in enumerate("abc"):
            synthetic_corpus.traces(teacher, 60, i)
            lock = {"role": f"teacher-{teacher}", "id": teacher, "revision": "0", "local": True, "files": {}}
            write_json(lock, f"models/locks/teachers/{teacher}.json")
            write_json({"sampling": {"temperature": 0.6}}, f"metrics/distill/{teacher}.json")
        write_json(
            {"role": "base", "id": str(folder / "base"), "revision": "0", "local": True, "files": {}},
            "models/locks/roles/base.json",
        )
    finally:
        os.chdir(here)
    assert len(part_paths(folder / "data/raw")) == 8
    return folder


def digest(folder: Path) -> dict[str, str]:
    """The hash of every file that the stages write."""
    files = sorted(path for name in MADE for path in (folder / "data" / name).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def made(world: Path, folder: Path) -> dict[str, str]:
    """Runs all stages on a copy of the world."""
    shutil.copytree(world, folder)
    for name in MADE:
        shutil.rmtree(folder / "data" / name, ignore_errors=True)
    for stage in STAGES:
        run(stage, folder)
    return digest(folder)


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """The folder in which all stages have run."""
    folder = tmp_path_factory.mktemp("native") / "w"
    made(world, folder)
    return folder


@pytest.fixture(scope="module")
def native(finished):
    return digest(finished)


@pytest.fixture(scope="module")
def cluster():
    """The address of a two-node Ray cluster on loopback."""
    from ray.cluster_utils import Cluster

    about: dict = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={"node_ip_address": HOSTS[0], "include_dashboard": False, **about})
    made.add_node(node_ip_address=HOSTS[1], **about)
    yield made.address
    made.shutdown()


def test_two_runs_give_the_same_bytes(world, native, tmp_path):
    assert len(native) > 60 and made(world, tmp_path / "w") == native


@pytest.mark.exhaustive
def test_a_cluster_of_two_nodes_gives_the_same_bytes(finished, native, cluster, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "w")
    synthetic_corpus.settings(folder, "ray")
    for name in ("clean", "rejected/clean", "curated/a", "rejected/curate/a", "parallel"):
        shutil.rmtree(folder / "data" / name)
    for stage in ON_A_CLUSTER:
        run(stage, folder, RAY_ADDRESS=cluster, RAY_USAGE_STATS_ENABLED="0")
    assert digest(folder) == native


@pytest.mark.exhaustive
def test_an_error_on_a_cluster_is_one_line(world, cluster, tmp_path):
    shutil.copytree(world, tmp_path / "w")
    synthetic_corpus.settings(tmp_path / "w", "ray")
    (tmp_path / "w/data/raw/part-00003.parquet").write_bytes(b"torn")
    output = run("clean", tmp_path / "w", ok=False, RAY_ADDRESS=cluster, RAY_USAGE_STATS_ENABLED="0")
    assert "part-00003.parquet" in output and "Traceback" not in output


def test_a_missing_cluster_is_a_one_line_error(world, tmp_path):
    shutil.copytree(world, tmp_path / "w")
    synthetic_corpus.settings(tmp_path / "w", "ray")
    output = run("clean", tmp_path / "w", ok=False, RAY_ADDRESS="")
    assert "runner: ray needs the cluster's address in the variable RAY_ADDRESS" in output and "Traceback" not in output


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("data/raw/part-00002.parquet", b"torn", "data/raw/part-00002.parquet: not parquet"),
        ("data/raw/part-00002.parquet", b"", "data/raw/part-00002.parquet: not parquet"),
    ],
)
def test_a_corrupt_part_is_named_and_nothing_is_written(world, tmp_path, file, content, problem):
    shutil.copytree(world, tmp_path / "w")
    before = digest(tmp_path / "w")
    (tmp_path / "w" / file).write_bytes(content)
    output = run("clean", tmp_path / "w", ok=False)
    assert problem in output and "Traceback" not in output
    assert digest(tmp_path / "w") == before


def test_a_missing_column_is_named(world, tmp_path):
    import pyarrow.parquet as pq

    shutil.copytree(world, tmp_path / "w")
    path = tmp_path / "w/data/raw/part-00001.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["category"]), path)
    output = run("clean", tmp_path / "w", ok=False)
    assert "data/raw/part-00001.parquet: missing column 'category'" in output and "Traceback" not in output


def test_windows_shorter_than_a_dialogue_are_an_error(world, tmp_path):
    shutil.copytree(world, tmp_path / "w")
    for stage in STAGES[2:6]:
        run(stage, tmp_path / "w")
    params = tmp_path / "w/params.yaml"
    params.write_text(params.read_text().replace("window: 32768", "window: 32"))
    output = run("pack a", tmp_path / "w", ok=False)
    assert "data/parallel: made for windows longer than 32 tokens; run `dvc repro parallel`" in output


def test_different_numbers_of_parts_are_named(world, tmp_path):
    shutil.copytree(world, tmp_path / "w")
    (tmp_path / "w/data/similarity/part-00007.parquet").unlink()
    output = run("decontaminate", tmp_path / "w", ok=False)
    assert "data/similarity: 7 parts, data/clean has 8" in output and "Traceback" not in output


@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", ["clean", "pack a"])
def test_a_killed_stage_leaves_no_partial_output_and_restarts(world, native, tmp_path, stage):
    shutil.copytree(world, tmp_path / "w")
    for done in STAGES[: STAGES.index(stage)]:
        run(done, tmp_path / "w")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for seconds in (0.5, 1.0, 1.5, 2.0, 2.5):
        out = tmp_path / "w/data" / ("packed" if stage == "pack a" else "clean")
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, "-m", *f"stages.{stage}".split()], cwd=tmp_path / "w", env=environment, stdout=subprocess.DEVNULL
        )
        time.sleep(seconds)
        process.kill()
        process.wait()
        if stage == "clean" and out.exists():
            assert len(part_paths(out)) == 8 and len(read_table(out, QUERY)) > 4000
    run(stage, tmp_path / "w")
    assert not list((tmp_path / "w/data").rglob("*.tmp"))
    assert {name: sha for name, sha in digest(tmp_path / "w").items() if name in native} | native == native


def test_the_corpus_contains_the_planted_defects(world):
    found = json.loads((world / "metrics/clean.json").read_text())["rejected"]
    assert {"duplicate", "incomplete", "url", "table", "image", "unicode_ratio"} <= found.keys()
    twins = json.loads((world / "metrics/decontaminate.json").read_text())["rejected"]
    assert sum(sum(methods.values()) for methods in twins.values()) >= 3
