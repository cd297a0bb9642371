"""From samples to the page: score, compare, headline, report and summary on synthetic results of two students and the base."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from distillery.core.errors import ConfigError, DataError
from distillery.evaluation import compare_arms, summary
from distillery.evaluation.report_tables import answer, headlines, is_higher
from stages import compare, headline, outcomes, report, score
from tests.support.results import MODELS, SIZES, TASK, write_results

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with all inputs of the last four stages, in which they ran once, in order."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(report, "PAGE", ROOT / "distillery/evaluation/report.html")
        write_results()
        for name in MODELS:
            score.main(name)
        compare.main()
        outcomes.main()
        headline.main()
        report.main()
    return folder


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
    assert "A &lt;title&gt;" in page and page.count("<svg") == metrics(here, "report")["figures"] == 11
    first = page.index("good teaches best. Students of good score highest")
    assert first < page.index("<table") and "significantly above the students of odd" in page
    cells = ("no_constraints", "aime: exact", "never verified", "33.5", "too long to train on", "500")
    assert all(cell in text for cell in cells)
    assert "told" not in text and "None" not in text


def test_every_student_has_a_model_card(here):
    cards = {path.stem: path.read_text() for path in (here / "data/report/students").iterdir()}
    assert sorted(cards) == ["good-3", "good-5", "odd-3", "odd-5"]
    assert "# Student of odd, training seed 5" in cards["odd-5"] and "`think first`" in cards["odd-5"]
    overall = metrics(here, "compare")["models"]["odd"]["overall"]["pass@1"]
    assert f"| overall | {overall['mean']:.1f} [" in cards["odd-5"]


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
    assert len(drawn) == 11 and all("currentColor" not in path.read_text() for path in drawn)


def test_the_summary_prints_the_same_conclusions(here, capsys):
    summary.main()
    said = capsys.readouterr().out
    assert said.startswith("good teaches best. Students of good score highest") and max(map(len, said.splitlines())) <= 80
    assert "2 students per arm, by training seed: beyond questions and samples they scatter by" in " ".join(said.split())


def test_of_many_pairs_the_summary_shows_the_best_beside_each(here, monkeypatch):
    monkeypatch.setattr(summary, "MOST_PAIRS", 2)
    compared = metrics(here, "compare")
    head, _, *rows, last = summary.table(compared)
    assert head.split()[:2] == ["good", "beside"] and last == "All 3 pairs are in the report."
    difference = compared["differences"]["good - odd"]["overall"]["pass@1"]["mean"]
    assert [row.split()[0] for row in rows] == ["odd", "base"] and f" {difference:.1f} [" in rows[0]
    assert all(len(line) <= 80 for line in (head, *rows))


def test_two_arms_are_compared_in_either_order_in_80_columns(here, capsys):
    compare_arms.main("good", "odd")
    first = capsys.readouterr().out
    compare_arms.main("odd", "good")
    second = capsys.readouterr().out
    assert max(map(len, (first + second).splitlines())) <= 80
    (one,), (other,) = ([line.split() for line in said.splitlines() if line.startswith("overall")] for said in (first, second))
    assert one[1:3] == other[2:0:-1] and float(one[3]) == -float(other[3]) and (one[-1], other[-1]) == ("higher", "lower")
    found = metrics(here, "student")["overall"]["pass@1"]
    assert one[1] == f"{found:.1f}", "what dvc metrics diff shows"
    for wrong, why in (
        (("good", "nobody"), "'nobody' was not compared; there are good, odd, base"),
        (("odd", "odd"), "two different"),
    ):
        with pytest.raises(ConfigError, match=why):
            compare_arms.main(*wrong)


def test_the_answer_says_what_is_decided_and_what_is_not():
    def compared(verdicts, scores):
        pairs = {pair: {"overall": {"pass@1": {"verdict": verdict}}} for pair, verdict in verdicts.items()}
        return {
            "differences": pairs,
            "models": {name: {"overall": {"pass@1": {"mean": mean}}} for name, mean in scores.items()},
        }

    scores = {"a": 30.0, "b": 25.0, "c": 20.0, "base": 5.0}
    above = {f"{arm} - base": "higher" for arm in "abc"}
    every = answer(compared(above | {"a - b": "higher", "a - c": "higher", "b - c": "higher"}, scores), list("abc"))
    assert every.startswith("a teaches best.") and every.endswith("significantly above the students of b and c.")
    one = answer(compared(above | {"b - a": "not significant", "a - c": "higher", "b - c": "higher"}, scores), list("abc"))
    assert "significantly above the students of c; against b nothing is decided." in one
    none = answer(compared(above | {"a - b": "equivalent", "a - c": "not significant"}, scores), list("abc"))
    assert none.startswith("No arm teaches significantly better than another.")
    assert answer(compared({"a - base": "not significant"}, scores), ["a"]).endswith(
        "not significantly more than the base model."
    )


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
    assert "By labels.jsonl." in page and ">25.0 %</td>" in page
    assert report.agreement_of({"models": {"judge": "judge@r1", "reward": "reward@r1"}, "categories": {"x": 1}})["categories"]
    for models in ({"judge": "judge@r2"}, {"judge": "judge@r1", "reward": "other@r1"}):
        assert report.agreement_of({"models": models, "categories": {"x": 1}})["categories"] == {}
