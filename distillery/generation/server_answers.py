"""What a server's answer means: a completion, a prompt without room, a refusal of one request or of all, or a failure.

The wordings are those of vLLM, SGLang, TGI, OpenAI, Together, DeepSeek and llama.cpp; tests/generation/test_server_answers.py
lists them.
"""

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from distillery.generation.engine import Completion, Request

FINISHES = {"stop": "stop", "length": "length", "eos_token": "stop", "stop_sequence": "stop", "end_turn": "stop"}
"""A completion's end by the names that servers give it; any other (abort, content_filter, tool_calls, none) is no answer."""
BUSY = {408, 409, 425, 429, 502, 503, 504, 529}
ALL_ROWS = {401, 402, 403, 404, 405, 410, 501}
"""Statuses that would be the same for every request: a wrong key, no credit, no such model or path."""
LONGEST_WAIT = 3600.0
_OVERFLOW = re.compile(
    r"context (?:length|size|window)|context_length_exceeded|exceed_context_size|maximum model length|max_model_len"
    r"|(?:inputs|input tokens|prompt|input).{0,40}(?:longer than|exceeds?|too long|must have less than)"
    r"|max(?:imum)?_?(?:new_|completion_)?_?tokens.{0,60}(?:too large|must be <=|valid range|at most|exceed)",
    re.IGNORECASE | re.DOTALL,
)


class OverflowedError(Exception):
    """The prompt and the tokens asked for do not fit the server's context, or more tokens were asked for than it gives."""


class RefusedError(Exception):
    """The server will not answer this request."""


class RefusesAllError(Exception):
    """The server would refuse every request for the same reason."""


class FailedError(Exception):
    """This request failed on a server that may answer others: asked again, it may succeed."""


class BusyError(Exception):
    """The server is down, overloaded or limits its clients; ``seconds`` is how long it asks to be left alone, if it does."""

    def __init__(self, words: str, seconds: float | None = None):
        super().__init__(words)
        self.seconds = seconds


def completion_of(request: Request, status: int, body: str, retry_after: str | None, engine: str) -> Completion:
    """The completion that an answer holds. Raises one of this module's errors where it holds none."""
    if status != 200:
        raise error_of(status, body, retry_after)
    try:
        answer = json.loads(body)
        choice, usage = answer["choices"][0], answer["usage"]
        said, counts = choice["message"], (int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
        text = text_of(said)
        finish = choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise FailedError(f"an answer of an unknown form: {brief(body)}") from None
    if not isinstance(finish, str) or finish not in FINISHES:
        raise FailedError(f"finish_reason {finish}")
    if not text:
        raise FailedError("an empty answer")
    return Completion(request.key, text, FINISHES[finish], *counts, engine)


def text_of(said: dict[str, Any]) -> str:
    """A message's text; a thought that the server parsed out of it is put back in place."""
    text, thought = said.get("content") or "", said.get("reasoning_content") or said.get("reasoning")
    if thought:
        text = f"<think>{thought}</think>{text}"
    return str(text).encode("utf-8", "replace").decode()  # JSON may hold lone surrogates, tables may not


def error_of(status: int, body: str, retry_after: str | None) -> Exception:
    words = f"status {status}: {brief(body)}"
    if status in ALL_ROWS:
        return RefusesAllError(words)
    if status in BUSY:
        return BusyError(words, seconds_of(retry_after))
    if status >= 500:
        return FailedError(words)
    return OverflowedError(words) if _OVERFLOW.search(body) else RefusedError(words)


def brief(body: str) -> str:
    """A server's words on one line, without control characters, at most 300 characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in body[:2000]).split())[:300]


def seconds_of(retry_after: str | None) -> float | None:
    """The header Retry-After, seconds or a date, as seconds from now; None where there is none or it makes no sense."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            at = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else None
