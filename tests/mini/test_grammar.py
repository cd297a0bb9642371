from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.core.formats import STUDY
from distillery.core.response_parts import answer_part, columns_of, parts_of
from distillery.core.schemas import FAIL, PASS
from distillery.verification.math_verifier import YES_OR_NO
from distillery.verification.science_verifier import RATING
from distillery.verification.verdict import Item
from mini import problems
from mini.judge_data import assist, prompts, rated, talked
from mini.problems import STYLES, Step, answer_briefly, respond
from mini.sampling import MIXTURE, draw
from mini.tokenizer import build
from stages.constrain import proposals
from tests.support.builders import verdicts_of

PROMPT = "think inside <think> </think> then answer inside <answer> </answer> ."


def value(step: Step) -> float:
    return {"+": step.left + step.right, "-": step.left - step.right, "*": step.left * step.right, "/": step.left / step.right}[
        step.op
    ]


@given(st.integers(0, 10**6))
def test_every_step_is_correct_and_leads_to_the_next(seed):
    steps = [step for step in draw(Random(seed)).steps if isinstance(step, Step)]
    assert all(value(step) == step.result for step in steps)
    assert all(a.result == b.left for a, b in pairwise(steps))
    assert all(0 <= step.result <= problems.LARGEST for step in steps)
    assert all(value(step.inverse()) == step.left for step in steps)


@given(st.integers(0, 10**6))
def test_the_last_turn_is_the_users(seed):
    assert [m["role"] for m in draw(Random(seed)).messages()][::2][-1] == "user"


def item(key: str, problem: problems.Problem, answer: str | None) -> Item:
    return Item(key, problem.category, answer, (), problem.ground_truth, problem.test_cases, problem.constraints)


@pytest.mark.parametrize("style", STYLES)
def test_responses_have_the_studys_format_and_only_correct_ones_verify(route, style):
    """All categories except the reward model's; in science only plain numbers are verified."""
    problems = [
        problem for problem in (draw(Random(seed)) for seed in range(80)) if problem.category not in ("multiturn", "other")
    ]
    assert {problem.category for problem in problems} == {"math", "code", "science", "if"}
    answers = []
    for problem in problems:
        text = respond(problem, style)
        think, answer = parts_of(columns_of(text, STUDY))
        assert think and answer == answer_part(text) == problem.reply
        answers.append(answer)
    checked = [(p, a) for p, a in zip(problems, answers, strict=True) if (p.ground_truth or "0").isdigit()]
    right = verdicts_of(route, [item(str(i), p, a) for i, (p, a) in enumerate(checked)])
    assert {verdict.verdict for verdict in right} == {PASS}
    wrong = [(p, a.replace("x +", "x -").replace("x -", "x - 1 -").replace("x *", "x + 1 *")) for p, a in checked]
    wrong = [(p, a if p.category == "code" else "7" if p.category == "if" else r"\boxed{ 121 }") for p, a in wrong]
    found = verdicts_of(route, [item(str(i), p, a) for i, (p, a) in enumerate(wrong)])
    assert {verdict.verdict for verdict in found} == {FAIL}


def test_every_kind_occurs_with_its_category():
    kinds = {problem.source: problem.category for problem in (draw(Random(seed)) for seed in range(400))}
    assert len(kinds) == len(MIXTURE)
    assert set(kinds.values()) == {"math", "code", "science", "if", "multiturn", "other"}


@given(st.integers(0, 10**6))
def test_the_assistants_training_answers_can_be_parsed(seed):
    asked, answer = assist(Random(seed), prompts())
    assert "{" not in asked.replace("\\boxed{", "")
    if answer.startswith("["):
        assert len(proposals(answer)) == 2
    else:
        assert RATING.fullmatch(answer) or YES_OR_NO.fullmatch(answer)


@given(st.integers(0, 10**6))
def test_only_correct_replies_are_rated_perfect(seed):
    rng = Random(seed)
    problem = talked(rng)
    reply, ratings = rated(rng, problem)
    assert (ratings == (4.0, 4.0, 4.0)) == (reply == problem.reply)


def test_styles_differ_in_length_as_their_names_say():
    tokens: dict[str, list[int]] = {style: [] for style in STYLES}
    for level in (1, 4):
        problem = problems.story(Random(level), level)
        for style in STYLES:
            tokens[style].append(len(respond(problem, style).split()))
    assert tokens["plain"][0] < tokens["adaptive"][0] < tokens["verbose"][0]
    assert tokens["plain"][1] < tokens["adaptive"][1] < tokens["verbose"][1]


def test_the_vocabulary_is_closed_and_texts_round_trip():
    tokenizer = build(PROMPT, prompts())
    for seed in range(10_000, 10_300):
        problem = draw(Random(seed))
        assisted = assist(Random(seed), prompts())
        for text in (*problem.turns, answer_briefly(problem), *(respond(problem, style) for style in STYLES), *assisted):
            ids = tokenizer(text, add_special_tokens=False).input_ids
            assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text
            assert len(ids) == len(text.split())
