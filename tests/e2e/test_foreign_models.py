"""Three teachers of three architectures and a student of a fourth: from a hub, and then without it, to the report."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from distillery.core.files import read_json
from distillery.core.response_parts import parts_of
from distillery.core.tables import read_table
from tests.e2e.conftest import ROOT
from tests.generation.test_openai_engine import Stub, said
from tests.support.foreign_study import MODELS, QUERIES, TEACHERS, response
from tests.support.loopback_hub import Hub

pytestmark = pytest.mark.slow
FORMATS = {"qwen": "think", "oss": "harmony", "gemma": "gemma"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of the finished study; after its downloads the hub was gone."""
    folder = tmp_path_factory.mktemp("foreign")
    for name in ("conf", "distillery"):
        (folder / name).symlink_to(ROOT / name)
    stub, hub = Stub(lambda body: said(response(body))), Hub(folder / "hub")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HOME": str(folder / "cache"), "HF_ENDPOINT": hub.url}
    for phase in ("online", "offline"):
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), str(int(phase == "offline")))
        command = [sys.executable, "-m", "tests.support.foreign_study", stub.url, phase]
        done = subprocess.run(command, cwd=folder, env=environment | offline, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        hub.stop() if phase == "online" else stub.stop()
    return folder


def rows(folder: Path) -> list[dict]:
    return read_table(folder).to_pylist()


@pytest.mark.parametrize("name", TEACHERS)
def test_each_teacher_is_read_in_its_own_format(study, name):
    assert read_json(study / f"models/locks/teachers/{name}.json")["response_format"] == FORMATS[name]
    found = rows(study / f"data/traces/{name}")
    verified = [row for row in found if row["verdict"] == "pass"]
    assert len(verified) == QUERIES and all(row["format"] == FORMATS[name] for row in found)
    assert (len(found) > QUERIES) == (name == "gemma"), "wrong ones are asked again"
    for row in verified:
        thought, answer = parts_of(row)
        assert thought and re.fullmatch(r"\d+ and \d+ make \d+", thought)
        assert answer and re.fullmatch(r"They make \\boxed{\d+}\.", answer)


def test_students_learn_one_format_with_the_bases_turns(study):
    """The teachers' thoughts and answers are the same here, so that their data sets must be the same bytes."""
    assert read_json(study / "metrics/parallel.json")["trained_on"] == QUERIES
    ids, targets, positions = (np.load(study / f"data/packed/qwen/{name}.npy") for name in ("ids", "targets", "positions"))
    for name in TEACHERS:
        assert (np.load(study / f"data/packed/{name}/ids.npy") == ids).all()
    decode = AutoTokenizer.from_pretrained(study / MODELS / "base").backend_tokenizer.decode
    document = slice(0, int(np.flatnonzero(positions[0] == 0)[1]))
    prompt, response = (
        decode(ids[0, document][targets[0, document] == learnt].tolist(), skip_special_tokens=False) for learnt in (0, 1)
    )
    asked = r"<\|start_header_id\|>user<\|end_header_id\|>\n\nwhat is \d+ plus \d+ \?<\|eot_id\|>"
    assert re.fullmatch(rf"\S*{asked}<\|start_header_id\|>assistant<\|end_header_id\|>\n\n", prompt)
    assert re.fullmatch(r"<think> .* make \d+ </think> <answer> They make .* </answer><\|eot_id\|>", response)
    assert len({read_json(study / f"metrics/train/{name}.json")["students"]["0"]["identity"] for name in TEACHERS}) == 1


@pytest.mark.parametrize("name", TEACHERS)
def test_the_student_is_a_llama_that_stops_where_its_turn_ends(study, name):
    folder = study / f"models/students/{name}/0"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert model.config.model_type == "llama" and model.generation_config.eos_token_id == end == tokenizer.eos_token_id


def test_the_report_names_all_and_compares_every_pair(study):
    page = (study / "data/report/index.html").read_text()
    assert all(name in page for name in TEACHERS)
    compared = read_json(study / "metrics/compare.json")
    assert {*compared["models"]} == {*TEACHERS, "base"}
    scores = {name: compared["models"][name]["overall"]["pass@1"]["mean"] for name in compared["models"]}
    assert scores["base"] == 0 < scores["gemma"] < scores["qwen"]
    for name in TEACHERS:
        assert FORMATS[name] in (study / f"data/parallel/{name}/README.md").read_text()
