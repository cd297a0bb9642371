"""What servers say, in their own words."""
# ruff: noqa: E501

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from distillery.generation.config import Sampling
from distillery.generation.engine import Request
from distillery.generation.server_answers import (
    LONGEST_WAIT,
    BusyError,
    FailedError,
    OverflowedError,
    RefusedError,
    RefusesAllError,
    brief,
    completion_of,
    error_of,
    seconds_of,
)

ASKED = Request(({"role": "user", "content": "hi"},), "r", Sampling(0.6, 0.95, 10), 1)
OVERFLOWS = {
    "vLLM, old": (400, "This model's maximum context length is 64 tokens. However, you requested 70 tokens (60 in the messages, 10 in the completion). Please reduce the length of the messages or completion."),
    "vLLM, new": (400, "'max_tokens' or 'max_completion_tokens' is too large: 10. This model's maximum context length is 64 tokens and your request has 60 input tokens (10 > 64 - 60)."),
    "vLLM, newer": (400, "You passed 65 input tokens and requested 10 output tokens. However, the model's context length is only 64 tokens, resulting in a maximum input length of 54 tokens."),
    "vLLM, the engine": (400, "The decoder prompt (length 70) is longer than the maximum model length of 64. Make sure that `max_model_len` is no smaller than the number of text tokens."),
    "SGLang, input": (400, "The input (70 tokens) is longer than the model's context length (64 tokens)."),
    "SGLang, total": (400, "Requested token count exceeds the model's maximum context length of 64 tokens. You requested a total of 70 tokens: 60 tokens from the input messages and 10 tokens for the completion."),
    "TGI, total": (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 64. Given: 60 `inputs` tokens and 10 `max_new_tokens`"),
    "TGI, input": (422, "Input validation error: `inputs` must have less than 64 tokens. Given: 70"),
    "OpenAI": (400, "This model's maximum context length is 64 tokens. However, your messages resulted in 70 tokens. Please reduce the length of the messages."),
    "OpenAI, code": (400, '{"code": "context_length_exceeded", "message": "Your input exceeds the limit of this model."}'),
    "OpenAI, output": (400, "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided 100000."),
    "Together": (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and 512 `max_new_tokens`"),
    "DeepSeek": (400, "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens (69990 in the messages, 10 in the completion)."),
    "DeepSeek, output": (400, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
    "llama.cpp": (400, "the request exceeds the available context size. try increasing the context size or enable context shift"),
    "Fireworks": (413, "The prompt is too long: 70000, model maximum context length: 65536"),
}  # fmt: skip
REFUSALS = {
    "content filter": (400, "The response was filtered due to the prompt triggering the content management policy."),
    "roles": (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    "range": (422, "top_p must be in (0, 1], got 1.5"),
    "size": (413, "Request entity too large"),
    "image": (400, "image input is not supported"),
}


@pytest.mark.parametrize("server", OVERFLOWS)
def test_an_overflow_is_known_in_every_servers_words(server):
    status, words = OVERFLOWS[server]
    assert isinstance(error_of(status, json.dumps({"error": {"message": words}}), None), OverflowedError)


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_concerns_one_request_and_is_no_overflow(kind):
    status, words = REFUSALS[kind]
    error = error_of(status, json.dumps({"error": words}), None)
    assert isinstance(error, RefusedError) and words[:30] in str(error)


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ((401, 402, 403, 404, 405, 410, 501), RefusesAllError),
        ((408, 409, 425, 429, 502, 503, 504, 529), BusyError),
        ((500, 520, 599), FailedError),
        ((300, 400, 413, 418, 422, 451), RefusedError),
    ],
)
def test_every_status_has_its_meaning(statuses, kind):
    assert all(type(error_of(status, "x", None)) is kind for status in statuses)


def said(finish="stop", **message):
    choice = {"message": {"content": "5"} | message, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}


@pytest.mark.parametrize(
    ("finish", "kept"), [("stop", "stop"), ("length", "length"), ("eos_token", "stop"), ("stop_sequence", "stop")]
)
def test_only_an_end_or_a_limit_completes(finish, kept):
    assert completion_of(ASKED, 200, json.dumps(said(finish)), None, "e").finish_reason == kept


@pytest.mark.parametrize("finish", ["abort", "content_filter", "tool_calls", "function_call", "error", None, "", 3, ["stop"]])
def test_any_other_end_is_no_answer(finish):
    with pytest.raises(FailedError):
        completion_of(ASKED, 200, json.dumps(said(finish)), None, "e")


@pytest.mark.parametrize(
    "body",
    ["<html>", "", "null", "[]", '{"choices": []}', '{"choices": [3]}', '{"choices": [{"message": null}], "usage": {}}',
     json.dumps(said() | {"usage": None}), json.dumps(said(content="")), json.dumps(said(content=None)), "\x00\xff"],
)  # fmt: skip
def test_an_answer_of_another_form_is_a_failure_of_its_request(body):
    with pytest.raises(FailedError):
        completion_of(ASKED, 200, body, None, "e")


def test_a_thought_beside_the_text_is_put_back_and_no_surrogate_is_kept():
    body = json.dumps(said(content="5 \ud800", reasoning="2 + 3"))
    found = completion_of(ASKED, 200, body, None, "e")
    assert found.text == "<think>2 + 3</think>5 ?" and (found.prompt_tokens, found.completion_tokens) == (3, 1)


def test_words_are_one_short_printable_line():
    assert brief("a\n\tb\x1b[31m\x00 c") == "a b [31m c" and len(brief("x" * 5000)) == 300


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("", None), ("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("1e9", LONGEST_WAIT), ("soon", None), ("nan", None)],
)
def test_how_long_a_server_asks_to_be_left_alone(header, seconds):
    assert seconds_of(header) == seconds
    assert getattr(error_of(429, "slow down", header), "seconds", "none") == seconds


def test_a_date_is_a_time_to_wait_for():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert 90 < (seconds_of(soon) or 0) <= 100 and seconds_of(past) == 0.0
