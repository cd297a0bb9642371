"""Dialogues as the student's tokenizer sees them: prompt and response rendered by its chat template, checked, as token ids."""

from functools import cache
from typing import Any

from distillery.core.errors import DataError

Dialogue = tuple[list[dict[str, str]], str]


@cache
def load_tokenizer(model: str, revision: str | None) -> Any:
    """The tokenizer, without truncation or padding, whatever its file says."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def special_tokens(tokenizer: Any) -> list[str]:
    """As text: the tokenizer encodes such a text as the token, wherever it occurs."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]


def spells(tokens: list[str], dialogue: Dialogue) -> bool:
    """Whether any message of a dialogue contains one of the tokens as text."""
    messages, response = dialogue
    return any(token in text for text in (response, *(message["content"] for message in messages)) for token in tokens)


def rendered(tokenizer: Any, messages: list[dict[str, str]], response: str) -> tuple[str, str]:
    """The prompt as the chat template writes it, and the complete dialogue. Raises DataError where it changes the response."""
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": response}], tokenize=False)
    if not whole.startswith(prompt) or response not in whole[len(prompt) :]:
        raise DataError("the student's chat template changes or drops the response; give the base another template")
    return prompt, whole


def tokenize(tokenizer: Any, dialogues: list[Dialogue]) -> list[tuple[list[int], int]]:
    """The token ids of each complete dialogue and how many of them are the prompt.

    Raises DataError where encoding the tokenizer's decoded text gives other tokens.
    """
    if not dialogues:
        return []
    backend = tokenizer.backend_tokenizer
    texts = [rendered(tokenizer, *dialogue) for dialogue in dialogues]
    whole = [each.ids for each in backend.encode_batch_fast([text for _, text in texts], add_special_tokens=False)]
    prompts = [each.ids for each in backend.encode_batch_fast([prompt for prompt, _ in texts], add_special_tokens=False)]
    again = backend.decode(whole[0], skip_special_tokens=False)
    if backend.encode(again, add_special_tokens=False).ids != whole[0]:
        raise DataError("the student's tokenizer does not read back what it decodes; give the base another tokenizer")
    return [
        (ids, len(prompt) if ids[: len(prompt)] == prompt else boundary(backend, *text))
        for ids, prompt, text in zip(whole, prompts, texts, strict=True)
    ]


def boundary(backend: Any, prompt: str, whole: str) -> int:
    """How many tokens begin within the prompt, for a prompt that ends inside a token."""
    return sum(start < len(prompt) for start, _ in backend.encode(whole, add_special_tokens=False).offsets)
