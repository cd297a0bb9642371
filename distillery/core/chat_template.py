"""Chat templates: the one place where messages become a prompt, for generation, evaluation and training alike."""

import re
from collections.abc import Callable
from datetime import date
from functools import cached_property
from typing import Any

from distillery.core.chat import Messages, without_system
from distillery.core.formats import FORMATS

TODAY = date(2026, 1, 1)
"""What templates print as today's date, so that a prompt is the same every day."""
PROBE = "def f(x):\n    return x  + 1  # na\u00efve 12345\n"
_SAID, _ASKED = "response", "question"


class TemplateError(Exception):
    """A chat template rejects a dialogue; in its own words."""


def _formatted(form: str) -> str:
    return TODAY.strftime(form)


class ChatTemplate:
    """A tokenizer's chat template, or ``template`` (its text) in its place, with the ``arguments`` it is called with.

    A system message opens the first user turn where the template has no system role. Texts are given as lists of parts where
    the template shows nothing else (models that also see).
    """

    def __init__(self, tokenizer: Any, template: str | None = None, arguments: dict[str, Any] | None = None):
        self.tokenizer, self.template = tokenizer, template
        self.arguments: dict[str, Any] = {
            "strftime_now": _formatted,
            "date_string": _formatted("%d %b %Y"),
            **(arguments or {}),
        }

    def prompt(self, messages: Messages) -> str:
        """What a model is to continue. Raises TemplateError, also where the template leaves out the last turn."""
        turns = messages if self.takes_system else without_system(messages)
        text = self._rendered(turns, add_generation_prompt=True)
        if turns and turns[-1]["content"].strip() not in text:
            raise TemplateError("the chat template changes or leaves out the last turn")
        return text

    @cached_property
    def takes_parts(self) -> bool:
        """Whether the template shows a text only as a part of a list."""
        question = [{"role": "user", "content": _ASKED}]
        if _ASKED in (_tried(lambda: self._raw(question)) or ""):
            return False
        return _ASKED in (_tried(lambda: self._raw(_in_parts(question))) or "")

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template shows a system message."""
        probe = [{"role": "system", "content": "be brief"}, {"role": "user", "content": _ASKED}]
        return all(turn["content"] in (_tried(lambda: self._rendered(probe)) or "") for turn in probe)

    @cached_property
    def end_of_turn(self) -> str | None:
        """The token with which the template ends a response; often not the base's end-of-text token. None without any."""
        dialogue = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}]
        whole = _tried(lambda: self._rendered(dialogue)) or ""
        after = whole[whole.rindex(_SAID) + len(_SAID) :] if _SAID in whole else ""
        inner = FORMATS["cohere"].end  # a mark between the answer and the end of the turn
        special = special_tokens(self.tokenizer) - {self.tokenizer.unk_token, self.tokenizer.bos_token}
        found = (token for token in self.tokenizer.tokenize(after) if token in special and not re.fullmatch(inner, token))
        token: str | None = next(found, self.tokenizer.eos_token)
        return token

    def _rendered(self, messages: Messages, add_generation_prompt: bool = False) -> str:
        return self._raw(_in_parts(messages) if self.takes_parts else messages, add_generation_prompt)

    def _raw(self, messages: Any, add_generation_prompt: bool = False) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self.arguments,
            )
        except Exception as error:  # templates raise whatever jinja and their own calls do
            raise TemplateError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from None
        return text


def _in_parts(messages: Messages) -> list[dict[str, Any]]:
    return [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in messages]


def special_tokens(tokenizer: Any) -> frozenset[str]:
    """Every special token as text: also those that are special in the tokenizer's file alone (Llama 3, Gemma, Phi 4)."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    return frozenset(added) | frozenset(tokenizer.all_special_tokens)


def garbled(tokenizer: Any, model: str, revision: str | None) -> str | None:
    """Why a tokenizer must not be used: transformers loads it otherwise than its own tokenizer.json says; None if it does not.

    transformers 5 takes a ``tokenizer_class`` of Llama's at its word and loses all spaces of byte-level tokenizers.
    """
    from tokenizers import Tokenizer
    from transformers.utils import cached_file

    try:
        file = Tokenizer.from_file(cached_file(model, "tokenizer.json", revision=revision))
    except OSError:  # it has no such file
        return None
    file.no_truncation()
    file.no_padding()
    loaded = tokenizer(PROBE, add_special_tokens=False, truncation=False).input_ids
    if file.encode(PROBE, add_special_tokens=False).ids == loaded:
        return None
    return (
        f"{model}: transformers reads its tokenizer otherwise than its tokenizer.json says; set tokenizer_class to "
        "PreTrainedTokenizerFast in its tokenizer_config.json, or give its config.json the right model_type"
    )


def _tried(render: Callable[[], str]) -> str | None:
    try:
        return render()
    except TemplateError:
        return None
