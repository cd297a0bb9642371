"""Chat messages: reading the formats that data sets use, and query ids."""

import hashlib
import json
import re
import unicodedata
from typing import Any

UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
"""Matches what tables cannot store: null bytes and lone surrogates."""
Messages = list[dict[str, str]]
SPEAKERS = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


def canonical(messages: Messages) -> str:
    """The normalized text that a query's id is based on: Unicode NFC, runs of white space collapsed to one space."""
    turns = [[m["role"], re.sub(r"\s+", " ", unicodedata.normalize("NFC", m["content"])).strip()] for m in messages]
    return json.dumps(turns, ensure_ascii=True)


def identify(messages: Messages) -> str:
    """A query's id: the hash of its canonical messages, 32 hexadecimal digits."""
    return hashlib.sha256(canonical(messages).encode("ascii")).hexdigest()[:32]


def as_messages(value: Any) -> Messages:
    """A prompt, or a list of turns (role and content, or from and value), as messages. Raises ValueError for anything else."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise ValueError("messages must be a text or a list that is not empty")
    return [as_message(turn) for turn in value]


def as_message(turn: Any) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise ValueError("every message needs a role and a content, both text")
    role, content = (
        turn.get(theirs) if turn.get(ours) is None else turn[ours] for ours, theirs in (("role", "from"), ("content", "value"))
    )
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError("every message needs a role and a content, both text")
    return {"role": SPEAKERS.get(role.lower(), role), "content": content}


def asked_and_answered(messages: Messages) -> tuple[Messages, str | None]:
    """A dialogue up to its last question, and the answer that it ends with, or None."""
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        return messages[:-1], messages[-1]["content"]
    return messages, None


def get_path(row: Any, path: str) -> Any:
    """The value at a dotted path in a row, ``conversations.-1.info.category``; None where the path does not exist."""
    if isinstance(row, dict) and path in row:
        return row[path]
    for step in path.split("."):
        if isinstance(row, dict):
            row = row.get(step)
        elif isinstance(row, list) and step.removeprefix("-").isdecimal() and -len(row) <= int(step) < len(row):
            row = row[int(step)]
        else:
            return None
    return row


def end_of_turn(tokenizer: Any) -> str | None:
    """The token with which the chat template ends a response, the stop token; often not the base's end-of-text token."""
    said = "response"
    dialogue = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said}]
    whole = tokenizer.apply_chat_template(dialogue, tokenize=False)
    after = tokenizer.tokenize(whole[whole.rindex(said) + len(said) :])
    return next((token for token in after if token in tokenizer.all_special_tokens), tokenizer.eos_token)
