"""Chat templates of public model families, as TRL's wheel holds them: as a student's, and as a teacher's."""

from importlib.resources import files

import pytest

from distillery.core.chat_template import ChatTemplate
from distillery.core.formats import opening_of
from distillery.training.tokenization import body_of, tokenize
from tests.support.template_tokenizer import tokenizer_for

TEMPLATES = {path.name.removesuffix(".jinja"): path for path in files("trl").joinpath("chat_templates").iterdir()}
NAMES = sorted(name for name in TEMPLATES if name != "README.md")
SYSTEM, QUESTION = "answer in tags", "what is 7 + 5 ?"
TURNS = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
TALK = [*TURNS, {"role": "assistant", "content": "it is 12 ."}, {"role": "user", "content": "and 8 + 5 ?"}]
RESPONSE = "<think> 7 + 5 = 12 \n so </think> <answer> \\boxed{ 12 } </answer>"


@pytest.fixture(params=NAMES)
def template(request):
    text = TEMPLATES[request.param].read_text(encoding="utf-8")
    return ChatTemplate(tokenizer_for(text))


@pytest.mark.parametrize("messages", [TURNS, TURNS[1:], TALK], ids=["system", "plain", "turns"])
def test_a_student_is_trained_on_what_it_is_asked_then_its_response_then_a_stop(template, messages):
    prompt = template.prompt(messages)
    assert all(turn["content"] in prompt for turn in messages)
    ((ids, count, flaw),) = tokenize(template, [(messages, RESPONSE)])
    assert flaw is None and template.end_of_turn
    decode = template.tokenizer.backend_tokenizer.decode
    assert decode(ids[:count], skip_special_tokens=False) == prompt
    assert decode(ids[count:], skip_special_tokens=False) == body_of(prompt, RESPONSE) + template.end_of_turn
    opening = opening_of(prompt)
    assert (opening + body_of(prompt, RESPONSE)).replace(" ", "").endswith(RESPONSE.replace(" ", "").removeprefix("<think>"))
