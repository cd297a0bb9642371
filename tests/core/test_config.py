from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML

from distillery.core import arms, config
from distillery.core.config import Section
from distillery.core.errors import ConfigError
from distillery.core.profiles import compose

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Inner(Section):
    rate: float


@dataclass(frozen=True)
class Outer(Section):
    count: int
    inner: Inner
    names: tuple[str, ...]


GOOD = {"count": 1, "inner": {"rate": 0.5}, "names": ["a"]}


def write(folder: Path, section: object) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({"outer": section}))
    return path


def test_a_valid_section_becomes_a_frozen_dataclass(tmp_path):
    assert config.load(Outer, "outer", write(tmp_path, GOOD)) == Outer(1, Inner(0.5), ("a",))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"cuont": 2}, "outer.cuont: unknown key (did you mean count?)"),
        ({"count": "1"}, "outer.count: Input should be a valid integer, got '1'"),
        ({"count": True}, "outer.count: Input should be a valid integer, got True"),
        ({"inner": {"rate": 1.0, "rats": 2}}, "outer.inner.rats: unknown key (did you mean rate?)"),
        ({"inner": {}}, "outer.inner.rate: missing"),
        ({"names": "a"}, "outer.names: Input should be a valid array, got 'a'"),
    ],
)
def test_errors_name_file_and_key(tmp_path, change, line):
    path = write(tmp_path, GOOD | change)
    with pytest.raises(ConfigError) as error:
        config.load(Outer, "outer", path)
    assert str(error.value) == f"{path}: {line}"


def test_a_missing_section_is_named_up_to_the_missing_key(tmp_path):
    path = write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"settings.yaml: outer.inner.sub: missing"):
        config.load(float, "outer.inner.sub.rate", path)


def test_an_unknown_section_is_an_error_even_if_not_read(inside):
    (inside / "params.yaml").write_text("seed: 0\ntrian: {}\n")
    with pytest.raises(ConfigError, match=r"params.yaml: trian: unknown section \(did you mean train\?\)"):
        config.load(int, "seed")


def test_invalid_yaml_gives_a_one_line_error(inside):
    (inside / "params.yaml").write_text("seed: [0\n")
    with pytest.raises(ConfigError) as error:
        config.load(int, "seed")
    assert "params.yaml: not YAML" in str(error.value) and "\n" not in str(error.value)


SCALARS = ["1e-5", "1e9", "-2E+3", "1.5e-3", "1.5e9", "2.0e5", "5.e3", "+.5", ".5", "5.", "12", "-7", "010", "1e", "'1e-5'"]
SCALARS += ["yes", "on", "1:30", "true", "False", "null", "~", "", ".inf", "-.INF", "abc", "5 apples", "1e5x"]


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_are_read_as_dvc_reads_them(inside, text):
    Path("params.yaml").write_text(f"seed: {text}\n")
    assert repr(config.read_params()["seed"]) == repr(YAML(typ="safe").load(f"seed: {text}")["seed"])


def test_a_date_is_text(inside):
    Path("params.yaml").write_text("seed: 2025-05-20\n")
    assert config.read_params() == {"seed": "2025-05-20"}


def test_the_committed_params_match_the_mini_profile(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert yaml.safe_load((ROOT / "params.yaml").read_text()) == yaml.safe_load(compose("mini"))


@pytest.mark.parametrize("profile", ["mini", "single-gpu", "paper"])
def test_every_section_of_every_profile_parses(profile, inside, monkeypatch):
    """Each stage's own dataclass reads its section, so a profile cannot drift from the code."""
    from distillery.evaluation import pilot
    from distillery.evaluation.config import Evaluate
    from distillery.generation.config import EngineSettings, Sampling
    from distillery.training.config import Train
    from distillery.verification.config import VerifyParams
    from stages import (
        analyse,
        assets,
        benchmarks,
        clean,
        collect,
        compare,
        constrain,
        curate,
        decontaminate,
        distill,
        forecast,
        headline,
        pack,
        parallel,
        perplexity,
        report,
        similarity,
    )

    monkeypatch.chdir(ROOT)
    text = compose(profile)
    monkeypatch.chdir(inside)
    (inside / "params.yaml").write_text(text)
    sections: dict[str, Any] = {
        "assets": dict[str, assets.Model | None],
        "benchmarks": dict[str, benchmarks.Source],
        "collect": collect.Collect,
        "clean": clean.Clean,
        "similarity": similarity.Similarity,
        "decontaminate": decontaminate.Decontaminate,
        "verify": VerifyParams,
        "constrain": constrain.Constrain,
        "distill": distill.Distill,
        "perplexity": perplexity.Perplexity,
        "curate": curate.Curate,
        "price": curate.Price,
        "analyse": analyse.Analyse,
        "forecast": forecast.Forecast,
        "pack": pack.Pack,
        "parallel": parallel.Parallel,
        "train": Train,
        "evaluate": Evaluate,
        "compare": compare.Compare,
        "headline": headline.Headline,
        "report": report.Report,
        "arm": dict[str, arms.Arm],
        "pilot": pilot.Pilot,
    }
    teachers = config.load(list[str], "teachers")
    for teacher in teachers:
        sections[f"teacher.{teacher}.model"] = assets.Model
        sections[f"teacher.{teacher}.sampling"] = Sampling
        sections[f"teacher.{teacher}.engine"] = EngineSettings
        sections[f"teacher.{teacher}.max_perplexity"] = float
    for section, kind in sections.items():
        config.load(kind, section)
    covered = {section.split(".")[0] for section in sections}
    assert set(config.read_params()) == covered | {
        "seed",
        "world",
        "system_prompt",
        "student_format",
        "prompts",
        "runner",
        "teachers",
        "arms",
        "unverified",
    }
    assert list(arms.arms()) == teachers, "an arm per teacher"


def test_the_paper_profile_has_the_studys_values(monkeypatch):
    monkeypatch.chdir(ROOT)
    paper = yaml.safe_load(compose("paper"))
    assert (paper["train"]["learning_rate"], paper["train"]["epochs"], paper["train"]["global_batch"]) == (8e-5, 2, 64)
    assert (paper["train"]["warmup"], paper["pack"]["window"]) == (0.05, 32768)
    assert paper["evaluate"]["sampling"] == {"temperature": 0.6, "top_p": 0.95, "max_tokens": 49152}
    samples = {name: task["samples"] for name, task in paper["evaluate"]["benchmarks"].items() if task["samples"]}
    assert samples == {"aime2024": 64, "aime2025": 64, "math500": 4, "livecodebench": 16}
    assert {rule["threshold"] for rule in paper["verify"]["rules"].values()} == {0.9}
    assert (paper["curate"]["ngram"], paper["curate"]["max_repeats"]) == (20, 20)
    assert paper["decontaminate"]["max_cosine"] == 0.9
