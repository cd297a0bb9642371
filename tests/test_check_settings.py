"""Mistakes in params.yaml: each is one line that names the key, before any stage runs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from distillery.check_settings import check, kinds
from distillery.core import config
from distillery.core.arms import arms
from distillery.core.errors import ConfigError
from distillery.core.profiles import compose

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]

GONE: Any = "(taken out)"


@pytest.fixture
def params(inside, monkeypatch):
    """Writes the profile mini with one value changed, given by its dotted key, or taken out."""
    monkeypatch.chdir(ROOT)
    settings = yaml.safe_load(compose("mini"))
    monkeypatch.chdir(inside)
    for name in ("conf", "mini"):
        (inside / name).symlink_to(ROOT / name)

    def write(key, value):
        *path, last = key.split(".")
        place = settings
        for step in path:
            place = place[step]
        if value is GONE:
            del place[last]
        else:
            place[last] = value
        (inside / "params.yaml").write_text(yaml.safe_dump(settings))

    return write


@pytest.mark.parametrize("profile", ["mini", "single-gpu", "paper"])
def test_every_profile_is_right(profile, inside, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = compose(profile)
    monkeypatch.chdir(inside)
    (inside / "params.yaml").write_text(text)
    for name in ("conf", "mini"):
        (inside / name).symlink_to(ROOT / name)
    check()
    covered = {key.split(".")[0] for key in kinds()}
    assert set(config.read_params()) == covered | {"teachers", "arms", "arm"}, "no section is left unchecked"
    assert list(arms()) == config.load(list[str], "teachers"), "an arm per teacher"


NOWHERE: Any = {"revision": None, "split": None, "difficulty": None}
MISTAKES = [
    ("teacher.plain.sampling.temperature", -1, "greater than or equal to 0"),
    ("teacher.plain.sampling.temperature", 20, "less than or equal to 2"),
    ("teacher.plain.sampling.top_p", 0, "greater than 0"),
    ("teacher.plain.sampling.max_tokens", 0, "greater than 0"),
    ("teacher.plain.sampling", GONE, "missing"),
    ("teacher.plain.max_perplexity", 0, "greater than 0"),
    ("teacher.plain.max_perplexity", float("nan"), "not a finite number"),
    ("teacher.plain.engine.kind", "sglang", "none of 'vllm', 'server'"),
    ("teacher.plain.engine.gpu_memory_utilization", 90, "less than or equal to 1"),
    ("teacher.plain", GONE, "missing"),
    ("teachers", [], "empty; name at least one"),
    ("teachers", ["plain", "plain"], "duplicate teacher 'plain'"),
    ("arms", ["plain", "r1"], "'r1' is no teacher; describe it under `arm`"),
    ("headline.arm", "r1", "none of the arms adaptive, verbose, plain"),
    ("evaluate.benchmarks.math500.samples", -1, "greater than or equal to 0"),
    ("evaluate.benchmarks.math500.verifier", "maths", "'maths' is none of choice, code"),
    ("benchmarks.math500", GONE, "missing, but evaluate.benchmarks names it"),
    ("train.epochs", 0, "greater than 0"),
    ("train.learning_rate", 0, "greater than 0"),
    ("train.learning_rate", "fast", "valid number"),
    ("train.learning_rate", float("inf"), "not a finite number"),
    ("train.seeds", [], "at least 1 item"),
    ("train.seeds", 0, "valid"),
    ("train.global_batch", 12, "not a multiple of micro_batch x processes"),
    ("train.dtype", "fp16", "'float32' or 'bfloat16'"),
    ("train.epoch", 3, "unknown key (did you mean epochs?)"),
    ("train", GONE, "missing"),
    ("distill.max_attempts", 0, "greater than 0"),
    ("distill.max_attempts", None, "valid integer"),
    ("distill.max_attempts", 2.5, "valid integer"),
    ("verify.rules.math.threshold", 1.5, "less than or equal to 1"),
    ("curate.max_repetition", -0.1, "greater than or equal to 0"),
    ("decontaminate.max_cosine", 2, "less than or equal to 1"),
    ("pack.window", 0, "greater than 0"),
    ("collect.malformed", "ignore", "'stop' or 'skip'"),
    ("collect.sources.mini.limit", 0, "greater than 0"),
    ("compare.confidence", 95, "less than 1"),
    ("pilot.shares", [0.1, 0.3], "at least 3 items"),
    ("runner", "spark", "'native' or 'ray'"),
    ("seed", -1, "greater than or equal to 0"),
    ("seed", True, "valid integer"),
    ("curation", {}, "unknown section (did you mean curate?)"),
    ("train.seeds", [0, 0], "must differ"),
    ("train.deepspeed", "conf/deepspeed/zero9.json", "no such file"),
    ("pilot.shares", [0.5, 0.3, 0.3], "must rise"),
    ("analyse.spans", [24, 12], "borders must rise"),
    ("perplexity.dtype", "fp32", "'float32', 'bfloat16' or 'float16'"),
    ("similarity.dtype", "half", "'float32', 'bfloat16' or 'float16'"),
    ("teacher.plain.engine", None, "none of 'vllm', 'server'"),
    ("teacher.plain.model", None, "needs a model or traces, and not both"),
    ("teacher.plain.sampling.max_tokens", 320, "does not fit engine.max_model_len"),
    ("assets.base", None, "should be an object"),
    ("assets.jugde", None, "unknown role (did you mean judge?)"),
    ("assets.judge", None, "null, but verify.judge has settings"),
    ("verify.rules.math.verifier", "maths", "'maths' is none of choice, code"),
    ("verify.judge", None, "a judge"),
    ("verify.reward", None, "a reward model"),
    ("prompts", "conf/nowhere", "no such folder"),
    ("world", "mien", "no such file or folder"),
    ("evaluate.benchmarks.math500.task", "conf/lm_eval/nope.yaml", "no such file"),
    ("evaluate.benchmarks.math500.verifier", "reward", "cannot decide about a benchmark"),
    ("report.study", "nope.yaml", "no such file"),
    ("benchmarks.math500.since", "2024-1-5", "match"),
    ("benchmarks.math500.since", "2024-01-05", "need `date`"),
    ("benchmarks.overall", dict.fromkeys(("source", "question", "answer"), "x") | NOWHERE, "the name of their mean"),
    ("collect.sources", {}, "at least 1 item"),
    ("collect.sources.mini.category", "maths", "'maths' is none of math, code"),
    ("collect.sources.mini.columns", {"ground_trut": "answer"}, "unknown name (did you mean ground_truth?)"),
    ("arm", {"x": {"teachers": ["nobody"]}}, "'nobody' is none of adaptive, verbose, plain"),
    ("arm", {"x": {"teachers": ["plain", "plain"]}}, "must differ"),
    ("arm", {"x": {"teachers": ["plain"], "per_query": 2}}, "distill.traces is 1"),
]
SAID_ELSEWHERE = {
    "teacher.plain.model": "teacher.plain",
    "verify.judge": "verify.rules.science.verifier",
    "verify.reward": "verify.rules.",
    "benchmarks.math500.since": "benchmarks.math500",
}
"""Mistakes that another key's line names."""


@pytest.mark.parametrize(("key", "value", "why"), MISTAKES, ids=[f"{key}={value}" for key, value, _ in MISTAKES])
def test_a_mistake_is_one_line_that_names_its_key(params, key, value, why):
    params(key, value)
    with pytest.raises(ConfigError) as error:
        check()
    said = str(error.value).splitlines()
    assert all(line.startswith("params.yaml: ") for line in said), said
    assert re.search(rf"params.yaml: {re.escape(SAID_ELSEWHERE.get(key, key))}.*{re.escape(why)}", said[0]), said
    assert len(said) == 1, said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"train: {epochs: 1, epochs: 2}\n", "params.yaml:1: not YAML: duplicate key 'epochs'"),
        (b"seed: 0\nclean: {}\nclean: {}\n", "params.yaml:3: not YAML: duplicate key 'clean'"),
        (b"a: {b: 1\n", "params.yaml:2: not YAML"),
        (b"seed: \xe9\n", "params.yaml: not YAML: 'utf-8' codec"),
        (b"5: x\n", "must be sections"),
        (b"hello\n", "must be sections"),
        (b"- a\n", "must be sections"),
        (b"a: &a {b: *a}\n", "params.yaml: "),
        (b"", "teachers: missing"),
    ],
)
def test_what_is_no_settings_file_is_one_line(inside, text, why):
    (inside / "params.yaml").write_bytes(text)
    with pytest.raises(ConfigError) as error:
        check()
    assert why in str(error.value) and len(str(error.value).splitlines()) == 1


def test_every_mistake_is_listed_at_once(params, inside):
    params("train.epochs", 0)
    params("pack.window", -1)
    done = subprocess.run(
        [sys.executable, "-m", "distillery.check_settings"],
        capture_output=True,
        text=True,
        cwd=inside,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1 and not done.stdout
    assert [line.split(": ")[-2] for line in done.stderr.splitlines() if "params.yaml" in line] == [
        "pack.window",
        "train.epochs",
    ]
