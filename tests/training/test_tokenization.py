from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from distillery.core.errors import DataError
from distillery.training.tokenization import boundary, load_tokenizer, rendered, special_tokens, spells, tokenize
from mini.judge_data import prompts
from mini.tokenizer import build

PROMPT = "think inside <think> </think> then answer inside <answer> </answer> ."
RESPONSE = "<think> 7 + 5 = 12 ; </think> <answer> \\boxed{ 12 } </answer>"


@pytest.fixture(scope="module")
def tokenizer():
    return build(PROMPT, prompts())


def test_prompt_and_response_are_separated_and_round_trip(tokenizer):
    messages = [{"role": "user", "content": "Ann has 7 apples ."}, {"role": "assistant", "content": "7 apples ."}]
    messages.append({"role": "user", "content": "then Ann gets 5 more . how many apples now ?"})
    ((ids, prompt),) = tokenize(tokenizer, [(messages, RESPONSE)])
    assert tokenizer.decode(ids[:prompt]).endswith("how many apples now ?<|end|><|assistant|>")
    assert tokenizer.decode(ids[prompt:]).strip() == RESPONSE + "<|end|>"


def test_a_template_that_drops_the_thinking_is_an_error(tokenizer):
    forgetful = build(PROMPT, prompts())
    forgetful.chat_template = tokenizer.chat_template.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
    with pytest.raises(DataError, match="changes or drops the response"):
        tokenize(forgetful, [([{"role": "user", "content": "how many ?"}], RESPONSE)])


def test_text_that_spells_a_special_token_is_detected_anywhere(tokenizer):
    ask = lambda text: [{"role": "user", "content": text}]  # noqa: E731
    tokens = special_tokens(tokenizer)
    assert "<|end|>" in tokens
    assert spells(tokens, (ask("say <|end|> now"), "done")) and spells(tokens, (ask("say it"), "a<|end|>b"))
    assert not spells(tokens, (ask("say <| end |> now"), "<think> . </think>"))
    plain = tokenize(tokenizer, [(ask("how many ?"), RESPONSE)])[0][0]
    spelt = tokenize(tokenizer, [(ask("how many <|end|> ?"), RESPONSE)])[0][0]
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert spelt.count(end) == plain.count(end) + 1, "so it must not be trained on"


class Merging:
    """A substitute for a tokenizer whose tokens are pairs of characters, so that a prompt may end inside one."""

    def encode(self, text, add_special_tokens):
        return type("Encoding", (), {"offsets": [(i, i + 2) for i in range(0, len(text), 2)]})


@pytest.mark.parametrize(("prompt", "tokens"), [("abcd", 2), ("abc", 2), ("", 0)])
def test_a_token_across_the_boundary_belongs_to_the_prompt(prompt, tokens):
    assert boundary(Merging(), prompt, "abcdefgh") == tokens


def test_truncation_and_padding_of_the_tokenizer_file_are_disabled(tmp_path, tokenizer):
    cutting = build(PROMPT, prompts())
    cutting.backend_tokenizer.enable_truncation(4)
    cutting.backend_tokenizer.enable_padding(length=64)
    cutting.backend_tokenizer.save(str(tmp_path / "cutting.json"))
    cutting.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text((tmp_path / "cutting.json").read_text())
    dialogue = ([{"role": "user", "content": "how many apples now ?"}], RESPONSE)
    assert tokenize(load_tokenizer(str(tmp_path), None), [dialogue]) == tokenize(tokenizer, [dialogue])


class Splitting:
    """A substitute for a tokenizer that reads a prompt otherwise when it stands alone: "ab" is then one token."""

    def encode(self, text, add_special_tokens):
        spans = [(0, 2)] if text == "ab" else [(i, i + 1) for i in range(len(text))]
        return type("Encoding", (), {"offsets": spans, "ids": [hash(text[a:b]) for a, b in spans]})

    def encode_batch_fast(self, texts, add_special_tokens):
        return [self.encode(text, add_special_tokens) for text in texts]

    def decode(self, ids, skip_special_tokens):
        return "abcd"


def test_a_prompt_that_is_tokenized_otherwise_alone_still_ends_where_it_ends(monkeypatch):
    monkeypatch.setattr("distillery.training.tokenization.rendered", lambda _, prompt, whole: (prompt, whole))
    student = type("Tokenizer", (), {"backend_tokenizer": Splitting()})()
    dialogues: Any = [("ab", "abcd"), ("a", "abcd")]
    assert [prompt for _, prompt in tokenize(student, dialogues)] == [2, 1]


def test_nothing_is_tokenized_without_dialogues():
    assert tokenize(None, []) == []


def test_a_tokenizer_that_adds_its_own_tokens_does_not_add_them_to_dialogues(tokenizer):
    """The chat template writes every token; a start that the tokenizer prepends by itself would come twice."""
    adding = build(PROMPT, prompts())
    end = adding.convert_tokens_to_ids("<|end|>")
    adding.backend_tokenizer.post_processor = TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", end)])
    dialogue = ([{"role": "user", "content": "how many apples now ?"}], RESPONSE)
    assert adding.backend_tokenizer.encode("how").ids[0] == end
    assert tokenize(adding, [dialogue]) == tokenize(tokenizer, [dialogue])
    prompt, whole = rendered(tokenizer, *dialogue)
    assert boundary(adding.backend_tokenizer, prompt, whole) == boundary(tokenizer.backend_tokenizer, prompt, whole)
