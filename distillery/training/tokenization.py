"""Dialogues as token ids, by one rule: the prompt that evaluation would generate from, the response, the end of turn.

The chat template renders the prompt alone. It never sees the response, so it cannot change it, and what a student is
trained to continue is what it is asked to continue.
"""

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from distillery.core.chat import Messages
from distillery.core.chat_template import ChatTemplate, TemplateError, garbled, special_tokens
from distillery.core.errors import DataError
from distillery.core.formats import STUDENT_TAGS, THINK, opening_of
from distillery.core.model_locks import Lock

Dialogue = tuple[Messages, str]
SPECIAL, TEMPLATE, TOKENIZER = "special_token", "template", "tokenizer"


class Tokenized(NamedTuple):
    """Token ids of a dialogue, how many of them are the prompt, and why it must not be trained on (None: it may be)."""

    ids: list[int]
    prompt: int
    flaw: str | None


@cache
def load_tokenizer(model: str, revision: str | None) -> Any:
    """The tokenizer, without truncation or padding, whatever its file says. Raises DataError where it is loaded wrongly."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    if why := garbled(tokenizer, model, revision):
        raise DataError(why)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def template_of(lock: Lock) -> ChatTemplate:
    """How a student is prompted. Raises DataError where its chat template ends a turn with nothing that it could learn."""
    template = ChatTemplate(load_tokenizer(lock.id, lock.hub_revision), lock.template_text, lock.template_arguments)
    if template.end_of_turn is None:
        raise DataError(f"{lock.id}: no token ends a turn: neither the chat template nor the tokenizer names one")
    return template


def spells(tokens: Iterable[str], dialogue: Dialogue) -> bool:
    """Whether any message of a dialogue contains one of the tokens as text, which would be encoded as that token."""
    messages, response = dialogue
    return any(token in text for text in (response, *(message["content"] for message in messages)) for token in tokens)


def body_of(prompt: str, response: str) -> str:
    """The response without the thought's opening tag where the prompt ends with it."""
    return response.removeprefix(THINK).lstrip() if opening_of(prompt).strip() == THINK else response


def tokenize(template: ChatTemplate, dialogues: list[Dialogue]) -> list[Tokenized]:
    """Each dialogue as token ids; one that the template rejects has none."""
    backend = template.tokenizer.backend_tokenizer
    special = special_tokens(template.tokenizer) - STUDENT_TAGS
    unknown = template.tokenizer.unk_token_id
    end = template.tokenizer.convert_tokens_to_ids(template.end_of_turn)
    prompts = [_prompt(template, messages) for messages, _ in dialogues]
    bodies = [body_of(prompt or "", response) for prompt, (_, response) in zip(prompts, dialogues, strict=True)]
    asked = _encoded(backend, [prompt or "" for prompt in prompts])
    said = _responses(backend, [prompt or "" for prompt in prompts], asked, bodies)
    back = backend.decode_batch(said, skip_special_tokens=False)
    rows = []
    for dialogue, prompt, body, before, after, read in zip(dialogues, prompts, bodies, asked, said, back, strict=True):
        if prompt is None:
            rows.append(Tokenized([], 0, TEMPLATE))
            continue
        sound = unknown not in after and _normal(read) == _normal(body)
        flaw = SPECIAL if spells(special, dialogue) else None if sound else TOKENIZER
        rows.append(Tokenized([*before, *after, end], len(before), flaw))
    return rows


def _encoded(backend: Any, texts: list[str]) -> list[list[int]]:
    return [each.ids for each in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _responses(backend: Any, prompts: list[str], asked: list[list[int]], bodies: list[str]) -> list[list[int]]:
    """The ids of each response as it continues its prompt.

    Encoded alone, some tokenizers put a space before it; encoded together, some merge its first letters with the prompt's last
    ones: then it stands alone, as a model that is prompted writes it.
    """
    whole = _encoded(backend, [prompt + body for prompt, body in zip(prompts, bodies, strict=True)])
    merged = [i for i, ids in enumerate(whole) if ids[: len(asked[i])] != asked[i]]
    said = [ids[len(before) :] for ids, before in zip(whole, asked, strict=True)]
    for i, ids in zip(merged, _encoded(backend, [bodies[i] for i in merged]), strict=True):
        said[i] = ids
    return said


def _prompt(template: ChatTemplate, messages: Messages) -> str | None:
    try:
        return template.prompt(messages)
    except TemplateError:
        return None


def _normal(text: str) -> str:
    """Many tokenizers compose characters (NFC) before they encode; that loses nothing."""
    return unicodedata.normalize("NFC", text)
