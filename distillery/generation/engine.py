"""Engines turn requests into completions. One interface, so that no stage depends on the backend.

Requests go in with ``submit``, completions come out of ``poll`` in any order, so that a caller can verify the first
ones while others are still being generated.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from distillery.generation.config import Sampling

ENCODE = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True)
class Request:
    """One chat to complete by one model, for the ``attempt``-th time (from 1)."""

    messages: tuple[dict[str, str], ...]
    revision: str
    sampling: Sampling
    attempt: int

    @cached_property
    def key(self) -> str:
        """The fingerprint of the request, 32 hexadecimal digits.

        ``max_tokens`` is not part of it: a completion that ended by itself stays valid under a larger limit.
        """
        options = self.sampling.options()
        asked = [self.messages, self.revision, options.pop("temperature"), options.pop("top_p"), self.attempt]
        asked += [options] if options else []  # so that keys from before an option existed stay valid
        return hashlib.sha256(ENCODE(asked).encode()).hexdigest()[:32]

    @property
    def seed(self) -> int:
        """The request's seed: the same on every machine, different for every query, model and attempt."""
        return int(self.key[:15], 16) % 2**31


PROMPT_TOO_LONG, NO_TRACE, TEMPLATE_REJECTS, REFUSED = "prompt_too_long", "no_trace", "template_rejects", "refused"
NO_OUTPUT_REASONS = (PROMPT_TOO_LONG, NO_TRACE, TEMPLATE_REJECTS, REFUSED)
"""Of completions that hold no output: they are not kept in the ledger, so that the next run asks again."""


@dataclass(frozen=True)
class Completion:
    """A completion, and the engine that generated it, version included.

    ``finish_reason`` is ``stop``, ``length`` where ``max_tokens`` or the context truncated it, or ``prompt_too_long`` where
    the prompt left no room and nothing was generated; ``template_rejects`` where the chat template refused the messages, and
    ``refused`` where a server refused the request (``text`` says why); ``no_trace`` where a released data set holds no answer.
    """

    key: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    engine: str

    @property
    def output(self) -> str:
        """What the model wrote: nothing where ``text`` says why there is no output."""
        return "" if self.finish_reason in NO_OUTPUT_REASONS else self.text


class Engine(Protocol):
    """Generates."""

    def submit(self, request: Request) -> None: ...

    def poll(self) -> list[Completion]:
        """Works or waits for a moment and returns what is done; an empty list does not mean the end.

        Raises EngineError where the engine is dead.
        """
        ...

    def close(self) -> None: ...
