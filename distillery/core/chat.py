"""Chat messages: reading the formats that data sets use, query ids, system prompts."""

import hashlib
import json
import re
import unicodedata
from typing import Any

UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
"""Matches what tables cannot store: null bytes and lone surrogates."""
Messages = list[dict[str, str]]
TOOL_ROLES = {"tool", "function", "ipython", "observation", "function_call", "tool_call", "tool_response"}
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
THOUGHT_PARTS = ("thinking", "reasoning")
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
    """One turn; its content may be a list of parts that are all text. A thought beside the content is left out."""
    if not isinstance(turn, dict):
        raise ValueError("every message needs a role and a content, both text")
    role, content = (
        turn.get(theirs) if turn.get(ours) is None else turn[ours] for ours, theirs in (("role", "from"), ("content", "value"))
    )
    if turn.get("tool_calls") or (isinstance(role, str) and role.lower() in TOOL_ROLES):
        raise ValueError("a turn calls a tool or holds a tool's answer")
    if isinstance(content, list):
        content = "".join(_text_of(part) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError("every message needs a role and a content, both text")
    return {"role": SPEAKERS.get(role.lower(), role), "content": content}


def _text_of(part: Any) -> str:
    if isinstance(part, dict) and part.get("type") in THOUGHT_PARTS:
        return ""
    if not isinstance(part, dict) or not isinstance(part.get("text"), str):
        raise ValueError("a part of a message's content is not text")
    return str(part["text"])


def thought_beside(turn: dict[str, Any]) -> str | None:
    """The thought that a turn holds beside its content: in a field of its own, or as a part of the content."""
    fields = (turn.get(name) for name in THOUGHT_FIELDS)
    content = turn.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    inner = (part.get("thinking") or part.get("text") for part in parts if part.get("type") in THOUGHT_PARTS)
    return next((each for each in (*fields, *inner) if isinstance(each, str) and each.strip()), None)


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


def with_system(system_prompt: str, messages: Messages) -> Messages:
    """The messages after a system prompt: one system message, which the query's own follows within."""
    first = next((i for i, turn in enumerate(messages) if turn["role"] != "system"), len(messages))
    texts = [system_prompt, *(turn["content"] for turn in messages[:first])]
    system = "\n\n".join(filter(None, texts))
    return [*([{"role": "system", "content": system}] if system else []), *messages[first:]]


def without_system(messages: Messages) -> Messages:
    """The same dialogue for a template that knows no system role: its text opens the first user turn."""
    system, turns = [turn for turn in messages if turn["role"] == "system"], [t for t in messages if t["role"] != "system"]
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), None)
    if not system or first is None:
        return turns
    text = "\n\n".join([*(turn["content"] for turn in system), turns[first]["content"]])
    return [*turns[:first], {"role": "user", "content": text}, *turns[first + 1 :]]
