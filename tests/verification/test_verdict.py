"""Verdicts, and the roles that verification settings need."""

import json
from contextlib import closing
from dataclasses import replace

import pytest

from distillery.core.errors import ConfigError
from distillery.core.files import write_json
from distillery.core.schemas import FAIL, PASS, UNKNOWN, Category
from distillery.generation.config import Sampling, VllmSettings
from distillery.verification.config import Rule, VerifyParams, roles_of
from distillery.verification.judge import JudgeSettings
from distillery.verification.router import Router
from distillery.verification.verdict import Item, Verdict, item_of, scored, unknown
from distillery.verification.verdict_store import Verdicts
from tests.support.builders import LIMITS, make_query, verdicts_of, verify_params

JUDGE = JudgeSettings(VllmSettings("vllm", "float32", 64, 4, 1, 1, 1, 0.9, True), Sampling(0.0, 1.0, 8))


def test_a_score_at_the_threshold_passes():
    assert scored("math", 0.9, "").at(0.9).verdict == PASS and scored("math", 0.89, "").at(0.9).verdict == FAIL
    assert scored("math", 1, "").verdict == PASS and scored("math", 0.999, "").verdict == FAIL


def test_what_is_inconclusive_stays_so_at_any_threshold():
    verdict = unknown("math", "late", hopeless=True).at(0.0)
    assert (verdict.verdict, verdict.score, verdict.hopeless) == (UNKNOWN, None, True)


def test_a_verdict_carries_the_seconds_of_its_own_work():
    assert scored("math", 1, "").seconds == 0 and unknown("math", "late").after(1.23456).seconds == 1.2346
    verdict = scored("math", 0.9, "near", certain=True).after(2.0)
    assert verdict.at(0.9) == Verdict(0.9, PASS, "near", "math", certain=True, seconds=2.0)


def test_a_certain_fail_stays_certain():
    assert scored("math", 0, "", certain=True).at(0.9).certain and not scored("math", 0, "").at(0.9).certain


def test_scores_are_rounded_to_six_digits():
    assert scored("math", 1 / 3, "").score == 0.333333


def test_reasons_are_one_short_line_of_valid_unicode():
    reason = unknown("code", "two\nlines \ud800 " + "x" * 500).reason
    assert "\n" not in reason and len(reason) == 200 and reason.encode()


def test_an_item_has_the_querys_fields_and_last_question():
    query = make_query(
        messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    )
    item = item_of("key", query, "5")
    assert (item.key, item.category, item.answer, item.ground_truth, item.question) == ("key", "math", "5", "5", "c")
    assert Item("key", "math", None).question == ""


@pytest.mark.parametrize("role", ["judge", "reward"])
def test_a_role_with_settings_but_no_model_is_an_error(inside, role):
    write_json(None, f"models/locks/roles/{role}.json")
    settings = VerifyParams({}, 1.0, 1, LIMITS, JUDGE if role == "judge" else None, "x" if role == "reward" else None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"params.yaml: assets.{role}: null, but verify.{role} has settings; name its model"):
        roles_of(settings)


def test_roles_without_settings_are_not_loaded(inside):
    lock = {"role": "judge", "id": "path", "revision": "r", "local": True, "files": {}}
    write_json(lock, "models/locks/roles/judge.json")
    found = roles_of(VerifyParams({}, 1.0, 1, LIMITS, JUDGE, None))
    assert found.judge is not None and json.loads(json.dumps(found.judge.id)) == "path" and found.reward is None
    assert roles_of(VerifyParams({}, 1.0, 1, LIMITS, None, None)).judge is None


def test_verdicts_that_are_known_are_counted_and_polling_waits(tmp_path):
    with closing(Router(verify_params(), verdicts=Verdicts("t", tmp_path))) as router:
        for _ in range(2):
            start = router.remembered
            router.submit(Item("a", "math", "5", ground_truth="5"))
            assert [key for key, _ in router.poll(10.0)] == ["a"]
        assert (start, router.remembered, router.reached) == (0, 1, 1)
        router.submit(Item("b", "math", r"$2\sqrt{2}$", ground_truth=r"\sqrt{8}"))
        assert [key for key, _ in router.poll(60.0)] == ["b"], "one call waits for what a process works on"
        assert router.poll(0.0) == []


def test_a_kind_without_a_rule_is_hopeless():
    with closing(Router(verify_params(math=Rule("math", 0.9)))) as router:
        (verdict,) = verdicts_of(router, [Item("x", "poetry", "roses")])
    assert verdict.hopeless and verdict.reason == "no rule for the category poetry"


@pytest.mark.parametrize(("thresholds", "all_count"), [((1.0,), True), ((0.9,), False), ((1.0, 0.9), False)])
def test_the_first_failure_ends_a_verification_only_where_all_tests_must_pass(thresholds, all_count):
    names: tuple[Category, ...] = ("code", "other")
    rules: dict[Category, Rule] = {name: Rule("code", threshold) for name, threshold in zip(names, thresholds, strict=False)}
    with closing(Router(replace(verify_params(), rules=rules))) as router:
        assert router.verifiers["code"].all_count is all_count  # type: ignore[attr-defined]
