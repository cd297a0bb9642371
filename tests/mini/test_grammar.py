from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mini import grammar
from mini.grammar import STYLES, Step, answer_briefly, draw, respond
from mini.tokenizer import build
from stages.verifiers import answer_part, math, split

PROMPT = "think inside <think> </think> then answer inside <answer> </answer> ."


def value(step: Step) -> float:
    return {"+": step.left + step.right, "-": step.left - step.right, "*": step.left * step.right, "/": step.left / step.right}[
        step.op
    ]


@given(st.integers(0, 10**6))
def test_every_step_is_right_and_leads_to_the_next(seed):
    problem = draw(Random(seed))
    assert all(value(step) == step.result for step in problem.steps)
    assert all(a.result == b.left for a, b in zip(problem.steps, problem.steps[1:], strict=False))
    assert all(0 <= step.result <= grammar.LARGEST for step in problem.steps)
    assert all(value(step.inverse()) == step.left for step in problem.steps)


@given(st.integers(0, 10**6))
def test_the_last_turn_is_the_users(seed):
    assert [m["role"] for m in draw(Random(seed)).messages()][::2][-1] == "user"


@pytest.mark.parametrize("style", STYLES)
def test_a_response_is_in_the_studys_form_and_verifies(style):
    for seed in range(50):
        problem = draw(Random(seed))
        think, answer = split(respond(problem, style))
        assert think and answer and answer == answer_part(respond(problem, style))
        right, wrong = (math.shortcut(str(gold), answer) for gold in (problem.answer, problem.answer + 1))
        assert right and wrong and (right.verdict, wrong.verdict) == ("pass", "fail")


def test_styles_differ_in_length_as_their_names_say():
    tokens: dict[str, list[int]] = {style: [] for style in STYLES}
    for level in (1, 4):
        problem = grammar.story(Random(level), level)
        for style in STYLES:
            tokens[style].append(len(respond(problem, style).split()))
    assert tokens["adaptive"][0] == tokens["plain"][0] < tokens["verbose"][0]
    assert tokens["plain"][1] < tokens["adaptive"][1] < tokens["verbose"][1]


def test_the_vocabulary_is_closed_and_texts_come_back_as_they_were():
    tokenizer = build(PROMPT)
    for seed in range(10_000, 10_300):
        problem = draw(Random(seed))
        for text in (*problem.turns, answer_briefly(problem), *(respond(problem, style) for style in STYLES)):
            ids = tokenizer(text, add_special_tokens=False).input_ids
            assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text
            assert len(ids) == len(text.split())
