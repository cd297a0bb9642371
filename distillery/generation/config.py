"""Settings of engines, and how to sample."""

from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Discriminator, Tag

from distillery.core.config import Positive, PositiveFloat, Section


@dataclass(frozen=True)
class Sampling(Section):
    """Sampling settings, as used by the ledger's keys, the engines and the evaluation."""

    temperature: Annotated[float, Ge(0), Le(2)]
    """0 always takes the most likely token."""
    top_p: Annotated[float, Gt(0), Le(1)]
    """The probability mass that is sampled from (nucleus sampling); 1 for all."""
    max_tokens: Positive
    """New tokens per response, at most."""
    top_k: Positive | None = None
    """How many of the likeliest tokens are sampled from; null for all."""
    min_p: Annotated[float, Ge(0), Le(1)] | None = None
    """The least probability, relative to the likeliest token's, that is sampled from; null for any."""

    repetition_penalty: PositiveFloat | None = None
    """Over 1 makes tokens that occurred less likely; null for none."""
    stop: list[str] | None = None
    """Texts at which generation stops; null for the end of the turn alone."""

    def options(self) -> dict[str, Any]:
        """The options that change the distribution of texts, by their usual names; unset ones are omitted."""
        return {name: value for name, value in vars(self).items() if name != "max_tokens" and value is not None}


@dataclass(frozen=True)
class VllmSettings(Section):
    """A model that vLLM runs in this process or, with several copies, in one process per copy."""

    kind: Literal["vllm"]
    dtype: str
    """The model's data type, ``float32`` or ``bfloat16``."""
    max_model_len: Positive
    """The context, in tokens: prompt and response."""
    max_num_seqs: Positive
    """Requests per batch."""
    tensor_parallel_size: Positive
    """GPUs that every layer is spread over."""
    pipeline_parallel_size: Positive
    """Groups of GPUs that layers are spread over."""
    data_parallel_size: Positive
    """Copies of the model."""
    gpu_memory_utilization: Annotated[float, Gt(0), Le(1)]
    """The share of a GPU's memory that vLLM takes."""
    enforce_eager: bool
    """Whether CUDA graphs are left out: starts sooner, runs slower."""
    _: KW_ONLY
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of vLLM's EngineArgs: ``{quantization: fp8, enable_expert_parallel: true}``."""

    @property
    def devices(self) -> int:
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.data_parallel_size


@dataclass(frozen=True)
class ServerSettings(Section):
    """A model behind OpenAI-compatible servers."""

    kind: Literal["server"]
    urls: list[str]
    """Where it is served, ``http://host:8000/v1``; ``file:FOLDER`` for those in the folder's files, which may change."""
    model: str
    """Its name there."""
    max_model_len: Positive
    """The context, in tokens: prompt and response."""
    max_num_seqs: Positive
    """Requests in flight, over all urls."""
    timeout: PositiveFloat
    """Seconds per request."""
    patience: PositiveFloat
    """Seconds that servers may all be down before the run ends."""
    api_key: str | None
    """The environment variable that holds the key; null where none is needed."""
    devices: Positive
    """GPUs behind the urls, for the cost figures."""
    _: KW_ONLY
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Further fields of each request: ``{reasoning_effort: high}``."""
    max_refused: Annotated[float, Ge(0), Le(1)] = 0.1
    """The share of requests that servers may refuse (after the first 20) before the run ends."""
    system_role: bool = True
    """Whether the model's template has a system role; without, system prompts open the first user turn."""


def _kind(value: Any) -> str:
    return f"kind:{value.get('kind')}" if isinstance(value, dict) else f"kind:{getattr(value, 'kind', None)}"


EngineSettings = Annotated[
    Annotated[VllmSettings, Tag("kind:vllm")] | Annotated[ServerSettings, Tag("kind:server")], Discriminator(_kind)
]
