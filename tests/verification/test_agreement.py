"""Verdicts against labels: the measures, and the command over a scripted judge."""

import json
import re

import pytest

from distillery.core.errors import DataError
from distillery.verification import measure
from distillery.verification.agreement import Judged, agreement, kappa, length_bias
from distillery.verification.config import Rule, VerifyParams
from distillery.verification.router import Router
from distillery.verification.science_verifier import ScienceVerifier
from tests.support.builders import LIMITS
from tests.verification.test_judge import judge_of


def rows(**counts) -> list[Judged]:
    """``tp``, ``fp``, ``tn``, ``fn`` (p: passed) and ``none`` so many responses."""
    kinds = {"tp": (True, True), "fp": (False, True), "tn": (False, False), "fn": (True, False), "none": (True, None)}
    return [Judged(*kinds[kind], 10) for kind, count in counts.items() for _ in range(count)]


def test_agreement_counts_only_what_was_decided():
    found = agreement(rows(tp=30, fp=5, tn=40, fn=5, none=20), 0)
    assert (found["responses"], found["wrong_pass"], found["wrong_fail"]) == (100, 5, 5)
    assert found["inconclusive_share"] == 0.2
    assert found["agreement"]["mean"] == 0.875
    assert found["agreement"]["low"] < 0.875 < found["agreement"]["high"]


def test_kappa_is_cohens():
    # Cohen's kappa of the 2x2 table 20, 5, 10, 15: agreement .7, by chance .5.
    assert kappa(rows(tp=20, fp=5, fn=10, tn=15)) == pytest.approx(0.4)
    assert kappa(rows(tp=10, tn=10)) == 1
    assert kappa(rows(fp=10, fn=10)) == -1


@pytest.mark.parametrize("given", [rows(tp=5), rows(tn=5)])
def test_kappa_of_one_class_alone_is_undefined(given):
    assert kappa(given) is None
    assert agreement(given, 0)["kappa"] is None and agreement(given, 0)["agreement"]["mean"] == 1


def test_figures_have_four_digits():
    assert agreement(rows(tp=2, fp=1), 0)["agreement"]["mean"] == 0.6667


def test_nothing_decided_leaves_everything_undefined():
    found = agreement(rows(none=4), 0)
    assert found["inconclusive_share"] == 1
    assert [found[name] for name in ("agreement", "kappa", "length_bias", "order_changes")] == [None] * 4


def test_length_bias_compares_answers_of_the_same_label():
    # Long answers are more often right here, which is no bias: within a label nothing depends on length.
    fair = [Judged(label, label, length + 100 * label) for label in (False, True) for length in range(20)]
    assert length_bias(fair) == 0
    # Every longer half passes, and nothing else: the largest bias, of right and of wrong answers alike.
    biased = [Judged(label, length > 9.5, length) for label in (False, True) for length in range(21)]
    assert length_bias(biased) == 1
    assert length_bias([Judged(row.label, not row.passed, row.length) for row in biased]) == -1


def test_length_bias_weighs_labels_by_their_answers():
    right = [Judged(True, length >= 10, length) for length in range(20)]
    wrong = [Judged(False, False, length) for length in range(40)]
    # The median itself is on neither side: 10 and 9 answers, of which 9 and 0 pass; 20 and 19.
    assert length_bias(right + wrong) == pytest.approx(19 / 58)


def test_too_few_answers_have_no_length_bias():
    assert length_bias([Judged(True, True, length) for length in range(9)]) is None
    assert length_bias([Judged(True, True, 7) for _ in range(50)]) is None
    assert length_bias([Judged(True, True, length) for length in range(11)]) == 0


def test_order_changes_count_where_both_orders_were_decided():
    given = [Judged(True, True, 5, True)] * 6 + [Judged(True, True, 5, False)] * 2 + [Judged(True, None, 5, True)]
    found = agreement([*given, Judged(True, True, 5, None)], 0)
    assert found["order_changes"]["mean"] == 0.25


def test_a_judge_is_asked_in_both_orders(tmp_path):
    """This one believes whatever stands second: it passes all answers but the short one, and changes its mind when turned."""

    def script(request):
        reference, answer = re.findall(r"R (.*) A (.*)", request.messages[-1]["content"])[0]
        return f"Rating: {5 if len(answer) >= len(reference) else 0}"

    route = Router(VerifyParams({"science": Rule("science", 0.9)}, 5.0, 1, LIMITS, None, None))
    route.verifiers["science"] = ScienceVerifier(judge_of(script, tmp_path))
    path = tmp_path / "labels.jsonl"
    texts = [("water", "ice", False), ("water", "vapour", False), ("water", "water", True)]
    lines = [{"category": "science", "ground_truth": r, "text": a, "label": label} for r, a, label in texts]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    items, labels = measure.read(path)
    found = measure.measure(route, items, labels, 0)["science"]
    route.close()
    assert (found["verifier"], found["responses"], found["wrong_pass"], found["wrong_fail"]) == ("science", 3, 1, 0)
    assert found["version"] == route.versions["science"]
    assert found["order_changes"]["mean"] == pytest.approx(2 / 3, abs=1e-4)


@pytest.mark.parametrize("label", [None, 1, "yes", [True]])
def test_a_row_without_a_usable_label_is_named(tmp_path, label):
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps({"category": "math", "ground_truth": "5", "text": "5", "label": label}) + "\n")
    with pytest.raises(DataError, match=r"labels.jsonl:1: 'label' must be true or false"):
        measure.read(path)


def test_the_command_writes_and_shows_what_it_measured(inside, capsys):
    limits = {name: getattr(LIMITS, name) for name in LIMITS.__dataclass_fields__}
    verify = {"rules": {"math": {"verifier": "math", "threshold": 0.9}}, "timeout": 5.0, "processes": 1, "sandbox": limits}
    verify |= {"judge": None, "reward": None}
    (inside / "params.yaml").write_text(json.dumps({"verify": verify, "prompts": "prompts", "seed": 0}))
    lines = [
        {"category": "math", "ground_truth": "5", "text": text, "label": label}
        for text, label in [("<answer>5</answer>", "pass"), ("<answer>6</answer>", "fail"), ("<answer>5</answer>", False)]
    ]
    (inside / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    measure.main("labels.jsonl", "out.json")
    written = json.loads((inside / "out.json").read_text())
    assert written["labels"]["file"] == "labels.jsonl" and len(written["labels"]["sha256"]) == 64
    assert written["models"] == {} and written["categories"]["math"]["wrong_pass"] == 1
    printed = capsys.readouterr().out
    assert "0.67 [0.00, 1.00]" in printed and "3 labelled responses, in out.json" in printed
    with pytest.raises(SystemExit, match="no rows"):
        (inside / "labels.jsonl").write_text("")
        measure.main("labels.jsonl")
