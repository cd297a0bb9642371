"""From samples to the page: score, compare, headline, report and summary on synthetic results of two students and the base."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from distillery.core.errors import ConfigError, DataError
from distillery.core.files import write_csv, write_json, write_text
from distillery.core.tables import write_table
from distillery.evaluation import summary
from distillery.evaluation.report_tables import headlines, is_higher
from distillery.verification.agreement import Judged, agreement
from stages import compare, headline, outcomes, report, score
from stages.evaluate import SAMPLES

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"good": 0.8, "odd": 0.5, "base": 0.2}
TEACHERS = ["good", "odd"]
TASK = {"task": "conf/lm_eval/math.yaml", "samples": 4, "verifier": "math"}
SIZES = {"aime": 20, "lcb": 30}
COUNTS = dict.fromkeys(("math", "code", "science", "if", "multiturn", "other"), 1)


def sample_rows(rate: float, rng: np.random.Generator, seed: int | None) -> list[dict]:
    about = {"text": "", "finish_reason": "stop", "reason": "", "difficulty": "1", "cluster": "", "seed": seed}
    return [
        about
        | {
            "benchmark": benchmark,
            "question_id": f"{benchmark}-{i:03}",
            "sample": sample,
            "answer": str(i % 3),
            "completion_tokens": 10 + i + sample,
            "verdict": "pass" if rng.random() < rate else "fail",
        }
        for benchmark, size in SIZES.items()
        for i in range(size)
        for sample in range(1, 5)
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with all inputs of the last four stages, in which they ran once, in order."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(report, "PAGE", ROOT / "distillery/evaluation/report.html")
        prepare()
        for name in MODELS:
            score.main(name)
        compare.main()
        outcomes.main()
        headline.main()
        report.main()
    return folder


def prepare() -> None:
    settings = {
        "seed": 0,
        "teachers": TEACHERS,
        "arms": TEACHERS,
        "arm": {},
        "unverified": False,
        "train": {"seeds": [3, 5]},
        "compare": {"resamples": 500, "confidence": 0.95},
        "forecast": {"queries": 9},
        "headline": {"arm": "good"},
        "report": {"title": "A <title>", "note": "A note.", "study": None},
        "evaluate": {"benchmarks": dict.fromkeys(SIZES, TASK) | {"off": TASK | {"samples": 0}}},
    }
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    rng = np.random.default_rng(0)
    for name, rate in MODELS.items():
        seeds = (3, 5) if name in TEACHERS else (None,)
        write_table([row for seed in seeds for row in sample_rows(rate, rng, seed)], f"data/samples/{name}", SAMPLES)
        conditions: dict = {"engines": ["x"], "sampling": {}, "prompts": "p", "tasks": {}, "verifiers": {}, "judge": None}
        write_json({"conditions": conditions}, f"metrics/evaluate/{name}.json")
    spread = {"p05": 1.0, "q1": 2.0, "median": 3.0, "q3": 4.0, "p95": 5.0, "mean": 3.2}
    analysis: dict = {}
    for teacher in TEACHERS:
        distilled = {"queries": 12, "verified": 9, "attempts": 15, "pass_rate": 0.6, "verified_share": 0.75}
        distilled |= {"attempts_per_query": 1.25, "tokens_per_verified_trace": 33.5}
        about = {"distill": distilled, "curate": {"kept": 8, "rejected": {"ngram": 1}}}
        write_json(about | {"mean_response_tokens": 30.0, "mean_perplexity": None}, f"metrics/teachers/{teacher}.json")
        write_json({"tokens": 500}, f"metrics/distill/{teacher}.json")
        for kind in ("tokenise", "perplexity", "pack", "train"):
            write_json({}, f"metrics/{kind}/{teacher}.json")
        Path(f"data/training/{teacher}/3").mkdir(parents=True)
        rows = [{"step": i, "epoch": 1, "loss": 2.0 / i, "learning_rate": 0.1} for i in range(1, 4 + (teacher == "odd"))]
        write_csv(rows, Path(f"data/training/{teacher}/3/loss.csv"))
        figures: dict = {"response_tokens": spread, "perplexity": spread, "mean_attempts": 1.5, "length_entropy_bits": 2.5}
        analysis[teacher] = figures | {"instances": COUNTS, "histogram": {"<10": 3, ">=10": 5}}
    write_json(analysis | {"overlap": {"by_all": 7, "by_any": 11, "only": {"good": 3, "odd": 1}}}, "metrics/analysis.json")
    write_json({"malformed": {"json": 2}}, "metrics/collect.json")
    write_json({"rejected": {"url": 4}}, "metrics/clean.json")
    write_json({"rejected": {"aime": {"exact": 5}}}, "metrics/decontaminate.json")
    write_json({"rejected": {"no_constraints": 6}}, "metrics/constrain.json")
    write_json({"over_long": 1, "trained_on": 7}, "metrics/parallel.json")
    figures = {arm: {"mean": mean, "low": None, "high": None} for arm, mean in (("good", 2.0), ("odd", 1.0))}
    rated = {"better": "higher", "source": "somewhere", "arms": figures, "differences": {}, "ranking": TEACHERS}
    write_json({"queries": 9, "metrics": {"fit": rated, "prompts": rated | {"ranking": None}}}, "metrics/forecast.json")
    for arm in TEACHERS:
        write_text(f"{arm}\n", Path(f"data/packed/{arm}/sha256"))
    for name in ("benchmarks", "similarity"):
        write_json({}, f"metrics/{name}.json")
    for role in ("judge", "reward", "base"):
        write_json({"role": role, "id": role, "revision": "r1", "local": True, "files": {}}, f"models/locks/roles/{role}.json")
    judged = [Judged(True, True, 5)] * 3 + [Judged(False, None, 5)]
    measured = {"science": {"verifier": "science", "version": "v"} | agreement(judged, 0)}
    labels = {"file": "labels.jsonl", "sha256": "0"}
    write_json({"labels": labels, "models": {"judge": "judge@r1"}, "categories": measured}, "conf/agreement.json")
    Path("data/analysis").mkdir(parents=True)
    per_teacher: dict[str, list[dict]] = {
        "categories": [{"category": c, "instances": 1, "tokens": 5} for c in COUNTS],
        "histogram": [{"span": "<10", "traces": 3, "math": 1}, {"span": ">=10", "traces": 5, "math": 2}],
        "boxes": [{"measure": measure} | spread for measure in ("response_tokens", "perplexity")],
    }
    for name, rows in per_teacher.items():
        write_csv([{"arm": t} | row for t in TEACHERS for row in rows], Path(f"data/analysis/{name}.csv"))


@pytest.fixture
def here(results, monkeypatch):
    monkeypatch.chdir(results)
    return results


def metrics(folder: Path, name: str) -> dict:
    return json.loads((folder / f"metrics/{name}.json").read_text())


def test_every_benchmark_has_a_score(here):
    found = metrics(here, "students/good")
    assert list(found) == list(SIZES) and 65 < found["lcb"]["pass@1"] < 95


def test_missing_samples_of_a_benchmark_are_named(here, monkeypatch):
    settings = yaml.safe_load(Path("params.yaml").read_text())
    settings["evaluate"]["benchmarks"]["math500"] = TASK
    monkeypatch.setattr("distillery.core.config.read_params", lambda _: settings)
    with pytest.raises(DataError, match=r"data/samples/good: no samples of math500; run `dvc repro`"):
        score.main("good")


def test_the_comparison_covers_every_pair_overall_first(here):
    found = metrics(here, "compare")
    assert list(found["differences"]) == ["good - odd", "good - base", "odd - base"]
    assert list(found["differences"]["good - odd"]) == ["overall", "aime", "lcb"]
    overall = found["differences"]["good - odd"]["overall"]["pass@1"]
    assert overall["verdict"] == "higher" and 20 < overall["mean"] < 40 and overall["low"] < overall["mean"] < overall["high"]
    assert overall["p_holm"] <= 0.05 and found["warnings"] == []
    assert set(found["models"]["base"]["overall"]["pass@1"]) == {
        "mean",
        "low",
        "high",
        "on_these_questions",
        "sd_between_seeds",
    }, "scores have no p-value"
    assert found["training"]["seeds"] == {"good": 2, "odd": 2} and found["training"]["sd"] is not None
    assert set(overall["variance"]) == {"seeds", "questions", "samples"}


def test_the_outcome_is_kept_with_what_was_forecast(here):
    found = metrics(here, "outcomes")
    assert found["arms"] == 2 and list(found["agreement"]) == ["fit"]
    fit = found["agreement"]["fit"]
    assert (fit["pairs"], fit["right"], fit["significant"], fit["significant_right"]) == (1, 1, 1, 1)
    assert found["conclusion"].startswith("Nothing can be concluded of the forecast yet: over 2 arms")
    before = (here / "data/outcomes.json").read_bytes()
    outcomes.main()
    assert (here / "data/outcomes.json").read_bytes() == before, "the same arms replace themselves"
    assert "1 of 1" in (here / "data/report/index.html").read_text()


def test_the_headline_has_one_students_metrics(here):
    found = metrics(here, "student")
    scores = metrics(here, "students/good")
    assert found["aime"] == {name: scores["aime"][name] for name in ("pass@1", "mean_tokens")}
    assert found["distill"] == {"verified_share": 0.75, "tokens_per_verified_trace": 33.5}
    with (here / "data/headline/lengths.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"span": "<10", "traces": "3"}, {"span": ">=10", "traces": "5"}]


def test_an_unknown_headline_arm_is_an_error(here, monkeypatch):
    settings = yaml.safe_load(Path("params.yaml").read_text()) | {"headline": {"arm": "nobody"}}
    monkeypatch.setattr("distillery.core.config.read_params", lambda _: settings)
    with pytest.raises(ConfigError, match=r"headline.arm: 'nobody' is none of the arms good, odd"):
        headline.main()


def test_the_page_starts_with_the_conclusion_and_shows_every_table(here):
    page = (here / "data/report/index.html").read_text()
    text = re.sub(r"<[^>]+>", " ", page)
    assert "A &lt;title&gt;" in page and page.count("<svg") == metrics(here, "report")["figures"] == 10
    first = page.index("overall: good highest with")
    assert first < page.index("<table") and "significantly higher than odd" in page
    cells = ("no_constraints", "aime: exact", "never verified", "33.5", "too long to train on", "500")
    assert all(cell in text for cell in cells)
    assert "told" not in text and "None" not in text


def test_the_page_is_identical_between_runs(here, tmp_path):
    first = {path: path.read_bytes() for path in (here / "data/report").rglob("*") if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "PAGE", ROOT / "distillery/evaluation/report.html")
        report.main()
    assert {path: path.read_bytes() for path in (here / "data/report").rglob("*") if path.is_file()} == first
    assert "../../.runs/distill/good.js" in (here / "data/report/index.html").read_text()


def test_losses_of_unequal_length_share_one_table(here):
    with (here / "data/report/loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"step": "1", "good": "2.0", "odd": "2.0"} and rows[3] == {"step": "4", "good": "", "odd": "0.5"}


def test_figures_are_separate_files(here):
    drawn = sorted((here / "data/report/figures").glob("*.svg"))
    assert len(drawn) == 10 and all("currentColor" not in path.read_text() for path in drawn)


def test_the_summary_prints_the_same_conclusions(here, capsys):
    summary.main()
    said = capsys.readouterr().out
    assert "overall: good highest with" in said and "significantly higher than the base: good, odd." in said
    assert "2 students per arm, by training seed: a standard deviation of" in said


def test_outputs_of_removed_teachers_are_deleted_before_comparing(results, tmp_path, monkeypatch):
    folder = shutil.copytree(results, tmp_path / "copy")
    monkeypatch.chdir(folder)
    shutil.copytree("data/samples/odd", "data/samples/removed")
    shutil.copy("metrics/evaluate/odd.json", "metrics/evaluate/removed.json")
    compare.main()
    assert not Path("data/samples/removed").exists() and not Path("metrics/evaluate/removed.json").exists()
    shutil.rmtree("data/samples/odd")
    with pytest.raises(DataError, match=r"data/samples/odd: missing; run `dvc pull`"):
        compare.main()


def test_a_difference_reads_the_same_in_both_directions():
    pair = {"a - b": {"overall": {"pass@1": {"verdict": "lower"}}}}
    assert is_higher(pair, "b", "a", "overall") and not is_higher(pair, "a", "b", "overall")
    assert not is_higher(pair, "a", "c", "overall")


def test_one_teacher_is_compared_with_the_base_alone():
    models = {name: {"overall": {"pass@1": {"mean": mean}}} for name, mean in (("a", 12.0), ("base", 10.0))}
    verdict = {"a - base": {"overall": {"pass@1": {"verdict": "not significant"}}}}
    (line,) = headlines({"models": models, "differences": verdict}, ["a"])
    assert line == "overall: a highest with 12.0 %; significantly higher than the base: none."


def test_agreement_with_labels_is_shown_for_the_runs_own_models_only(here):
    page = Path("data/report/index.html").read_text()
    assert "By labels.jsonl." in page and "<td>25.0 %</td>" in page
    assert report.agreement_of({"models": {"judge": "judge@r1", "reward": "reward@r1"}, "categories": {"x": 1}})["categories"]
    for models in ({"judge": "judge@r2"}, {"judge": "judge@r1", "reward": "other@r1"}):
        assert report.agreement_of({"models": models, "categories": {"x": 1}})["categories"] == {}
