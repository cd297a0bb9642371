"""Engines: what turns requests into completions. One interface, so that no stage knows what generates.

An engine is asked with ``submit`` and answers through ``poll``, in any order, so that a caller can verify what has
come while the rest is still being generated.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol

from pydantic import Discriminator, Tag

from stages.params import Positive, Section


@dataclass(frozen=True)
class Sampling(Section):
    """How to sample: ``max_tokens`` counts new tokens only."""

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True)
class VllmSettings(Section):
    """A model in this process: ``max_model_len`` in tokens, ``max_num_seqs`` requests in one batch.

    With ``data_parallel_size`` over 1 there are so many copies, each in a process of its own.
    """

    kind: Literal["vllm"]
    dtype: str
    max_model_len: Positive
    max_num_seqs: Positive
    tensor_parallel_size: Positive
    pipeline_parallel_size: Positive
    data_parallel_size: Positive
    gpu_memory_utilization: float
    enforce_eager: bool

    @property
    def devices(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size


@dataclass(frozen=True)
class ServerSettings(Section):
    """A model behind OpenAI-compatible ``urls`` (``http://host:8000/v1``), all of which serve it as ``model``.

    ``max_model_len`` in tokens, ``max_num_seqs`` requests at once over all urls, ``timeout`` in seconds a request. A
    server that is down is waited for ``patience`` seconds. ``api_key`` names the environment variable that holds the
    key. ``devices`` counts the GPUs behind the urls, for the cost.
    """

    kind: Literal["server"]
    urls: list[str]
    model: str
    max_model_len: Positive
    max_num_seqs: Positive
    timeout: float
    patience: float
    api_key: str | None
    devices: Positive


def _kind(value: Any) -> str:
    return f"kind:{value.get('kind')}" if isinstance(value, dict) else f"kind:{getattr(value, 'kind', None)}"


EngineSettings = Annotated[
    Annotated[VllmSettings, Tag("kind:vllm")] | Annotated[ServerSettings, Tag("kind:server")], Discriminator(_kind)
]


@dataclass(frozen=True)
class Request:
    """One chat to complete by one model, for the ``attempt``-th time (from 1)."""

    messages: tuple[dict[str, str], ...]
    revision: str
    sampling: Sampling
    attempt: int

    @cached_property
    def key(self) -> str:
        """The fingerprint of what is asked, 32 hexadecimal digits.

        ``max_tokens`` is not part of it: what ended by itself under one limit stays true under a larger one.
        """
        asked = [self.messages, self.revision, self.sampling.temperature, self.sampling.top_p, self.attempt]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def seed(self) -> int:
        """A seed of the request's own: the same on every machine, another for every query, model and attempt."""
        return int(self.key[:15], 16) % 2**31


PROMPT_TOO_LONG, NO_TRACE = "prompt_too_long", "no_trace"
NOTHING = (PROMPT_TOO_LONG, NO_TRACE)


@dataclass(frozen=True)
class Completion:
    """What came back, and from which engine, version included.

    ``finish_reason`` is ``stop``, ``length`` where ``max_tokens`` or the context cut it, or ``prompt_too_long`` where
    the prompt left no room and nothing was generated; ``no_trace`` where a released data set holds no answer.
    """

    key: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    engine: str


class EngineError(OSError):
    """An engine that cannot be started or has died; the message names it and says what to do. What came is kept."""


class Engine(Protocol):
    """Generates."""

    def submit(self, request: Request) -> None: ...

    def poll(self) -> list[Completion]:
        """Works or waits for a moment and returns what is done; an empty list is no sign of the end.

        Raises EngineError where the engine is dead.
        """
        ...

    def close(self) -> None: ...
