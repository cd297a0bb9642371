"""The profiles that name the hub, against one on loopback: all sources and models, with faults and moving branches."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from distillery.core.files import read_json, write_json, write_json_lines
from distillery.core.profiles import compose
from tests.support.loopback_hub import Fault, Hub

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
ROWS = 12
TEST = '[{"input": "1", "output": "1", "testtype": "stdin"}]'
SPECIAL = {
    "public_test_cases": TEST,
    "private_test_cases": TEST,
    "metadata": "{}",
    "contest_date": "2025-01-01T00:00:00",
    "instruction_id_list": ["punctuation:no_comma"],
    "kwargs": ["{}"],
}
"""Columns whose values must have a form."""


def place(row: dict[str, Any], path: str, value: Any) -> None:
    """Sets what a dotted path names; a step that is a number is in a list of one."""
    name, _, rest = path.partition(".")
    if not rest:
        row[name] = value
    elif rest.split(".")[0].lstrip("-").isdigit():
        row[name] = [{}]
        place(row[name][0], rest.partition(".")[2], value)
    else:
        place(row.setdefault(name, {}), rest, value)


def filled(columns: dict[str, Any], number: int) -> dict[str, Any]:
    """A row with a value in each column that a mapping names, and a large one that none does."""
    row: dict[str, Any] = {"unread": "x" * 1000}
    for name, column in columns.items():
        for part in column.values() if isinstance(column, dict) else [column]:
            for path in re.findall(r"\{([^{}]+)\}", part) or [part]:
                text = f"what is {number} and {number} of {path} ?" if name == "messages" else f"{number}"
                place(row, path, SPECIAL.get(path, text))
    return row


def source_rows(source: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [filled({"messages": "messages"} | source["columns"], number) for number in range(ROWS)]
    for row in rows:
        for column, pattern in source.get("where", {}).items():
            place(row, column, pattern.strip("^$"))
    return rows


def benchmark_rows(about: dict[str, Any]) -> list[dict[str, Any]]:
    names = [about["question"], about["answer"], about["difficulty"], *about.get("choices", ()), *about.get("constraints", ())]
    names += [*about.get("tests", ()), about.get("metadata"), about.get("starter"), about.get("date")]
    return [{name: SPECIAL.get(name, f"{name} {number}") for name in names if name} for number in range(ROWS)]


def write_data_sets(datasets: Path, settings: dict[str, Any]) -> None:
    """Every data set as a repository: JSON lines where files are named, else parquet, listed in its README by configuration."""
    tables: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    read = [(each, source_rows(each)) for each in settings["collect"]["sources"].values()]
    read += [(each, benchmark_rows(each)) for each in settings["benchmarks"].values()]
    for source, rows in read:
        if files := source.get("files"):
            write_json_lines(rows, repository(datasets, source["source"]) / re.sub(r"\[[^]]*\]|\*", "1", files))
        else:
            tables.setdefault((source["source"], source.get("config") or "default", source["split"]), []).extend(rows)
    for (name, config, split), rows in tables.items():
        names = {column: None for row in rows for column in row}
        path = repository(datasets, name) / config / f"{split}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist([names | row for row in rows]), path)
    for name in {name for name, _, _ in tables}:
        listed = [
            {"config_name": config, "data_files": [{"split": split, "path": f"{config}/{split}.parquet"}]}
            for each, config, split in tables
            if each == name
        ]
        (datasets / name / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n")


def write_models(models: Path, settings: dict[str, Any]) -> None:
    """Every model as a repository of small files."""
    named = [*settings["assets"].values(), *(each["model"] for each in settings["teacher"].values())]
    for model in filter(None, named):
        folder = repository(models, model["id"])
        write_json({"model_type": "qwen2", "name": model["id"]}, folder / "config.json")
        write_json({"chat_template": "{{ '<think>' }}"}, folder / "tokenizer_config.json")
        write_json({"added_tokens": []}, folder / "tokenizer.json")
        (folder / "model.safetensors").write_bytes(model["id"].encode() * 1000)
        (folder / "README.md").write_text("a model\n")


def repository(kind: Path, name: str) -> Path:
    (kind / name).mkdir(parents=True, exist_ok=True)
    return kind / name


class Machine:
    """A project's folder, and the hub that its processes ask."""

    def __init__(self, folder: Path, profile: str):
        self.folder, self.hub = folder, Hub(folder / "hub")
        for name in ("conf", "distillery", "stages"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "params.yaml").write_text(compose(profile))
        self.settings = yaml.safe_load((folder / "params.yaml").read_text())
        write_data_sets(folder / "hub/datasets", self.settings)
        write_models(folder / "hub/models", self.settings)

    def run(self, *calls: str, offline: bool = False) -> subprocess.CompletedProcess:
        """Calls functions of our modules, ``stages.collect:main()``, in one process."""
        lines = [f"import {call.partition(':')[0]} as m; m.{call.partition(':')[2]}" for call in calls]
        program = (
            "from distillery.core.stage import run_stage\ndef main():\n    " + "\n    ".join(lines) + "\nrun_stage(main)\n"
        )
        variables = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
        variables |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), str(int(offline)))
        variables |= {"HF_HUB_DISABLE_XET": "1", "DVC_ROOT": str(self.folder)}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=self.folder, env=os.environ | variables, capture_output=True, text=True)

    def locks(self) -> dict[str, Any]:
        """What models and data sets were pinned to."""
        metrics = [read_json(self.folder / f"metrics/{name}.json")["provenance"] for name in ("collect", "benchmarks")]
        models = {str(path): path.read_text() for path in sorted((self.folder / "models/locks").rglob("*.json"))}
        return {"data": metrics, "models": models}

    def everything(self) -> list[str]:
        teachers = [f"stages.assets:main({name!r})" for name in self.settings["teachers"]]
        return ["stages.assets:main()", *teachers, "stages.collect:main()", "stages.benchmarks:main()"]


@pytest.fixture
def machine(tmp_path, request, monkeypatch):
    monkeypatch.chdir(ROOT)
    made = Machine(tmp_path, request.param)
    yield made
    made.hub.stop()


SINGLE = pytest.param("single-gpu", marks=pytest.mark.exhaustive)
PROFILES = pytest.mark.parametrize("machine", ["paper", SINGLE], indirect=True)


@PROFILES
def test_every_source_model_and_benchmark_is_collected_through_faults_and_moved_branches_change_nothing(machine):
    machine.hub.faults = [
        Fault("GET /api/models/", 429, {"Retry-After": "1"}, times=2),
        Fault("HEAD .*tokenizer", 500),
        Fault("GET .*parquet", 503),
        Fault("GET .*parquet", cut_after=200),
    ]
    done = machine.run(*machine.everything())
    assert done.returncode == 0, done.stderr[-3000:]
    assert not any(fault.times for fault in machine.hub.faults), "every fault was met"
    sources, found = machine.settings["collect"]["sources"], read_json(machine.folder / "metrics/collect.json")
    assert found["sources"] == dict.fromkeys(sources, ROWS) and not found["malformed"]
    asked = machine.settings["evaluate"]["benchmarks"]
    questions = read_json(machine.folder / "metrics/benchmarks.json")["questions"]
    assert questions == {name: ROWS for name in machine.settings["benchmarks"] if asked[name]["samples"]}

    before = machine.locks()
    for readme in (machine.folder / "hub").glob("*/*/*/README.md"):
        readme.write_text(readme.read_text() + "edited\n")
    machine.hub.asked.clear()
    done = machine.run(*machine.everything())
    assert done.returncode == 0, done.stderr[-3000:]
    assert machine.locks() == before
    read_again = [each for each in machine.hub.asked if re.search(r"GET /datasets/.*(parquet|jsonl)", each)]
    assert all(any(about["source"] in each for about in machine.settings["benchmarks"].values()) for each in read_again)

    assert machine.run("distillery.core.hub:main()").returncode == 0
    held = {path.name for path in (machine.folder / "cache/hub").glob("models--*/snapshots/*/model.safetensors")}
    models = {each["id"] for each in machine.settings["assets"].values() if each}
    models |= {each["model"]["id"] for each in machine.settings["teacher"].values()}
    assert held and len(list((machine.folder / "cache/hub").glob("models--*/snapshots/*/model.safetensors"))) == len(models)
    machine.hub.stop()
    done = machine.run("stages.collect:main()", offline=True)
    assert done.returncode == 0, "what was collected before needs no hub\n" + done.stderr[-2000:]


@pytest.mark.parametrize("machine", ["paper"], indirect=True)
def test_what_cannot_be_had_is_listed_before_anything_is_read(machine):
    gated, missing = "nvidia/Llama-Nemotron-Post-Training-Dataset", "BAAI/bge-m3"
    machine.hub.gated = {gated, "deepseek-ai/DeepSeek-R1"}
    shutil.rmtree(machine.folder / "hub/models" / missing)
    done = machine.run("stages.assets:main()")
    assert done.returncode != 0 and "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "params.yaml" in line]
    assert len(lines) == 3 and sum("gated; accept its terms" in line for line in lines) == 2
    assert any("assets.embedder: BAAI/bge-m3: no such model" in line for line in lines)
    assert not any(re.search("GET .*(parquet|jsonl|safetensors)", each) for each in machine.hub.asked)


@pytest.mark.parametrize("machine", ["paper"], indirect=True)
def test_a_misspelt_column_is_named_with_those_that_there_are(machine):
    machine.settings["collect"]["sources"] = {"openr1-math": machine.settings["collect"]["sources"]["openr1-math"]}
    machine.settings["collect"]["sources"]["openr1-math"]["columns"] = {"messages": "problem", "ground_truth": "anwser"}
    (machine.folder / "params.yaml").write_text(json.dumps(machine.settings))
    done = machine.run("stages.collect:main()")
    assert done.returncode != 0
    expected = "collect.sources.openr1-math.columns.ground_truth: no column 'anwser' in the first 12 rows; they have"
    assert f"{expected} unread, problem, answer\n" in done.stderr
    assert not list((machine.folder / ".ledger/sources").iterdir())
