import pytest

from distillery.core.errors import DataError
from distillery.training.tokenization import boundary, load_tokenizer, special_tokens, spells, tokenize
from mini.judge_data import prompts
from mini.tokenizer import build

PROMPT = "think inside <think> </think> then answer inside <answer> </answer> ."
RESPONSE = "<think> 7 + 5 = 12 ; </think> <answer> \\boxed{ 12 } </answer>"


@pytest.fixture(scope="module")
def tokenizer():
    return build(PROMPT, prompts())


def test_prompt_and_response_are_told_apart_and_both_come_back(tokenizer):
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


def test_a_text_that_spells_a_special_token_is_seen_wherever_it_stands(tokenizer):
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
def test_a_token_across_the_border_belongs_to_the_prompt(prompt, tokens):
    assert boundary(Merging(), prompt, "abcdefgh") == tokens


def test_a_tokenizer_whose_file_cuts_and_pads_does_neither(tmp_path, tokenizer):
    cutting = build(PROMPT, prompts())
    cutting.backend_tokenizer.enable_truncation(4)
    cutting.backend_tokenizer.enable_padding(length=64)
    cutting.backend_tokenizer.save(str(tmp_path / "cutting.json"))
    cutting.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text((tmp_path / "cutting.json").read_text())
    dialogue = ([{"role": "user", "content": "how many apples now ?"}], RESPONSE)
    assert tokenize(load_tokenizer(str(tmp_path), None), [dialogue]) == tokenize(tokenizer, [dialogue])
