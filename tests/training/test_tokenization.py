import json

import pytest
from tokenizers.normalizers import NFC, Replace
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from distillery.core.chat_template import ChatTemplate, special_tokens
from distillery.core.errors import DataError
from distillery.core.model_locks import Lock
from distillery.training.tokenization import SPECIAL, TEMPLATE, TOKENIZER, load_tokenizer, spells, template_of, tokenize
from mini.judge_data import prompts
from mini.tokenizer import build
from tests.support.template_tokenizer import BOS, tokenizer_for

PROMPT = "think inside <think> </think> then answer inside <answer> </answer> ."
RESPONSE = "<think> 7 + 5 = 12 ; </think> <answer> \\boxed{ 12 } </answer>"


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def tokenizer():
    return build(PROMPT, prompts())


@pytest.fixture
def changed():
    """A tokenizer to spoil."""
    return build(PROMPT, prompts())


def test_prompt_and_response_are_separated_and_round_trip(tokenizer):
    messages = [*ask("Ann has 7 apples ."), {"role": "assistant", "content": "7 apples ."}]
    messages += ask("then Ann gets 5 more . how many apples now ?")
    ((ids, prompt, flaw),) = tokenize(ChatTemplate(tokenizer), [(messages, RESPONSE)])
    assert flaw is None
    assert tokenizer.decode(ids[:prompt]).endswith("how many apples now ?<|end|><|assistant|>")
    assert tokenizer.decode(ids[prompt:]).strip() == RESPONSE + "<|end|>"


def test_a_dialogue_is_the_prompt_of_generation_then_the_response_then_the_end_of_turn(tokenizer):
    messages = ask("how many apples now ?")
    template = ChatTemplate(tokenizer)
    asked = tokenizer(template.prompt(messages), add_special_tokens=False).input_ids
    said = tokenizer(RESPONSE, add_special_tokens=False).input_ids
    assert tokenize(template, [(messages, RESPONSE)])[0].ids == [*asked, *said, tokenizer.convert_tokens_to_ids("<|end|>")]


@pytest.mark.parametrize(
    "content", ["{{ m.content.split('</think>')[-1] }}", "{{ m.content | replace('=', '') }}", "{{ m.content | trim | upper }}"]
)
def test_a_template_that_changes_responses_cannot_change_what_is_learnt(tokenizer, changed, content):
    changed.chat_template = tokenizer.chat_template.replace(
        "{{ m.content }}", "{% if m.role == 'user' %}{{ m.content }}{% else %}" + content + "{% endif %}"
    )
    dialogue = (ask("how many apples now ?"), RESPONSE)
    assert tokenize(ChatTemplate(changed), [dialogue]) == tokenize(ChatTemplate(tokenizer), [dialogue])


def test_an_opening_that_the_prompt_already_made_is_not_repeated(tokenizer, changed):
    changed.chat_template = tokenizer.chat_template.replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")
    ((ids, prompt, _),) = tokenize(ChatTemplate(changed), [(ask("how many apples now ?"), RESPONSE)])
    assert tokenizer.decode(ids).count("<think>") == 1 and tokenizer.decode(ids[prompt:]).startswith("7 + 5")


def test_what_must_not_be_trained_on_is_named_per_dialogue(tokenizer, changed):
    changed.chat_template = (
        "{% if 'many' not in messages[-1].content %}{{ raise_exception('no') }}{% endif %}" + changed.chat_template
    )
    rows = tokenize(
        ChatTemplate(changed),
        [
            (ask("how many ?"), RESPONSE),
            (ask("why ?"), RESPONSE),
            (ask("how many <|end|> ?"), RESPONSE),
            (ask("how many ?"), "<think> zyx"),
        ],
    )
    assert [row.flaw for row in rows] == [None, TEMPLATE, SPECIAL, TOKENIZER]
    assert rows[1].ids == [] and rows[1].prompt == 0


def test_text_that_spells_a_special_token_is_detected_anywhere(tokenizer):
    tokens = special_tokens(tokenizer)
    assert "<|end|>" in tokens
    assert spells(tokens, (ask("say <|end|> now"), "done")) and spells(tokens, (ask("say it"), "a<|end|>b"))
    assert not spells(tokens, (ask("say <| end |> now"), "<think> . </think>"))


def test_tags_of_the_students_own_format_may_be_special_tokens():
    made = tokenizer_for("<|user|>")
    made.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<answer>"]})
    assert "<think>" in special_tokens(made)
    template = ChatTemplate(made, "{% for m in messages %}{{ m.content }}{% endfor %}")
    assert tokenize(template, [(ask("how many ?"), RESPONSE)])[0].flaw is None


def test_truncation_and_padding_of_the_tokenizer_file_are_disabled(tmp_path, tokenizer):
    cutting = build(PROMPT, prompts())
    cutting.backend_tokenizer.enable_truncation(4)
    cutting.backend_tokenizer.enable_padding(length=64)
    cutting.backend_tokenizer.save(str(tmp_path / "cutting.json"))
    cutting.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text((tmp_path / "cutting.json").read_text())
    dialogue = (ask("how many apples now ?"), RESPONSE)
    loaded = ChatTemplate(load_tokenizer(str(tmp_path), None))
    assert tokenize(loaded, [dialogue]) == tokenize(ChatTemplate(tokenizer), [dialogue])


def test_nothing_is_tokenized_without_dialogues(tokenizer):
    assert tokenize(ChatTemplate(tokenizer), []) == []


def test_a_tokenizer_that_adds_its_own_tokens_does_not_add_them_to_dialogues(tokenizer, changed):
    """The chat template writes every token; a start that the tokenizer prepends by itself would come twice."""
    end = changed.convert_tokens_to_ids("<|end|>")
    changed.backend_tokenizer.post_processor = TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", end)])
    dialogue = (ask("how many apples now ?"), RESPONSE)
    assert changed.backend_tokenizer.encode("how").ids[0] == end
    assert tokenize(ChatTemplate(changed), [dialogue]) == tokenize(ChatTemplate(tokenizer), [dialogue])


def test_a_base_that_nothing_ends_is_an_error(tmp_path, changed):
    changed.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    changed.eos_token = None
    changed.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no token ends a turn"):
        template_of(Lock("base", str(tmp_path), "0", True, {}))


def test_a_byte_level_tokenizer_that_is_loaded_as_llamas_is_refused(tmp_path):
    """transformers 5 would lose all its spaces, silently."""
    made = tokenizer_for("<|user|>")
    made.save_pretrained(tmp_path)
    load_tokenizer(str(tmp_path), None)
    load_tokenizer.cache_clear()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"tokenizer_class": "LlamaTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"otherwise than its tokenizer\.json says; set tokenizer_class"):
        load_tokenizer(str(tmp_path), None)


def test_a_tokenizer_that_adds_a_start_is_loaded_rightly(tmp_path):
    made = tokenizer_for("<|user|>")
    start = made.convert_tokens_to_ids(BOS)
    made.backend_tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, start)])
    made.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path), None)("x").input_ids[0] == start


@pytest.mark.parametrize(("text", "flaw"), [("e\u0301 x", None), ("naïve  +  1\n\n", None), ("½ ﬁ", None)])
def test_composed_characters_are_the_same_text(text, flaw):
    template = ChatTemplate(tokenizer_for("<|user|>"), "{% for m in messages %}{{ m.content }}{% endfor %}")
    template.tokenizer.backend_tokenizer.normalizer = NFC()
    assert tokenize(template, [(ask("?"), text)])[0].flaw == flaw


def test_a_tokenizer_that_loses_spaces_is_noticed():
    """Its own losses encode to the same ids again, which proves nothing."""
    template = ChatTemplate(tokenizer_for("<|user|>"), "{% for m in messages %}{{ m.content }}{% endfor %}")
    template.tokenizer.backend_tokenizer.normalizer = Replace(" ", "")
    assert tokenize(template, [(ask("?"), "a b")])[0].flaw == TOKENIZER


def test_a_response_continues_its_prompt():
    """Encoded alone, a tokenizer of this kind puts a space before it."""
    template = ChatTemplate(tokenizer_for("<|user|>"), "{% for m in messages %}{{ m.content }}{% endfor %}")
    backend = template.tokenizer.backend_tokenizer
    backend.pre_tokenizer = ByteLevel(add_prefix_space=True, use_regex=False)
    ((ids, prompt, _),) = tokenize(template, [(ask("why"), "so")])
    assert backend.decode(ids[prompt:-1]) == "so"
