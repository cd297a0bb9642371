"""Chat templates, of the kinds that public models have."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from distillery.core.chat import with_system, without_system
from distillery.core.chat_template import ChatTemplate, TemplateError, garbled, special_tokens
from mini.judge_data import prompts
from mini.tokenizer import build

ASK, SYSTEM = {"role": "user", "content": "how many ?"}, {"role": "system", "content": "be brief"}
TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
LAST = "{{ messages[-1].content }}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TURNS
DROPS = TURNS.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")


@pytest.fixture
def tokenizer():
    return build("", prompts())


@pytest.mark.parametrize("template", [REFUSES, DROPS])
def test_without_a_system_role_the_system_prompt_opens_the_first_user_turn(tokenizer, template):
    chat = ChatTemplate(tokenizer, template)
    assert not chat.takes_system and chat.prompt([SYSTEM, ASK]) == "<|user|>be brief\n\nhow many ?<|end|>"
    assert ChatTemplate(tokenizer, TURNS).prompt([SYSTEM, ASK]) == "<|system|>be brief<|end|><|user|>how many ?<|end|>"


def test_system_prompts_become_one_message():
    own = {"role": "system", "content": "in French"}
    assert with_system("be brief", [own, ASK]) == [{"role": "system", "content": "be brief\n\nin French"}, ASK]
    assert with_system("", [own, ASK]) == [own, ASK] and with_system("", [ASK]) == [ASK]
    assert with_system("be brief", [ASK]) == [SYSTEM, ASK]
    assert without_system([SYSTEM, ASK, ASK]) == [{"role": "user", "content": "be brief\n\nhow many ?"}, ASK]
    assert without_system([SYSTEM]) == []


def test_todays_date_is_the_same_every_day(tokenizer):
    dated = ChatTemplate(tokenizer, "{{ strftime_now('%Y-%m-%d') }} {{ date_string }} " + LAST)
    assert dated.prompt([ASK]) == "2026-01-01 01 Jan 2026 how many ?"
    assert ChatTemplate(tokenizer, "{{ date_string }} " + LAST, {"date_string": "May"}).prompt([ASK]) == "May how many ?"


def test_texts_are_parts_where_the_template_shows_nothing_else(tokenizer):
    """As in models that also see: a text alone is left out silently."""
    parts = "{% for m in messages %}{% for p in m.content if p.type == 'text' %}{{ p.text }}|{% endfor %}{% endfor %}"
    assert ChatTemplate(tokenizer, parts).prompt([SYSTEM, ASK]) == "be brief|how many ?|"
    assert not ChatTemplate(tokenizer, TURNS).takes_parts


def test_a_template_that_leaves_out_the_question_is_an_error(tokenizer):
    with pytest.raises(TemplateError, match="leaves out the last turn"):
        ChatTemplate(tokenizer, "{{ messages[0].content }}").prompt([ASK, {"role": "user", "content": "why ?"}])


def test_arguments_reach_the_template(tokenizer):
    template = "{% if enable_thinking %}on {% else %}off {% endif %}" + LAST
    assert ChatTemplate(tokenizer, template, {"enable_thinking": True}).prompt([ASK]) == "on how many ?"
    assert ChatTemplate(tokenizer, template).prompt([ASK]) == "off how many ?"


BROKEN = ("{{ raise_exception('roles must alternate') }}", "{{ messages[3].content }}", "{{ 1 / 0 }}", "{% if")


@pytest.mark.parametrize("template", BROKEN)
def test_what_a_template_raises_is_one_error_in_its_words(tokenizer, template):
    with pytest.raises(TemplateError, match=r"^\w+: \S"):
        ChatTemplate(tokenizer, template).prompt([ASK])


def test_a_token_that_only_the_file_calls_special_ends_a_turn(tokenizer):
    """As in Llama 3, Gemma and Phi 4: it is in no list of the tokenizer's settings."""
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken("<|eot_id|>", special=True)])
    assert "<|eot_id|>" not in tokenizer.all_special_tokens and "<|eot_id|>" in special_tokens(tokenizer)
    assert ChatTemplate(tokenizer, TURNS.replace("<|end|>", "<|eot_id|>")).end_of_turn == "<|eot_id|>"


@pytest.mark.parametrize(
    ("ending", "wanted"),
    [("<|end|>", "<|end|>"), ("<|end|>\n", "<|end|>"), ("\n", "<|end|>"), ("<|END_RESPONSE|><|assistant|>", "<|assistant|>")],
)
def test_the_end_of_a_turn(tokenizer, ending, wanted):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|END_RESPONSE|>", "<|assistant|>"]})
    assert ChatTemplate(tokenizer, TURNS.replace("<|end|>", ending)).end_of_turn == wanted


def test_what_opens_the_next_response_does_not_end_a_turn(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|assistant|>"]})
    template = "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    assert ChatTemplate(tokenizer, template).end_of_turn == tokenizer.eos_token


@pytest.mark.parametrize("template", ["{{ raise_exception('never') }}", "{{ messages[0].content }}"])
def test_a_template_that_does_not_show_the_response_ends_it_by_the_end_of_text(tokenizer, template):
    assert ChatTemplate(tokenizer, template).end_of_turn == tokenizer.eos_token


@pytest.mark.parametrize("shortest", [None, 2])
def test_a_tokenizer_that_adds_tokens_or_truncates_by_default_is_read_as_its_file_says(tmp_path, shortest):
    file = Tokenizer(WordLevel({"<unk>": 0, "<bos>": 1}, unk_token="<unk>"))
    file.pre_tokenizer = Whitespace()
    file.post_processor = TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=file, unk_token="<unk>", bos_token="<bos>", model_max_length=shortest)
    made.save_pretrained(tmp_path)
    assert garbled(AutoTokenizer.from_pretrained(tmp_path), str(tmp_path), None) is None
