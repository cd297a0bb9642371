from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from distillery.core import config, profiles
from distillery.core.config import Section
from distillery.core.errors import ConfigError
from distillery.core.profiles import compose
from distillery.evaluation.benchmarks import Task

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


def test_a_profile_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"no profile 'minni' in conf/profiles; there are .*mini"):
        profiles.main("minni")


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
    assert "not YAML" in str(error.value) and "\n" not in str(error.value)


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


def test_a_limit_makes_a_trial_of_any_profile(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("mini", "single-gpu", "paper"):
        whole, few = (yaml.safe_load(compose(name, limit)) for limit in (None, 100))
        sources = few["collect"]["sources"]
        assert 100 <= sum(each["limit"] for each in sources.values()) < 100 + len(sources)
        for benchmark, task in few["evaluate"]["benchmarks"].items():
            before = whole["evaluate"]["benchmarks"][benchmark]["samples"]
            assert task["questions"] == 100 and task["samples"] == min(before, 2), "what is off stays off"
        assert few["train"]["seeds"] == whole["train"]["seeds"][:1]
        assert few["distill"] == whole["distill"] and few["teacher"] == whole["teacher"]
    tiny = yaml.safe_load(compose("single-gpu", 10**9))
    assert tiny["collect"]["sources"]["openr1-math"]["limit"] == 20_000, "a limit adds no queries"


@pytest.mark.parametrize(
    "arguments", [("mini", "--limit"), ("mini", "--limit", "0"), ("mini", "--limit", "-3"), ("mini", "7"), ()]
)
def test_a_limit_is_a_number_of_queries(inside, arguments, monkeypatch):
    monkeypatch.setattr(profiles, "CONF", ROOT / "conf")
    with pytest.raises(SystemExit, match=r"usage: .*mini.* \[--limit QUERIES\]"):
        profiles.main(*arguments)
    assert not (inside / "params.yaml").exists()


def test_chosen_questions_are_the_same_ones_and_in_order():
    rows = [{"id": f"q-{number}"} for number in range(50)]
    few, more = (Task("t", 1, "math", questions).chosen(rows) for questions in (5, 9))
    assert len(few) == 5 and [row for row in more if row in few] == few and [row for row in rows if row in more] == more
    assert Task("t", 1, "math").chosen(rows) == rows and Task("t", 1, "math", 100).chosen(rows) == rows
